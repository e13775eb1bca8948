package grpcclient_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/adaptive"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/budget"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/grpcclient"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

// 53: what statuses count as, and which are repeated where the method may be.
func TestCodes(t *testing.T) {
	for _, tc := range []struct {
		code  codes.Code
		table grpcclient.Method
		class backstay.Class
		again backstay.Again
		shed  bool
	}{
		{code: codes.OK, class: backstay.Success},
		{code: codes.NotFound, class: backstay.Success},
		{code: codes.InvalidArgument, class: backstay.Success},
		{code: codes.AlreadyExists, class: backstay.Success},
		{code: codes.FailedPrecondition, class: backstay.Success},
		{code: codes.PermissionDenied, class: backstay.Success},
		{code: codes.Unauthenticated, class: backstay.Success},
		{code: codes.OutOfRange, class: backstay.Success},
		{code: codes.Unimplemented, class: backstay.Success},
		{code: codes.Aborted, class: backstay.Success},
		{code: codes.Canceled, class: backstay.Neutral},
		{code: codes.Internal, class: backstay.Failure},
		{code: codes.Unknown, class: backstay.Failure},
		{code: codes.DataLoss, class: backstay.Failure},
		{code: codes.DeadlineExceeded, class: backstay.Failure},
		{code: codes.Unavailable, class: backstay.Failure, again: backstay.Yes, shed: true},
		{code: codes.ResourceExhausted, class: backstay.Neutral, shed: true},
		{code: codes.ResourceExhausted, table: grpcclient.Method{FailOn: []string{"RESOURCE_EXHAUSTED"}}, class: backstay.Failure, shed: true},
		{code: codes.Aborted, table: grpcclient.Method{RetryOn: []string{"ABORTED"}}, class: backstay.Success, again: backstay.Yes},
		{code: codes.Unavailable, table: grpcclient.Method{RetryOn: []string{}, FailOn: []string{}}, class: backstay.Success, shed: true},
	} {
		t.Run(fmt.Sprint(tc.code, tc.table), func(t *testing.T) {
			inWorld(t, codesOf(tc.code), func(t *testing.T, w *world) {
				p := &verdicts{}
				_, err := call(t.Context(), w.dial(p, grpcclient.Methods{get: tc.table}), get)
				wantCode(t, err, tc.code)
				out := p.outs[0]
				if again := out.Again == backstay.Yes; out.Class != tc.class || again != (tc.again == backstay.Yes) || out.Shed != tc.shed || !out.Answered || out.Sent != backstay.SentYes {
					t.Errorf("got %+v, want class %v, again %v, shed %v, answered and sent", out, tc.class, tc.again, tc.shed)
				}
			})
		})
	}
}

// 53: a caller that goes away says nothing about the server.
func TestCancelCountsNothing(t *testing.T) {
	inWorld(t, func(s grpc.ServerStream, _ int) error { <-s.Context().Done(); return nil }, func(t *testing.T, w *world) {
		b := breaker.New(breaker.Config{Consecutive: 1, Spread: -1})
		conn := w.dial(b)
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Minute, func() { cancel(errors.New("bored")) })
		_, err := call(ctx, conn, get)
		wantCode(t, err, codes.Canceled)
		if s := b.Snapshot(); s.Calls != 0 || s.State != breaker.Closed {
			t.Errorf("got %+v, want a closed breaker that has counted nothing", s)
		}
	})
}

// 52: each refusal is a status, matches its sentinel, and is not repeated.
func TestRefusals(t *testing.T) {
	open := breaker.New(breaker.Config{})
	open.SetMode(breaker.ForcedOpen)
	full := bulkhead.New(bulkhead.Config{Limit: 1})
	if err := full.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	limited := ratelimit.New(ratelimit.Config{Rate: 1e-9, Burst: 1})
	_ = backstay.Run(t.Context(), backstay.Chain(limited), func(context.Context) error { return nil })
	for _, tc := range []struct {
		name   string
		policy backstay.Policy
		code   codes.Code
		is     error
	}{
		{"breaker", open, codes.Unavailable, breaker.ErrOpen},
		{"bulkhead", full, codes.ResourceExhausted, bulkhead.ErrFull},
		{"rate limit", limited, codes.ResourceExhausted, ratelimit.ErrLimited},
	} {
		inWorld(t, answer(), func(t *testing.T, w *world) {
			counted := 0
			count := backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
				return func(ctx context.Context, c *backstay.Call) backstay.Outcome { counted++; return next(ctx, c) }
			})
			_, err := call(t.Context(), w.dial(fast(3), count, tc.policy), get)
			wantCode(t, err, tc.code)
			if !errors.Is(err, tc.is) || !errors.Is(err, backstay.ErrRejected) || counted != 1 {
				t.Errorf("%s: got %v after %d attempts, want %v after 1", tc.name, err, counted, tc.is)
			}
			w.wantHits(0)
		})
	}
}

// A breaker that opens between attempts leaves the server's last word.
func TestOpensBetween(t *testing.T) {
	inWorld(t, codesOf(codes.Unavailable, codes.Unavailable), func(t *testing.T, w *world) {
		b := breaker.New(breaker.Config{Consecutive: 1, Spread: -1})
		_, err := call(t.Context(), w.dial(fast(3), b), get)
		wantCode(t, err, codes.Unavailable)
		if !errors.Is(err, breaker.ErrOpen) || !errors.As(err, new(*retry.ExhaustedError)) {
			t.Errorf("got %v, want both the attempt's error and breaker.ErrOpen", err)
		}
		w.wantHits(1)
	})
}

// A budget that is empty leaves the server's last word too.
func TestEmptyBudget(t *testing.T) {
	inWorld(t, codesOf(codes.Unavailable, codes.Unavailable), func(t *testing.T, w *world) {
		r := retry.New(retry.Config{Budget: budget.New(budget.Config{Start: -1, Floor: -1})})
		_, err := call(t.Context(), w.dial(r), get)
		wantCode(t, err, codes.Unavailable)
		if !errors.Is(err, retry.ErrBudget) {
			t.Errorf("got %v, want retry.ErrBudget in it", err)
		}
		w.wantHits(1)
	})
}

// TestStatus reads errors that no connection has touched, as those of the HTTP client.
func TestStatus(t *testing.T) {
	rejected := func(err error) error {
		return &backstay.Rejected{Policy: "p", Reason: "r", Err: err}
	}
	busy := status.Error(codes.Unavailable, "busy")
	for _, tc := range []struct {
		err  error
		want codes.Code
	}{
		{nil, codes.OK},
		{busy, codes.Unavailable},
		{fmt.Errorf("calling: %w", busy), codes.Unavailable},
		{rejected(adaptive.ErrThrottled), codes.Unavailable},
		{rejected(adaptive.ErrLimited), codes.ResourceExhausted},
		{rejected(timeout.ErrNoTime), codes.DeadlineExceeded},
		{rejected(errors.New("mine")), codes.ResourceExhausted},
		{retry.ErrBudget, codes.ResourceExhausted},
		{&timeout.Error{Limit: time.Second, Err: busy}, codes.DeadlineExceeded},
		{&retry.ExhaustedError{Err: busy}, codes.Unavailable},
		{&retry.ExhaustedError{Err: busy, Cause: context.Canceled}, codes.Canceled},
		{&retry.ExhaustedError{Err: busy, Cause: context.DeadlineExceeded}, codes.DeadlineExceeded},
		{&retry.ExhaustedError{Err: busy, Cause: retry.ErrDeadline}, codes.Unavailable},
		{&retry.ExhaustedError{Err: busy, Cause: rejected(timeout.ErrNoTime)}, codes.Unavailable},
		{&retry.ExhaustedError{Cause: rejected(breaker.ErrOpen)}, codes.Unavailable},
		{fmt.Errorf("%w: %w", rejected(bulkhead.ErrFull), context.Canceled), codes.Canceled},
		{errors.Join(busy, status.Error(codes.Internal, "x")), codes.Unavailable},
		{context.Canceled, codes.Canceled},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{backstay.ErrType, codes.Internal},
		{errors.New("odd"), codes.Unknown},
	} {
		if got := grpcclient.Status(tc.err); got.Code() != tc.want {
			t.Errorf("%v: got %v, want %v", tc.err, got.Code(), tc.want)
		}
	}
}

// A handler that relays a dependency's failure does not have its own callers repeat what was repeated.
func TestRelay(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  error
		want codes.Code
		push bool
	}{
		{"refused", &backstay.Rejected{Policy: "breaker", Reason: "open", Err: breaker.ErrOpen}, codes.Internal, true},
		{"full", &backstay.Rejected{Policy: "bulkhead", Reason: "full", Err: bulkhead.ErrFull}, codes.Internal, true},
		{"exhausted", &retry.ExhaustedError{Err: status.Error(codes.Unavailable, "busy")}, codes.Internal, true},
		{"timed out", &timeout.Error{Limit: time.Second}, codes.Internal, true},
		{"not found", status.Error(codes.NotFound, "no such item"), codes.NotFound, false},
	} {
		inWorld(t, func(s grpc.ServerStream, _ int) error { return grpcclient.Relay(s.Context(), tc.err) }, func(t *testing.T, w *world) {
			var trailer metadata.MD
			_, err := call(t.Context(), w.dial(fast(3)), get, grpc.Trailer(&trailer))
			wantCode(t, err, tc.want)
			if got := len(trailer.Get("grpc-retry-pushback-ms")) > 0; got != tc.push {
				t.Errorf("%s: got a pushback %v, want %v", tc.name, got, tc.push)
			}
			w.wantHits(1)
		})
	}
	if grpcclient.Relay(t.Context(), nil) != nil {
		t.Error("got an error for none")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	wantCode(t, grpcclient.Relay(gone, errors.New("any")), codes.Canceled)
}
