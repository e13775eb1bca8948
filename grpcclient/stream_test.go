package grpcclient_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/grpcclient"
	"github.com/backstay-go/backstay/standard"
	"github.com/backstay-go/backstay/timeout"
)

// numbers serves a stream of 1 to n, after failing as often as errs says.
func numbers(n int, errs ...error) handler {
	return func(s grpc.ServerStream, hit int) error {
		if err := s.RecvMsg(&wrapperspb.StringValue{}); err != nil {
			return err
		}
		if hit <= len(errs) {
			return errs[hit-1]
		}
		for i := range n {
			if err := s.SendMsg(text(strconv.Itoa(i + 1))); err != nil {
				return err
			}
		}
		return nil
	}
}

var errBusy = status.Error(codes.Unavailable, "busy")

// A server stream is opened again while nothing has come, with the request that it was opened with.
func TestServerStreamRepeats(t *testing.T) {
	inBothWorlds(t, numbers(2, errBusy, errBusy), func(t *testing.T, w *world) {
		s, err := open(t.Context(), w.dial(), serverStream, list)
		if err != nil {
			t.Fatal(err)
		}
		got, err := all(s)
		if want := []string{"1", "2"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("got %v and %v, want %v", got, err, want)
		}
		w.wantHits(3)
		if got, want := w.head("grpc-previous-rpc-attempts"), [][]string{nil, {"1"}, {"2"}}; !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("grpc-previous-rpc-attempts: got %q, want %q", got, want)
		}
	})
	inBothWorlds(t, numbers(2, errBusy), func(t *testing.T, w *world) { // nobody says that it may be
		s, err := open(t.Context(), w.dial(), serverStream, watch)
		if err != nil {
			t.Fatal(err)
		}
		_, err = all(s)
		if !errors.Is(err, errBusy) {
			t.Errorf("got %v, want the server's own error", err)
		}
		w.wantHits(1)
	})
	inBothWorlds(t, numbers(2, errBusy), func(t *testing.T, w *world) { // Header asks first
		s, err := open(t.Context(), w.dial(), serverStream, list)
		if err != nil {
			t.Fatal(err)
		}
		if md, err := s.Header(); md == nil || err != nil {
			t.Errorf("got %v and %v, want the headers of the second attempt", md, err)
		}
		if got, err := all(s); err != nil || len(got) != 2 {
			t.Errorf("got %v and %v, want both messages", got, err)
		}
		w.wantHits(2)
	})
	inBothWorlds(t, numbers(0, errBusy, errBusy, errBusy), func(t *testing.T, w *world) { // and finds the end
		s, err := open(t.Context(), w.dial(), serverStream, list)
		if err != nil {
			t.Fatal(err)
		}
		if md, err := s.Header(); md != nil || err != nil {
			t.Errorf("got %v and %v, want neither, as of gRPC", md, err)
		}
		_, err = recv(s)
		wantCode(t, err, codes.Unavailable)
		w.wantHits(3)
	})
}

// 48: what has been delivered is not delivered again.
func TestNothingTwice(t *testing.T) {
	inBothWorlds(t, func(s grpc.ServerStream, _ int) error {
		_ = s.SendMsg(text("1"))
		_ = s.SendMsg(text("2"))
		return errBusy
	}, func(t *testing.T, w *world) {
		s, err := open(t.Context(), w.dial(), serverStream, list)
		if err != nil {
			t.Fatal(err)
		}
		got, err := all(s)
		if want := []string{"1", "2"}; !slices.Equal(got, want) || !errors.Is(err, errBusy) {
			t.Errorf("got %v and %v, want %v and the server's error", got, err, want)
		}
		w.wantHits(1)
	})
	for name, look := range map[string]func(grpc.ClientStream){
		"headers came":               func(grpc.ClientStream) {},
		"headers were asked for":     func(s grpc.ClientStream) { _, _ = s.Header() },
		"the context was handed out": func(s grpc.ClientStream) { _ = s.Context() },
	} {
		t.Run(name, func(t *testing.T) {
			inBothWorlds(t, func(s grpc.ServerStream, _ int) error {
				if name != "the context was handed out" {
					_ = s.SendHeader(metadata.Pairs("a", "b"))
				}
				time.Sleep(time.Second)
				return errBusy
			}, func(t *testing.T, w *world) {
				s, err := open(t.Context(), w.dial(), serverStream, list)
				if err != nil {
					t.Fatal(err)
				}
				look(s)
				_, err = recv(s)
				wantCode(t, err, codes.Unavailable)
				w.wantHits(1)
			})
		})
	}
}

// 49: streams with messages of the client's work as they do without policies, and are not repeated.
func TestClientStreams(t *testing.T) {
	echo := func(s grpc.ServerStream, _ int) error {
		for {
			m := &wrapperspb.StringValue{}
			if err := s.RecvMsg(m); err != nil {
				return s.SendMsg(text("bye"))
			}
			if m.Value == "fail" {
				return errBusy
			}
			if err := s.SendMsg(m); err != nil {
				return err
			}
		}
	}
	inBothWorlds(t, echo, func(t *testing.T, w *world) {
		s, err := open(t.Context(), w.dial(), bidiStream, chat)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"a", "b", "c"} {
			if err := s.SendMsg(text(word)); err != nil {
				t.Fatal(err)
			}
			if got, err := recv(s); got != word || err != nil {
				t.Errorf("got %q and %v, want %q", got, err, word)
			}
		}
		_ = s.CloseSend()
		if got, err := all(s); err != nil || !slices.Equal(got, []string{"bye"}) {
			t.Errorf("got %v and %v, want a bye", got, err)
		}
	})
	inBothWorlds(t, echo, func(t *testing.T, w *world) {
		s, err := open(t.Context(), w.dial(), bidiStream, chat)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.SendMsg(text("fail"))
		_, err = recv(s)
		wantCode(t, err, codes.Unavailable)
		w.wantHits(1)
	})
	inBothWorlds(t, func(s grpc.ServerStream, _ int) error {
		n := 0
		for s.RecvMsg(&wrapperspb.StringValue{}) == nil {
			n++
			time.Sleep(time.Minute) // far over every time limit
		}
		return s.SendMsg(text(strconv.Itoa(n)))
	}, func(t *testing.T, w *world) {
		s, err := open(t.Context(), w.dial(), clientStream, upload)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := s.SendMsg(text("part")); err != nil {
				t.Fatal(err)
			}
		}
		_ = s.CloseSend()
		if got, err := recv(s); got != "3" || err != nil {
			t.Errorf("got %q and %v, want 3", got, err)
		}
		if w.left[0] >= 0 {
			t.Errorf("the server was given a deadline of %v, want none", w.left[0])
		}
	})
	inBothWorlds(t, echo, func(t *testing.T, w *world) { // never sent, so opened again
		w.down.Store(true)
		time.AfterFunc(time.Second, func() { w.down.Store(false) })
		s, err := open(t.Context(), w.dial(slow()), bidiStream, chat)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.CloseSend()
		if got, err := all(s); err != nil || len(got) != 1 {
			t.Errorf("got %v and %v, want a bye", got, err)
		}
		w.wantHits(1)
	})
}

// A quiet stream is not cut: time limits are for the time until it stands. Failing late, before anything came, it is still repeated.
func TestQuietStream(t *testing.T) {
	inBothWorlds(t, func(s grpc.ServerStream, hit int) error {
		time.Sleep(time.Hour)
		if hit == 1 {
			return errBusy
		}
		return s.SendMsg(text("at last"))
	}, func(t *testing.T, w *world) {
		s, err := open(t.Context(), w.dial(), serverStream, list)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := all(s); err != nil || !slices.Equal(got, []string{"at last"}) {
			t.Errorf("got %v and %v, want the message", got, err)
		}
		w.wantHits(2)
	})
	inBothWorlds(t, numbers(1), func(t *testing.T, w *world) { // 56: while one that does not come to stand is
		w.down.Store(true)
		start := time.Now()
		_, err := open(t.Context(), w.dial(fast(2), timeout.New(2*time.Second)), serverStream, watch, grpc.WaitForReady(true))
		wantCode(t, err, codes.DeadlineExceeded)
		if took, want := time.Since(start), 4*time.Second+10*time.Millisecond; took != want || !errors.Is(err, timeout.ErrExceeded) {
			t.Errorf("got %v after %v, want our timeout after %v", err, took, want)
		}
	})
	inBothWorlds(t, func(s grpc.ServerStream, _ int) error {
		<-s.Context().Done()    // by the deadline that the client has told it
		time.Sleep(time.Second) // so that the client has its own in any case
		return nil
	}, func(t *testing.T, w *world) {
		// Limits of the caller's own calls are left alone.
		p := backstay.Chain(timeout.New(time.Minute))
		start := time.Now()
		err := backstay.Run(t.Context(), p, func(ctx context.Context) error {
			s, err := open(ctx, w.dial(), serverStream, watch)
			if err != nil {
				return err
			}
			_, err = recv(s)
			return err
		})
		if took := time.Since(start); took != time.Minute || !errors.Is(err, timeout.ErrExceeded) {
			t.Errorf("got %v after %v, want the caller's timeout after a minute", err, took)
		}
		time.Sleep(2 * time.Second) // the handler's
	})
}

// 51: permits come back however a stream ends.
func TestStreamPermits(t *testing.T) {
	forever := func(s grpc.ServerStream, _ int) error {
		_ = s.SendMsg(text("1"))
		<-s.Context().Done()
		return nil
	}
	for _, tc := range []struct {
		name string
		desc *grpc.StreamDesc
		end  func(s grpc.ClientStream, cancel func(), conn *grpc.ClientConn)
	}{
		{"cancelled, nothing received", serverStream, func(_ grpc.ClientStream, cancel func(), _ *grpc.ClientConn) { cancel() }},
		{"cancelled, both ways", bidiStream, func(_ grpc.ClientStream, cancel func(), _ *grpc.ClientConn) { cancel() }},
		{"cancelled after a message", serverStream, func(s grpc.ClientStream, cancel func(), _ *grpc.ClientConn) { _, _ = recv(s); cancel() }},
		{"connection closed", serverStream, func(s grpc.ClientStream, _ func(), conn *grpc.ClientConn) { _, _ = recv(s); _ = conn.Close() }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBothWorlds(t, forever, func(t *testing.T, w *world) {
				b := bulkhead.New(bulkhead.Config{Limit: 1})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				conn := w.dial(fast(3), b)
				ends := 0
				s, err := open(ctx, conn, tc.desc, chat, grpc.OnFinish(func(error) { ends++ }))
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if b.Snapshot().InUse != 1 {
					t.Errorf("got %d permits in use by an open stream, want 1", b.Snapshot().InUse)
				}
				_, err = open(ctx, conn, tc.desc, chat)
				wantCode(t, err, codes.ResourceExhausted)
				if !errors.Is(err, bulkhead.ErrFull) {
					t.Errorf("got %v, want bulkhead.ErrFull", err)
				}
				tc.end(s, cancel, conn)
				synctest.Wait()
				if got := b.Snapshot().InUse; got != 0 || ends != 1 {
					t.Errorf("got %d permits in use and %d ends after the end, want 0 and 1", got, ends)
				}
			})
		})
	}
	inBothWorlds(t, numbers(2), func(t *testing.T, w *world) {
		b := bulkhead.New(bulkhead.Config{Limit: 1})
		conn := w.dial(fast(3), b)
		for range 3 { // read to its end
			s, err := open(t.Context(), conn, serverStream, list)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := all(s); err != nil || len(got) != 2 {
				t.Errorf("got %v and %v, want two messages", got, err)
			}
		}
		w.down.Store(true) // and where none comes to be
		_ = conn.Close()
		_, err := open(t.Context(), conn, serverStream, list)
		if err == nil || b.Snapshot().InUse != 0 {
			t.Errorf("got %v with %d permits in use, want an error and none", err, b.Snapshot().InUse)
		}
	})
}

// 58: a stream counts as good at its first message, or its good end; the caller's end counts nothing; one that breaks later is a failure.
func TestStreamBreaker(t *testing.T) {
	b := func() *breaker.Breaker { return breaker.New(breaker.Config{Consecutive: 1, Spread: -1}) }
	inBothWorlds(t, func(s grpc.ServerStream, hit int) error {
		m := &wrapperspb.StringValue{}
		if err := s.RecvMsg(m); err != nil || m.Value == "quiet" {
			<-s.Context().Done()
			return nil
		}
		_ = s.SendMsg(text("1"))
		if m.Value == "break" {
			return status.Error(codes.Internal, "broken")
		}
		<-s.Context().Done()
		return nil
	}, func(t *testing.T, w *world) {
		br := b()
		conn := w.dial(br)
		wantCounts := func(what string, success, failure int) {
			t.Helper()
			synctest.Wait()
			if got := br.Snapshot(); got.Calls-got.Failures != success || got.Failures != failure {
				t.Errorf("%s: got %+v, want %d good and %d failed", what, got, success, failure)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s, err := open(ctx, conn, bidiStream, chat)
		if err != nil {
			t.Fatal(err)
		}
		wantCounts("opened", 0, 0)
		_ = s.SendMsg(text("go"))
		_, _ = recv(s)
		wantCounts("first message", 1, 0)

		quiet, err := open(ctx, conn, bidiStream, chat)
		if err != nil {
			t.Fatal(err)
		}
		_ = quiet.SendMsg(text("quiet"))
		cancel()
		wantCounts("both cancelled by the caller", 1, 0)

		s, err = open(t.Context(), conn, bidiStream, chat)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.SendMsg(text("break"))
		_, _ = all(s)
		synctest.Wait()
		if br.State() != breaker.Open {
			t.Errorf("got state %v after a stream that broke, want open", br.State())
		}
		_, err = open(t.Context(), conn, bidiStream, chat)
		wantCode(t, err, codes.Unavailable)
		if !errors.Is(err, breaker.ErrOpen) {
			t.Errorf("got %v, want breaker.ErrOpen", err)
		}
		_, err = call(t.Context(), conn, get) // which unary calls share
		if !errors.Is(err, breaker.ErrOpen) {
			t.Errorf("got %v for a unary call, want breaker.ErrOpen", err)
		}
	})
}

// Streams do not fill the limit of unary calls.
func TestStreamsApart(t *testing.T) {
	inBothWorlds(t, func(s grpc.ServerStream, _ int) error {
		if m, _ := grpc.MethodFromServerStream(s); m == get {
			return answer()(s, 1)
		}
		<-s.Context().Done()
		return nil
	}, func(t *testing.T, w *world) {
		c := standard.Config{}
		c.Limit.Max, c.Limit.Min = 2, 1
		conn := w.dial(grpcclient.Standard(c))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range 20 {
			if _, err := open(ctx, conn, bidiStream, chat); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := call(ctx, conn, get); err != nil {
			t.Errorf("got %v for a call beside 20 streams, want none", err)
		}
	})
}
