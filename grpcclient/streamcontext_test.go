package grpcclient_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/grpcclient"
	"github.com/backstay-go/backstay/timeout"
)

// A context that a policy of somebody else's makes ends a stream that is being opened, and is heard of no more when it stands.
func TestStreamOthersContext(t *testing.T) {
	within := func(d time.Duration) backstay.Policy {
		return backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
			return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
				ctx, cancel := context.WithTimeout(ctx, d)
				defer cancel()
				return next(ctx, call)
			}
		})
	}
	inBothWorlds(t, numbers(1), func(t *testing.T, w *world) {
		w.down.Store(true)
		start := time.Now()
		_, err := open(t.Context(), w.dial(within(time.Second)), serverStream, watch, grpc.WaitForReady(true))
		wantCode(t, err, codes.DeadlineExceeded)
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %v, want the policy's second", took)
		}
	})
	inBothWorlds(t, func(s grpc.ServerStream, _ int) error {
		time.Sleep(time.Hour)
		return s.SendMsg(text("late"))
	}, func(t *testing.T, w *world) {
		s, err := open(t.Context(), w.dial(within(time.Second)), serverStream, watch)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := all(s); err != nil || len(got) != 1 {
			t.Errorf("got %v and %v, want the late message", got, err)
		}
	})
}

// A time limit on which somebody waits ends with the stream, whose end is the end of all that belongs to the attempt.
func TestStreamLimitWaitedFor(t *testing.T) {
	inBothWorlds(t, numbers(2), func(t *testing.T, w *world) {
		ended := make(chan error, 1)
		waits := backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
			return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
				context.AfterFunc(ctx, func() { ended <- ctx.Err() })
				return next(ctx, call)
			}
		})
		s, err := open(t.Context(), w.dial(timeout.New(time.Minute), waits), serverStream, list)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := recv(s); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(ended) != 0 {
			t.Fatalf("the limit's context ended with %v while the stream stands", <-ended)
		}
		if _, err := all(s); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(ended) != 1 {
			t.Fatal("the limit's context goes on after the end of its stream")
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want it cancelled", err)
		}
	})
}

// What interceptors inside see: the context of an attempt of a stream keeps to the contract of a context.
func TestStreamContext(t *testing.T) {
	type key struct{}
	why := errors.New("enough")
	inBothWorlds(t, func(s grpc.ServerStream, _ int) error {
		_ = s.SendMsg(text("1"))
		<-s.Context().Done()
		return nil
	}, func(t *testing.T, w *world) {
		var inner context.Context
		spy := grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			inner = ctx
			return streamer(ctx, desc, cc, method, opts...)
		})
		conn := w.dialWith(append(grpcclient.DialOptions(timeout.New(time.Minute)), spy)...)
		ctx, cancel := context.WithCancelCause(context.WithValue(t.Context(), key{}, "mine"))
		defer cancel(nil)
		s, err := open(ctx, conn, serverStream, watch)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := recv(s); err != nil {
			t.Fatal(err)
		}
		if got := inner.Value(key{}); got != "mine" || backstay.CallFrom(inner) == nil {
			t.Errorf("got value %v and call %v, want the caller's and ours", got, backstay.CallFrom(inner))
		}
		if at, ok := inner.Deadline(); ok {
			t.Errorf("got deadline %v, want the caller's, who has none", at)
		}
		if err := inner.Err(); err != nil {
			t.Errorf("got %v while the stream stands", err)
		}
		var ran []string
		child, stopChild := context.WithCancel(inner)
		defer stopChild()
		stopped := context.AfterFunc(inner, func() { ran = append(ran, "stopped") })
		context.AfterFunc(inner, func() { ran = append(ran, "kept") })
		if !stopped() || stopped() {
			t.Error("stop of AfterFunc: want true, then false")
		}

		cancel(why)
		<-inner.Done()
		synctest.Wait()
		if !errors.Is(inner.Err(), context.Canceled) || context.Cause(inner) != why {
			t.Errorf("got %v because of %v, want cancelled because of %v", inner.Err(), context.Cause(inner), why)
		}
		if child.Err() == nil || context.Cause(child) != why {
			t.Errorf("derived: got %v because of %v, want cancelled because of %v", child.Err(), context.Cause(child), why)
		}
		if len(ran) != 1 || ran[0] != "kept" {
			t.Errorf("got %v run, want the one that was not stopped", ran)
		}
		late, stopLate := context.WithCancel(inner) // derived after the end
		defer stopLate()
		synctest.Wait()
		if late.Err() == nil {
			t.Error("a context derived after the end has not ended")
		}
		_, err = recv(s)
		wantCode(t, err, codes.Canceled)
	})
}
