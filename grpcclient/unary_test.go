package grpcclient_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/grpcclient"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

// 44: Unavailable, then well, on a method whose .proto says that it may be repeated.
func TestUnaryRepeats(t *testing.T) {
	for _, method := range []string{get, put} {
		inWorld(t, codesOf(codes.Unavailable), func(t *testing.T, w *world) {
			got, err := call(t.Context(), w.dial(), method)
			if err != nil || got != "hit 2" {
				t.Errorf("%s: got %q and %v, want hit 2", method, got, err)
			}
			w.wantHits(2)
			if got, want := w.head("grpc-previous-rpc-attempts"), [][]string{nil, {"1"}}; !slices.EqualFunc(got, want, slices.Equal) {
				t.Errorf("grpc-previous-rpc-attempts: got %q, want %q", got, want)
			}
		})
	}
}

// 45: what the server answered is not repeated where nobody says that it may be.
func TestUnaryUnsafe(t *testing.T) {
	inWorld(t, codesOf(codes.Unavailable), func(t *testing.T, w *world) {
		_, err := call(t.Context(), w.dial(), charge)
		wantCode(t, err, codes.Unavailable)
		if !strings.HasSuffix(err.Error(), "desc = no luck") {
			t.Errorf("got %q, want the server's own words", err)
		}
		w.wantHits(1)
	})
}

// 45: what was never sent is repeated, whatever the method.
func TestUnaryNeverSent(t *testing.T) {
	for _, tc := range []struct {
		name string
		opts func() []grpc.DialOption
		want codes.Code
		hits int
	}{
		{"dial options", func() []grpc.DialOption { return grpcclient.DialOptions(slow()) }, codes.OK, 1},
		{"interceptor and stats handler", func() []grpc.DialOption {
			return []grpc.DialOption{grpc.WithUnaryInterceptor(grpcclient.Unary(slow())), grpc.WithStatsHandler(grpcclient.StatsHandler())}
		}, codes.OK, 1},
		{"interceptor alone, which knows nothing", func() []grpc.DialOption {
			return []grpc.DialOption{grpc.WithUnaryInterceptor(grpcclient.Unary(slow()))}
		}, codes.Unavailable, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, answer(), func(t *testing.T, w *world) {
				w.down.Store(true)
				time.AfterFunc(time.Second, func() { w.down.Store(false) })
				_, err := call(t.Context(), w.dialWith(tc.opts()...), charge)
				wantCode(t, err, tc.want)
				w.wantHits(tc.hits)
			})
		})
	}
}

// slow is a retry that waits for longer than gRPC does before it dials again.
func slow() *retry.Retry {
	return retry.New(retry.Config{Delay: 4 * time.Second, Jitter: retry.None, MaxDelay: 4 * time.Second, Schedule: retry.Constant})
}

// 46: the pushback of gRFC A6 in all its forms.
func TestPushback(t *testing.T) {
	for _, tc := range []struct {
		name   string
		values []string
		hits   int
		want   time.Duration // of the first wait, the second being that of the schedule
	}{
		{"none", nil, 3, time.Second},
		{"a time", []string{"50"}, 3, 50 * time.Millisecond},
		{"at once", []string{"0"}, 3, 0},
		{"no more", []string{"-1"}, 1, 0},
		{"nonsense", []string{"abc"}, 1, 0},
		{"two", []string{"10", "20"}, 1, 0},
		{"longer than the cap", []string{"60000"}, 1, 0},
		{"longer than there is", []string{"99999999999999999999"}, 1, 0},
		{"longer than a Duration", []string{"9999999999999999"}, 1, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var at []time.Time
			inWorld(t, func(s grpc.ServerStream, hit int) error {
				at = append(at, time.Now())
				if hit == 1 {
					s.SetTrailer(metadata.MD{"grpc-retry-pushback-ms": tc.values})
				}
				return status.Error(codes.Unavailable, "busy")
			}, func(t *testing.T, w *world) {
				conn := w.dial(retry.New(retry.Config{Delay: time.Second, Jitter: retry.None, HintJitter: 1}))
				_, err := call(t.Context(), conn, get)
				wantCode(t, err, codes.Unavailable)
				w.wantHits(tc.hits)
			})
			if tc.hits != 3 || len(at) != 3 {
				return
			}
			if got := at[1].Sub(at[0]); got != tc.want {
				t.Errorf("got a wait of %v, want %v", got, tc.want)
			}
			want := time.Second
			if tc.values == nil {
				want = 2 * time.Second // no order, so the schedule goes on
			}
			if got := at[2].Sub(at[1]); got != want {
				t.Errorf("got a second wait of %v, want %v", got, want)
			}
		})
	}
}

// 46: a pushback that passes the caller's deadline ends the call at once.
func TestPushbackPastDeadline(t *testing.T) {
	inWorld(t, func(s grpc.ServerStream, _ int) error {
		s.SetTrailer(metadata.Pairs("grpc-retry-pushback-ms", "5000"))
		return status.Error(codes.Unavailable, "busy")
	}, func(t *testing.T, w *world) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := call(ctx, w.dial(), get)
		wantCode(t, err, codes.Unavailable)
		if took := time.Since(start); took != 0 || !errors.Is(err, retry.ErrDeadline) {
			t.Errorf("got %v after %v, want ErrDeadline at once", err, took)
		}
	})
}

// 47: RetryInfo is a least wait, and the details stay on the error.
func TestRetryInfo(t *testing.T) {
	st, err := status.New(codes.ResourceExhausted, "quota").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(80 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	inWorld(t, func(grpc.ServerStream, int) error { return st.Err() }, func(t *testing.T, w *world) {
		start := time.Now()
		_, err := call(t.Context(), w.dial(), get)
		if took := time.Since(start); took < 160*time.Millisecond || took > 200*time.Millisecond {
			t.Errorf("got %v for two waits, want 160ms and a little more", took)
		}
		w.wantHits(3)
		wantCode(t, err, codes.ResourceExhausted)
		var e *retry.ExhaustedError
		if !errors.As(err, &e) || e.Attempts != 3 {
			t.Errorf("got %v, want an ExhaustedError of 3 attempts", err)
		}
		if d := status.Convert(err).Details(); len(d) != 1 {
			t.Errorf("got the details %v, want the RetryInfo", d)
		}
		if got := err.Error(); !strings.Contains(got, "code = ResourceExhausted desc = retry: 3 attempts in ") || !strings.HasSuffix(got, ": quota") {
			t.Errorf("got %q, want the attempts and the server's words", got)
		}
	})
}

// 54: the attempt timeout goes to the server as its deadline; the caller's own expiry is the end.
func TestAttemptTimeout(t *testing.T) {
	hang := func(s grpc.ServerStream, _ int) error { <-s.Context().Done(); return s.Context().Err() }
	inWorld(t, hang, func(t *testing.T, w *world) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := call(ctx, w.dial(fast(3), timeout.NewWith(timeout.Config{Name: "attempt", Limit: 50 * time.Millisecond})), get)
		wantCode(t, err, codes.DeadlineExceeded)
		if !errors.Is(err, timeout.ErrExceeded) {
			t.Errorf("got %v, want timeout.ErrExceeded in it", err)
		}
		w.wantHits(3)
		for i, left := range w.left {
			if left <= 40*time.Millisecond || left > 50*time.Millisecond {
				t.Errorf("attempt %d: the server had %v, want 50ms", i+1, left)
			}
		}
	})
	inWorld(t, hang, func(t *testing.T, w *world) {
		ctx, cancel := context.WithTimeout(t.Context(), 70*time.Millisecond)
		defer cancel()
		_, err := call(ctx, w.dial(fast(3), timeout.New(50*time.Millisecond)), get)
		wantCode(t, err, codes.DeadlineExceeded)
		w.wantHits(2)
	})
	inWorld(t, hang, func(t *testing.T, w *world) { // 52: not where the method may not be repeated
		_, err := call(t.Context(), w.dial(fast(3), timeout.New(50*time.Millisecond)), charge)
		wantCode(t, err, codes.DeadlineExceeded)
		w.wantHits(1)
	})
	inWorld(t, hang, func(t *testing.T, w *world) { // 52: and never the total one
		_, err := call(t.Context(), w.dial(timeout.New(50*time.Millisecond), fast(3)), get)
		wantCode(t, err, codes.DeadlineExceeded)
		w.wantHits(1)
	})
}

// 56: waiting for a connection is bounded too.
func TestWaitForReady(t *testing.T) {
	inWorld(t, answer(), func(t *testing.T, w *world) {
		w.down.Store(true)
		start := time.Now()
		conn := w.dial(timeout.New(time.Minute), fast(3), timeout.New(2*time.Second))
		_, err := call(t.Context(), conn, charge, grpc.WaitForReady(true))
		wantCode(t, err, codes.DeadlineExceeded)
		if took, want := time.Since(start), 6*time.Second+20*time.Millisecond; took != want {
			t.Errorf("got %v, want three attempts of 2s and two waits of 10ms: nothing was sent, so any method is repeated", took)
		}
		w.wantHits(0)
	})
}

// The caller's end is the call's, also in a wait, with its own status.
func TestCallerGone(t *testing.T) {
	inWorld(t, codesOf(codes.Unavailable, codes.Unavailable), func(t *testing.T, w *world) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := call(ctx, w.dial(slow()), get)
		wantCode(t, err, codes.Canceled)
		if !errors.Is(err, context.Canceled) || !errors.As(err, new(*retry.ExhaustedError)) {
			t.Errorf("got %v, want both the cancellation and what was before it", err)
		}
		w.wantHits(1)
		_, err = call(ctx, w.dial(), get)
		wantCode(t, err, codes.Canceled)
		w.wantHits(1)
	})
}

// OnFinish is called once for the call, also when it was refused; header, trailer and reply are those of the last attempt.
func TestTargets(t *testing.T) {
	inWorld(t, func(s grpc.ServerStream, hit int) error {
		n := string(rune('0' + hit))
		_ = s.SetHeader(metadata.Pairs("hit", n))
		s.SetTrailer(metadata.Pairs("end", n))
		if hit == 1 {
			return status.Error(codes.Unavailable, "busy")
		}
		return s.SendMsg(text("hit " + n))
	}, func(t *testing.T, w *world) {
		var header, trailer metadata.MD
		var ends []error
		got, err := call(t.Context(), w.dial(), get, grpc.Header(&header), grpc.OnFinish(func(err error) { ends = append(ends, err) }), grpc.Trailer(&trailer))
		if err != nil || got != "hit 2" || len(ends) != 1 || ends[0] != nil {
			t.Errorf("got %q, %v and the ends %v, want hit 2 and one good end", got, err, ends)
		}
		if header.Get("hit")[0] != "2" || trailer.Get("end")[0] != "2" {
			t.Errorf("got header %v and trailer %v, want those of the second attempt", header, trailer)
		}
	})
}

// Idempotency keys go with each attempt, and make a call repeatable only where they are trusted.
func TestIdempotencyKeys(t *testing.T) {
	key := func(ctx context.Context) context.Context { return backstay.WithIdempotencyKey(ctx, "k1") }
	bare := func(ctx context.Context) context.Context { return ctx }
	own := func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(ctx, "idempotency-key", "mine")
	}
	for _, tc := range []struct {
		name   string
		part   backstay.Policy
		ctx    func(context.Context) context.Context
		method string
		hits   int
		want   string
	}{
		{"not trusted", nil, key, charge, 1, "k1"},
		{"trusted", grpcclient.TrustKeys(), key, charge, 2, "k1"},
		{"trusted, none there", grpcclient.TrustKeys(), bare, charge, 1, ""},
		{"the caller's own metadata", grpcclient.TrustKeys(), own, charge, 2, "mine"},
		{"made", grpcclient.IdempotencyKeys(), bare, charge, 2, "*"},
		{"not for a method that needs none", grpcclient.IdempotencyKeys(), key, get, 2, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, codesOf(codes.Unavailable), func(t *testing.T, w *world) {
				_, _ = call(tc.ctx(t.Context()), w.dial(fast(3), tc.part), tc.method)
				w.wantHits(tc.hits)
				for i, got := range w.head("idempotency-key") {
					joined := strings.Join(got, ",")
					if tc.want == "*" {
						tc.want = joined
					}
					if joined != tc.want || tc.want == "" && len(got) > 0 {
						t.Errorf("attempt %d: got the keys %q, want %q", i+1, got, tc.want)
					}
				}
			})
		})
	}
}

// What is wrong on this side of the wire is no fault of the server's, and not repeated.
func TestLocalFaults(t *testing.T) {
	inWorld(t, answer(), func(t *testing.T, w *world) {
		p := &verdicts{}
		conn := w.dial(fast(3), p)
		err := conn.Invoke(t.Context(), get, wrapperspb.String("bad \xff UTF-8"), &wrapperspb.StringValue{})
		wantCode(t, err, codes.Internal)
		err = conn.Invoke(t.Context(), get, text("x"), &wrapperspb.StringValue{}, grpc.UseCompressor("none such"))
		wantCode(t, err, codes.Internal)
		if want := []backstay.Class{backstay.Neutral, backstay.Neutral}; !slices.Equal(p.classes, want) {
			t.Errorf("got %v, want %v", p.classes, want)
		}
	})
}

// verdicts is a policy that writes down what attempts count as.
type verdicts struct {
	classes []backstay.Class
	outs    []backstay.Outcome
}

func (v *verdicts) Wrap(next backstay.Handler) backstay.Handler {
	return func(ctx context.Context, c *backstay.Call) backstay.Outcome {
		out := next(ctx, c)
		v.classes = append(v.classes, out.Judge(ctx, 0, 0))
		v.outs = append(v.outs, out)
		return out
	}
}

// A policy may come up with an answer of its own, of the right type.
func TestFallbackValue(t *testing.T) {
	value := func(v any) backstay.Policy {
		return backstay.PolicyFunc(func(backstay.Handler) backstay.Handler {
			return func(context.Context, *backstay.Call) backstay.Outcome {
				return backstay.Outcome{Value: v, Class: backstay.Success}
			}
		})
	}
	inWorld(t, answer(), func(t *testing.T, w *world) {
		got, err := call(t.Context(), w.dial(value(text("cached"))), get)
		if err != nil || got != "cached" {
			t.Errorf("got %q and %v, want the policy's answer", got, err)
		}
		for _, wrong := range []any{nil, 7, wrapperspb.Int64(7)} {
			_, err = call(t.Context(), w.dial(value(wrong)), get)
			wantCode(t, err, codes.Internal)
			if !errors.Is(err, backstay.ErrType) {
				t.Errorf("%T: got %v, want ErrType", wrong, err)
			}
		}
		w.wantHits(0)
	})
}

// A server that gives up a hair before our time limit has kept to it: what it says is the limit's end, not its own.
func TestServerAheadOfTimeout(t *testing.T) {
	inWorld(t, func(s grpc.ServerStream, _ int) error {
		at, _ := s.Context().Deadline()
		time.Sleep(time.Until(at) - time.Millisecond)
		return status.Error(codes.DeadlineExceeded, "out of time")
	}, func(t *testing.T, w *world) {
		_, err := call(t.Context(), w.dial(fast(3), timeout.New(50*time.Millisecond)), get)
		wantCode(t, err, codes.DeadlineExceeded)
		if !errors.Is(err, timeout.ErrExceeded) {
			t.Errorf("got %v, want timeout.ErrExceeded in it", err)
		}
		w.wantHits(3)
	})
}

// TestDerived holds that the contexts that gRPC derives from an attempt's cost no goroutine, and end as the attempt's does.
func TestDerived(t *testing.T) {
	c := grpcclient.New(timeout.New(time.Minute), grpcclient.TrustKeys())
	ctx, cancel := context.WithCancel(backstay.WithIdempotencyKey(t.Context(), "k"))
	const n = 100
	err := c.Unary(ctx, charge, nil, nil, nil, func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
		if md, _ := metadata.FromOutgoingContext(ctx); len(md.Get("idempotency-key")) != 1 {
			t.Errorf("got metadata %v, want the key", md)
		}
		before := runtime.NumGoroutine()
		children := make([]context.Context, n)
		for i := range children {
			var stop context.CancelFunc
			children[i], stop = context.WithCancel(ctx)
			defer stop()
		}
		if more := runtime.NumGoroutine() - before; more > n/2 {
			t.Errorf("got %d goroutines for %d contexts, want none", more, n)
		}
		cancel()
		for _, child := range children {
			<-child.Done()
		}
		return ctx.Err()
	})
	wantCode(t, err, codes.Canceled)
}
