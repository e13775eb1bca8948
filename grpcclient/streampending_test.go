package grpcclient_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
)

// meddler is a policy that handles what is Pending, and does something before it returns it.
type meddler struct{ with func() }

func (m meddler) Wrap(next backstay.Handler) backstay.Handler {
	return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
		out := next(ctx, call)
		if _, ok := out.Held.(backstay.Pending); ok {
			m.with()
		}
		return out
	}
}

func (m meddler) Describe() backstay.Description {
	return backstay.Description{Kind: "meddler", Pends: true}
}

// running reports whether a goroutine is in a stream's pipeline.
func running() bool {
	buf := make([]byte, 1<<20)
	return strings.Contains(string(buf[:runtime.Stack(buf, true)]), "grpcclient.(*stream).run(")
}

// A good stream needs no goroutine beside gRPC's.
func TestStreamGoroutine(t *testing.T) {
	inBothWorlds(t, func(s grpc.ServerStream, _ int) error {
		time.Sleep(time.Second)
		return numbers(2)(s, 1)
	}, func(t *testing.T, w *world) {
		s, err := open(t.Context(), w.dial(), serverStream, list)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got, want := running(), w.extra != nil; got != want {
			t.Errorf("a goroutine in the pipeline: got %v, want %v", got, want)
		}
		if got, err := all(s); err != nil || len(got) != 2 {
			t.Errorf("got %v and %v, want two messages", got, err)
		}
	})
}

// The end may come before the pipeline has been left.
func TestStreamEarlyEnd(t *testing.T) {
	inWorld(t, func(s grpc.ServerStream, _ int) error { <-s.Context().Done(); return nil }, func(t *testing.T, w *world) {
		b := bulkhead.New(bulkhead.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		late := meddler{func() { cancel(); time.Sleep(time.Second) }}
		ends := 0
		s, err := open(ctx, w.dial(late, fast(2), b), serverStream, list, grpc.OnFinish(func(error) { ends++ }))
		if err != nil {
			t.Fatal(err)
		}
		_, err = recv(s)
		wantCode(t, err, codes.Canceled)
		synctest.Wait()
		if got := b.Snapshot().InUse; got != 0 || ends != 1 {
			t.Errorf("got %d permits in use and %d ends, want 0 and 1", got, ends)
		}
	})
}

// An opening that failed says nothing about the stream that stands after it.
func TestStreamOpenedAgain(t *testing.T) {
	inWorld(t, numbers(1), func(t *testing.T, w *world) {
		b := breaker.New(breaker.Config{})
		w.down.Store(true)
		time.AfterFunc(time.Second, func() { w.down.Store(false) })
		s, err := open(t.Context(), w.dial(slow(), b), serverStream, list)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		got := b.Snapshot()
		if failed := got.Failures; failed == 0 || got.Calls != failed || running() {
			t.Errorf("before the first message: got %d calls of which %d failed, running %v; want the failed openings and no goroutine", got.Calls, failed, running())
		}
		if got, err := all(s); err != nil || len(got) != 1 {
			t.Errorf("got %v and %v, want a message", got, err)
		}
		if after := b.Snapshot(); after.Calls != got.Calls+1 {
			t.Errorf("got %d calls after %d, want one more", after.Calls, got.Calls)
		}
	})
}

// The panic of a policy is the caller's, and holds nothing, wherever it comes from.
func TestStreamPolicyPanics(t *testing.T) {
	caught := func(f func()) (v any) {
		defer func() { v = recover() }()
		f()
		return nil
	}
	served := false
	inWorld(t, func(s grpc.ServerStream, _ int) error {
		<-s.Context().Done()
		served = true
		return nil
	}, func(t *testing.T, w *world) {
		b := bulkhead.New(bulkhead.Config{})
		ends := 0
		finish := grpc.OnFinish(func(error) { ends++ })
		conn := w.dial(meddler{func() { synctest.Wait(); panic("a policy") }}, b)
		v := caught(func() { _, _ = open(t.Context(), conn, serverStream, list, finish) })
		synctest.Wait()
		if got := b.Snapshot().InUse; v != "a policy" || got != 0 || ends != 1 {
			t.Errorf("as the pipeline is left: got %v, %d permits in use and %d ends, want the panic, 0 and 1", v, got, ends)
		}
		if !served {
			t.Error("the stream is still open")
		}
	})
	inBothWorlds(t, numbers(1), func(t *testing.T, w *world) {
		b := bulkhead.New(bulkhead.Config{})
		ends := 0
		conn := w.dial(atEnd{func() { panic("a policy") }}, b)
		s, err := open(t.Context(), conn, serverStream, list, grpc.OnFinish(func(error) { ends++ }))
		if err != nil {
			t.Fatal(err)
		}
		v := caught(func() { _, _ = recv(s) })
		if v != "a policy" || ends != 1 {
			t.Errorf("at the first message: got %v and %d ends, want the panic and 1", v, ends)
		}
		_ = conn.Close()
		synctest.Wait()
		if got := b.Snapshot().InUse; got != 0 {
			t.Errorf("got %d permits in use after all has ended, want none", got)
		}
	})
}

// atEnd is a policy that does something with each ending.
type atEnd struct{ do func() }

func (p atEnd) End(out backstay.Outcome) backstay.Outcome {
	p.do()
	return out
}

func (p atEnd) Wrap(next backstay.Handler) backstay.Handler {
	return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
		out := next(ctx, call)
		if s, ok := out.Held.(backstay.Pending); ok {
			s.Then(p)
			return out
		}
		return p.End(out)
	}
}

func (atEnd) Describe() backstay.Description {
	return backstay.Description{Kind: "at the end", Pends: true}
}

// Endings go from the inside to the outside.
func TestStreamEnders(t *testing.T) {
	inBothWorlds(t, numbers(1), func(t *testing.T, w *world) {
		var order []string
		by := func(name string) backstay.Policy { return atEnd{func() { order = append(order, name) }} }
		s, err := open(t.Context(), w.dial(by("outer"), by("inner")), serverStream, list)
		if err != nil {
			t.Fatal(err)
		}
		if len(order) != 0 {
			t.Errorf("got %v before the first message", order)
		}
		if got, err := all(s); err != nil || len(got) != 1 {
			t.Errorf("got %v and %v, want a message", got, err)
		}
		if want := []string{"inner", "outer"}; !slices.Equal(order, want) {
			t.Errorf("got %v, want %v", order, want)
		}
	})
}

// A policy may answer with a stream of its own.
func TestStreamReplaced(t *testing.T) {
	inWorld(t, codesOf(codes.Unavailable), func(t *testing.T, w *world) {
		canned := &tenMessages{left: 2, cancel: func() {}}
		instead := backstay.PolicyFunc(func(backstay.Handler) backstay.Handler {
			return func(context.Context, *backstay.Call) backstay.Outcome {
				return backstay.Outcome{Value: grpc.ClientStream(canned), Class: backstay.Success}
			}
		})
		s, err := open(t.Context(), w.dial(instead), serverStream, list)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := all(s); err != nil || len(got) != 2 {
			t.Errorf("got %v and %v, want the two messages of the policy's", got, err)
		}
		w.wantHits(0)
	})
}

// A call that none of the policies lets through ends where it begins.
func TestStreamRefused(t *testing.T) {
	inBothWorlds(t, numbers(1), func(t *testing.T, w *world) {
		ends := 0
		b := bulkhead.New(bulkhead.Config{Limit: 1})
		if err := b.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err := open(t.Context(), w.dial(b), serverStream, list, grpc.OnFinish(func(error) { ends++ }))
		wantCode(t, err, codes.ResourceExhausted)
		if !errors.Is(err, bulkhead.ErrFull) || ends != 1 {
			t.Errorf("got %v and %d ends, want bulkhead.ErrFull and 1", err, ends)
		}
		w.wantHits(0)
	})
}
