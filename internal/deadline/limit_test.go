package deadline_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/internal/deadline"
)

// Contexts of one limit come due each at its own time, whatever the order in which they are waited on, cancelled or lifted.
func TestSharedLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit(errCause)
		const n, d = 8, 10 * time.Second
		all := make([]*deadline.Ctx, n)
		start := time.Now()
		for i := range all {
			all[i] = deadline.New(context.Background(), d, l)
			time.Sleep(time.Second) // the last is made before the first is due
		}
		ends := make([]time.Duration, n)
		var wg sync.WaitGroup
		for _, i := range []int{3, 1, 7, 0, 6, 2, 5, 4} {
			done := all[i].Done()
			wg.Go(func() { <-done; ends[i] = time.Since(start) })
		}
		all[0].Disarm() // the first in the queue
		all[4].Cancel()
		all[7].Cancel() // the last
		time.Sleep(time.Minute)
		all[0].Cancel()
		wg.Wait()
		for i, want := range []time.Duration{68 * time.Second, 11 * time.Second, 12 * time.Second, 13 * time.Second, 8 * time.Second, 15 * time.Second, 16 * time.Second, 8 * time.Second} {
			if ends[i] != want {
				t.Errorf("context %d: ended after %v, want %v", i, ends[i], want)
			}
		}
		for i, want := range []bool{false, true, true, true, false, true, true, false} {
			if got := all[i].Expired(); got != want {
				t.Errorf("context %d: got expired %v, want %v", i, got, want)
			}
		}
		// The queue was empty: the next starts the timer again.
		late := deadline.New(context.Background(), d, l)
		from := time.Now()
		<-late.Done()
		if got := time.Since(from); got != d {
			t.Errorf("after a pause: ended after %v, want %v", got, d)
		}
	})
}

// A watch goes on after the shared limit has come due and was found lifted.
func TestSharedLimitWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := deadline.New(context.Background(), time.Second, limit(errCause))
		start := time.Now()
		done := c.Done()
		c.Disarm()
		c.Watch(5*time.Second, context.DeadlineExceeded)
		<-done
		if got := time.Since(start); got != 5*time.Second {
			t.Errorf("the watch ended the context after %v, want 5s", got)
		}
	})
}

var errRound = errors.New("watched")

// A context without a deadline is looked at once by the timer of its round: a watch as long as that costs no timer of its own, and still ends when it should.
func TestRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rounds := limit(errCause)
		for d, timed := range map[time.Duration]bool{time.Second: true, 10 * time.Second: false, 30 * time.Second: false} {
			c := deadline.Open(context.Background(), rounds)
			start := time.Now()
			c.Watch(d, errRound)
			if got := c.Timed(); got != timed {
				t.Errorf("watch of %v: got a timer of its own: %v, want %v", d, got, timed)
			}
			<-c.Done()
			if got := time.Since(start); got != d || context.Cause(c) != errRound {
				t.Errorf("watch of %v: ended after %v by %v, want by the watch", d, got, context.Cause(c))
			}
		}
		c := deadline.Open(context.Background(), rounds)
		c.Watch(30*time.Second, errRound)
		c.Unwatch()
		time.Sleep(time.Hour)
		if err := c.Err(); err != nil || c.Expired() {
			t.Errorf("not watched any more: got %v, want no end", err)
		}
		c.Cancel()
		none := deadline.Open(context.Background(), nil)
		none.Watch(30*time.Second, errRound)
		if !none.Timed() {
			t.Error("without rounds: got no timer, want one")
		}
		none.Cancel()
	})
}

// Many goroutines, real time: what is waited on ends, what is cancelled leaves the queue. It is the race detector that judges.
func TestSharedLimitParallel(t *testing.T) {
	l := &deadline.Limit{Cause: errCause, Shared: true}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				c := deadline.New(t.Context(), time.Millisecond, l)
				child, stop := context.WithCancel(c)
				if (i+g)%4 == 0 {
					<-child.Done()
					if context.Cause(child) != errCause {
						t.Errorf("got the cause %v, want that of the limit", context.Cause(child))
					}
				}
				stop()
				c.Cancel()
			}
		})
	}
	wg.Wait()
}
