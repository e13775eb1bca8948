package grpcclient_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/grpcclient"
	"github.com/backstay-go/backstay/httpclient"
	"github.com/backstay-go/backstay/retry"
)

// neverSent is what an error says of its call.
func neverSent(err error) bool {
	var n interface{ NeverSent() bool }
	return errors.As(err, &n) && n.NeverSent()
}

// An error says that nothing was sent only if it was so of all attempts.
func TestNeverSent(t *testing.T) {
	inWorld(t, codesOf(codes.Unavailable), func(t *testing.T, w *world) {
		_, err := call(t.Context(), w.dial(fast(3)), charge)
		wantCode(t, err, codes.Unavailable)
		if neverSent(err) {
			t.Errorf("the server's word: got %v as never sent", err)
		}
		w.down.Store(true)
		_, err = call(t.Context(), w.dial(fast(3)), charge)
		wantCode(t, err, codes.Unavailable)
		if e := new(*retry.ExhaustedError); !neverSent(err) || !errors.As(err, e) || (*e).Attempts != 3 {
			t.Errorf("refused three times: got %v, want it never sent in three attempts", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c := grpcclient.New(fast(2))
		c.DialOptions()
		attempts := 0
		err := c.Unary(t.Context(), get, text(""), text(""), nil, func(_ context.Context, _ string, _, _ any, _ *grpc.ClientConn, opts ...grpc.CallOption) error {
			if attempts++; attempts == 1 {
				*opts[len(opts)-1].(grpc.TrailerCallOption).TrailerAddr = nil // as gRPC does for a call that had a connection
			}
			return status.Error(codes.Unavailable, "gone")
		})
		wantCode(t, err, codes.Unavailable)
		if neverSent(err) || attempts != 2 {
			t.Errorf("sent once, then refused: got %v after %d attempts as never sent", err, attempts)
		}
	})
	inWorld(t, numbers(1), func(t *testing.T, w *world) {
		w.down.Store(true)
		_, err := open(t.Context(), w.dial(fast(2)), serverStream, watch)
		wantCode(t, err, codes.Unavailable)
		if !neverSent(err) {
			t.Errorf("stream: got %v, want it never sent", err)
		}
		if e := new(*retry.ExhaustedError); !errors.As(err, e) || (*e).Attempts != 2 {
			t.Errorf("stream: got %v, want two attempts behind it", err)
		}
	})
	inWorld(t, answer(), func(t *testing.T, w *world) { // a refusal
		b := breaker.New(breaker.Config{})
		b.Trip()
		_, err := call(t.Context(), w.dial(b), charge)
		if !neverSent(err) || !errors.Is(err, breaker.ErrOpen) {
			t.Errorf("refused: got %v, want it never sent", err)
		}
	})
}

// The error of a client inside another one may tell of an attempt that was sent beside one that was refused, as a hedge's does.
func TestNeverSentNested(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, sent := range []bool{true, false} {
			refused := &backstay.Rejected{Policy: "limit", Reason: "full"}
			inner := grpcclient.New(backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
				return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
					out := backstay.Outcome{Err: refused, Class: backstay.Neutral, Again: backstay.No, Sent: backstay.SentNever}
					if sent {
						out = next(ctx, call)
						out.Err = errors.Join(out.Err, refused)
					}
					return out
				}
			}))
			inner.DialOptions()
			outer := grpcclient.New(fast(2))
			err := outer.Unary(t.Context(), get, text(""), text(""), nil, func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, opts ...grpc.CallOption) error {
				return inner.Unary(ctx, method, req, reply, cc, func(_ context.Context, _ string, _, _ any, _ *grpc.ClientConn, opts ...grpc.CallOption) error {
					*opts[len(opts)-1].(grpc.TrailerCallOption).TrailerAddr = nil // as gRPC does for a call that had a connection
					return status.Error(codes.Unavailable, "gone")
				}, opts...)
			})
			if !errors.Is(err, backstay.ErrRejected) || neverSent(err) == sent {
				t.Errorf("sent %v, and refused inside: got %v, never sent: %v", sent, err, neverSent(err))
			}
		}
	})
}

// One breaker serves HTTP and gRPC to the same host: what one sees fail, the other does not call.
func TestSharedBreaker(t *testing.T) {
	inWorld(t, codesOf(codes.Unavailable, codes.Unavailable, codes.Unavailable), func(t *testing.T, w *world) {
		b := breaker.New(breaker.Config{Name: "shop", Consecutive: 2, Spread: -1})
		var served int
		web := &http.Client{Transport: httpclient.New(roundTrip(func(r *http.Request) (*http.Response, error) {
			served++
			rec := httptest.NewRecorder()
			rec.WriteHeader(http.StatusServiceUnavailable)
			return rec.Result(), nil
		}), b)}
		get := func() error {
			resp, err := web.Get("http://shop/")
			if err != nil {
				return err
			}
			return resp.Body.Close()
		}
		conn := w.dial(b)
		if err := get(); err != nil { // one failure by HTTP
			t.Fatal(err)
		}
		_, err := call(t.Context(), conn, charge) // and one by gRPC
		wantCode(t, err, codes.Unavailable)
		if b.State() != breaker.Open {
			t.Fatalf("got %v after a failure each, want it open", b.State())
		}
		if err := get(); !errors.Is(err, breaker.ErrOpen) {
			t.Errorf("HTTP: got %v, want ErrOpen", err)
		}
		if _, err := call(t.Context(), conn, charge); !errors.Is(err, breaker.ErrOpen) || status.Code(err) != codes.Unavailable {
			t.Errorf("gRPC: got %v, want ErrOpen as UNAVAILABLE", err)
		}
		w.wantHits(1)
		if served != 1 {
			t.Errorf("calls that reached the web server: got %d, want 1", served)
		}
	})
}

// One table of breakers does too, when both clients key by origin.
func TestSharedTable(t *testing.T) {
	inWorld(t, answer(), func(t *testing.T, w *world) {
		table := httpclient.PerHost(breaker.Config{Consecutive: 1, Spread: -1})
		web := &http.Client{Transport: httpclient.New(roundTrip(func(*http.Request) (*http.Response, error) {
			return nil, errors.New("connection reset")
		}), table)}
		origin := func(string, string) string { return "http://shop:80" }
		conn := w.dial(table, grpcclient.KeyBy(origin))
		if _, err := web.Get("http://SHOP/"); err == nil {
			t.Fatal("got no error from a broken connection")
		}
		synctest.Wait()
		_, err := call(t.Context(), conn, charge)
		if !errors.Is(err, breaker.ErrOpen) {
			t.Errorf("got %v, want the breaker that HTTP has opened", err)
		}
		w.wantHits(0)
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Attempts of which something may have been sent are counted in the context, and those of methods without side effects are not.
func TestEffects(t *testing.T) {
	counted := func(t *testing.T, what string, want bool, call func(ctx context.Context) error) {
		t.Helper()
		e := &backstay.Effects{}
		if err := call(backstay.WithEffects(t.Context(), e)); err == nil {
			t.Errorf("%s: got no error", what)
		}
		if e.Possible() != want {
			t.Errorf("%s: got effects possible %v, want %v", what, e.Possible(), want)
		}
	}
	inWorld(t, codesOf(codes.Internal, codes.Internal, codes.Internal), func(t *testing.T, w *world) {
		try := func(method string) func(context.Context) error {
			return func(ctx context.Context) error { _, err := call(ctx, w.dial(fast(2)), method); return err }
		}
		counted(t, "the server's word", true, try(charge))
		counted(t, "idempotent", true, try(put))
		counted(t, "no side effects", false, try(get))
		w.down.Store(true)
		counted(t, "refused", false, try(charge))
	})
	inWorld(t, numbers(1), func(t *testing.T, w *world) {
		w.down.Store(true)
		counted(t, "stream refused", false, func(ctx context.Context) error { _, err := open(ctx, w.dial(fast(2)), serverStream, watch); return err })
	})
}
