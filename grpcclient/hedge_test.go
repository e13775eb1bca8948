package grpcclient_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/backstay-go/backstay/grpcclient"
	"github.com/backstay-go/backstay/hedge"
)

// late serves the first call after a second, unless it is cancelled before, the others at once.
func late(cancelled *bool) handler {
	return func(s grpc.ServerStream, hit int) error {
		n := string(rune('0' + hit))
		_ = s.SetHeader(metadata.Pairs("hit", n))
		s.SetTrailer(metadata.Pairs("end", n))
		if hit == 1 {
			select {
			case <-time.After(time.Second):
			case <-s.Context().Done():
				*cancelled = true
				return s.Context().Err()
			}
		}
		return s.SendMsg(text("hit " + n))
	}
}

// A call that takes long gets a second attempt beside it; the loser is cancelled, and nothing of it reaches the caller.
func TestHedge(t *testing.T) {
	cancelled := false
	inWorld(t, late(&cancelled), func(t *testing.T, w *world) {
		var header, trailer metadata.MD
		var p peer.Peer
		ends := 0
		start := time.Now()
		got, err := call(t.Context(), w.dial(), get, grpcclient.Hedge(50*time.Millisecond),
			grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&p), grpc.OnFinish(func(error) { ends++ }))
		if err != nil || got != "hit 2" || time.Since(start) != 50*time.Millisecond {
			t.Errorf("got %q and %v after %v, want hit 2 after 50ms", got, err, time.Since(start))
		}
		synctest.Wait()
		if !cancelled || ends != 1 {
			t.Errorf("got the loser cancelled %v and %d ends, want true and 1", cancelled, ends)
		}
		if header.Get("hit")[0] != "2" || trailer.Get("end")[0] != "2" || p.Addr == nil {
			t.Errorf("got header %v, trailer %v, peer %v, want those of the second attempt", header, trailer, p)
		}
		w.wantHits(2)
	})
}

// Which calls are hedged, and after how long.
func TestHedgeWhen(t *testing.T) {
	every := hedge.New(hedge.Config{DelayFor: grpcclient.HedgeAfter(100 * time.Millisecond)})
	for _, tc := range []struct {
		name   string
		parts  func(w *world) *grpc.ClientConn
		method string
		opts   []grpc.CallOption
		hits   int
		took   time.Duration
	}{
		{"not asked for", func(w *world) *grpc.ClientConn { return w.dial() }, get, nil, 1, time.Second},
		{"may not be repeated", func(w *world) *grpc.ClientConn { return w.dial() }, charge, []grpc.CallOption{grpcclient.Hedge(50 * time.Millisecond)}, 1, time.Second},
		{"the caller says that it may", func(w *world) *grpc.ClientConn { return w.dial() }, charge, []grpc.CallOption{grpcclient.Idempotent(), grpcclient.Hedge(50 * time.Millisecond)}, 2, 50 * time.Millisecond},
		{"by the table", func(w *world) *grpc.ClientConn {
			return w.dial(grpcclient.Methods{get: {Hedge: 30 * time.Millisecond}})
		}, get, nil, 2, 30 * time.Millisecond},
		{"by the pipeline", func(w *world) *grpc.ClientConn { return w.dial(every) }, get, nil, 2, 100 * time.Millisecond},
		{"not this one", func(w *world) *grpc.ClientConn { return w.dial(every) }, get, []grpc.CallOption{grpcclient.Hedge(0)}, 1, time.Second},
		{"never", func(w *world) *grpc.ClientConn { return w.dial(every) }, get, []grpc.CallOption{grpcclient.NoRetry()}, 1, time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cancelled := false
			inWorld(t, late(&cancelled), func(t *testing.T, w *world) {
				start := time.Now()
				_, err := call(t.Context(), tc.parts(w), tc.method, tc.opts...)
				if took := time.Since(start); err != nil || took != tc.took {
					t.Errorf("got %v after %v, want nil after %v", err, took, tc.took)
				}
				w.wantHits(tc.hits)
			})
		})
	}
}

// plainCodec is a codec of messages that are no proto messages.
type plainCodec struct{ encoding.Codec }

func (plainCodec) Marshal(v any) ([]byte, error)      { return []byte(*v.(*string)), nil }
func (plainCodec) Unmarshal(data []byte, v any) error { *v.(*string) = string(data); return nil }
func (plainCodec) Name() string                       { return "proto" }

// A reply of another kind than a proto message cannot be kept apart, so the call is not hedged; it is repeated as any.
func TestHedgeOfOtherReplies(t *testing.T) {
	cancelled := false
	inWorld(t, late(&cancelled), func(t *testing.T, w *world) {
		req, reply := "", ""
		start := time.Now()
		err := w.dial(hedge.New(hedge.Config{Delay: 50 * time.Millisecond})).Invoke(t.Context(), get, &req, &reply, grpc.ForceCodec(plainCodec{}))
		if took := time.Since(start); err != nil || took != time.Second || reply == "" {
			t.Errorf("got %q and %v after %v, want an answer after 1s", reply, err, took)
		}
		w.wantHits(1)
	})
}

// Many calls beside each other whose attempts end at about the same time: nothing is shared. The race detector looks.
func TestHedgeRaces(t *testing.T) {
	inWorld(t, func(s grpc.ServerStream, hit int) error {
		_ = s.SetHeader(metadata.Pairs("a", "b"))
		s.SetTrailer(metadata.Pairs("a", "b"))
		if err := s.RecvMsg(&wrapperspb.StringValue{}); err != nil {
			return err
		}
		if hit%3 == 0 {
			return status.Error(codes.Unavailable, "busy")
		}
		return s.SendMsg(text("fine"))
	}, func(t *testing.T, w *world) {
		conn := w.dial(hedge.New(hedge.Config{Delay: -1, Extra: 2}))
		done := make(chan error)
		for range 50 {
			go func() {
				var header, trailer metadata.MD
				var p peer.Peer
				ctx, cancel := context.WithCancel(t.Context())
				got, err := call(ctx, conn, get, grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&p))
				cancel()
				if err == nil && (got != "fine" || len(header.Get("a")) != 1 || len(trailer.Get("a")) != 1 || p.Addr == nil) {
					err = status.Errorf(codes.Unknown, "got %q, header %v, trailer %v", got, header, trailer)
				}
				done <- err
			}()
		}
		for range 50 {
			if err := <-done; err != nil && status.Code(err) != codes.Unavailable {
				t.Error(err)
			}
		}
	})
}
