package hedge

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/internal/deadline"
)

// race is one hedged call. Its fields belong to the caller's goroutine, but for mu and what it guards.
type race struct {
	hedge   *Hedge
	ctx     context.Context
	call    *backstay.Call
	next    backstay.Handler
	start   time.Duration
	endings chan ending // has room for all, so nobody blocks on it

	bounds []*deadline.Ctx // contexts of the attempts; the first is the primary's
	ended  []ending        // attempts that failed, in the order in which they did

	mu   sync.Mutex
	over bool // who ends from now on has lost; guarded by mu
}

// ending is how one attempt ended.
type ending struct {
	index    int // 0: the primary
	attempt  int
	out      backstay.Outcome
	panicked any
	how      how
}

type how uint8

const (
	exited   how = iota // runtime.Goexit
	panicked            // with the value in ending
	returned
)

// run makes the call, its first further attempt after delay.
func (r *race) run(delay time.Duration) backstay.Outcome {
	defer r.close()
	r.begin(r.call)
	timer := time.NewTimer(delay)
	defer timer.Stop()
	due, done := timer.C, r.ctx.Done()
	for {
		select {
		case e := <-r.endings:
			if out, ok := r.take(e); ok {
				return out
			}
		case <-due:
			due = nil
			if r.ctx.Err() == nil && r.hedgeOnce(delay) && len(r.bounds) <= r.hedge.config.Extra {
				timer.Reset(delay)
				due = timer.C
			}
		case <-done:
			due, done = nil, nil // no more attempts; those that run have been told
		}
	}
}

// hedgeOnce starts a further attempt, if the budget has one.
func (r *race) hedgeOnce(delay time.Duration) bool {
	h := r.hedge
	if !h.withdraw(r.call) {
		h.denied.Add(1)
		r.call.Emit(r.ctx, h.config.Observer, backstay.Event{Kind: backstay.EventStop, Policy: "hedge", Name: h.config.Name, Reason: "budget", Wait: delay})
		return false
	}
	h.hedges.Add(1)
	attempt := r.begin(nil)
	r.call.Emit(r.ctx, h.config.Observer, backstay.Event{Kind: backstay.EventHedge, Policy: "hedge", Name: h.config.Name, Attempt: attempt, Wait: time.Since(h.origin) - r.start})
	return true
}

// begin starts an attempt: the one of call, or a further one when it is nil. It returns the attempt's number.
func (r *race) begin(call *backstay.Call) int {
	bound := deadline.Open(r.ctx, nil)
	e := ending{index: len(r.bounds)}
	r.bounds = append(r.bounds, bound)
	ctx := context.Context(bound)
	if call == nil {
		call = r.call.Next(bound, nil)
		ctx = call
	}
	e.attempt = call.Attempt()
	go func() {
		defer func() {
			if e.how != returned {
				if e.panicked = recover(); e.panicked != nil {
					e.how = panicked
				}
			}
			r.end(e)
		}()
		e.out = r.next(ctx, call)
		e.how = returned
	}()
	return e.attempt
}

// end hands on the ending of an attempt, on that attempt's goroutine, or clears up after a loser.
func (r *race) end(e ending) {
	r.mu.Lock()
	if !r.over {
		r.endings <- e
		r.mu.Unlock()
		return
	}
	r.mu.Unlock()
	r.lost(e)
}

// take looks at an ending. ok: it is that of the call.
func (r *race) take(e ending) (out backstay.Outcome, ok bool) {
	switch e.how {
	case panicked:
		panic(e.panicked)
	case exited:
		runtime.Goexit()
	}
	if !r.good(e.out) {
		r.ended = append(r.ended, e)
		if len(r.ended) < len(r.bounds) {
			return out, false
		}
		return r.failed(), true
	}
	r.won(e)
	return r.keep(e), true // close lets go of what failed before
}

// good reports whether out ends the call although other attempts run: it is an answer, or says that the call must not be made again.
func (r *race) good(out backstay.Outcome) bool {
	return out.Class == backstay.Success || out.Again == backstay.No && !errors.Is(out.Err, backstay.ErrRejected)
}

// won counts a call that ended well.
func (r *race) won(e ending) {
	h := r.hedge
	primaryRuns := e.index > 0 && !slices.ContainsFunc(r.ended, func(f ending) bool { return f.index == 0 })
	if primaryRuns || e.index == 0 && e.out.Class == backstay.Success {
		h.record(r.start, time.Since(h.origin))
	}
	if len(r.bounds) == 1 {
		return
	}
	reason := "primary"
	if e.index > 0 {
		h.wins.Add(1)
		reason = "hedge"
	}
	r.call.Emit(r.ctx, h.config.Observer, backstay.Event{
		Kind: backstay.EventWin, Policy: "hedge", Name: h.config.Name, Attempt: e.attempt, Reason: reason, Elapsed: time.Since(h.origin) - r.start,
	})
}

// keep returns the outcome of e, whose context then lives for as long as its value is in use.
func (r *race) keep(e ending) backstay.Outcome {
	if e.out.Held != nil {
		bound := r.bounds[e.index]
		r.bounds[e.index] = nil // close leaves it alone
		e.out.Held.OnRelease(bound.Cancel)
	}
	return e.out
}

// failed makes one outcome out of all attempts, none of which was good: that of the first attempt, or of another if that one was
// refused by a policy and not made, with the errors of all that were made.
func (r *race) failed() backstay.Outcome {
	best := 0
	for i, e := range r.ended {
		if rank(e) < rank(r.ended[best]) {
			best = i
		}
	}
	chosen := r.ended[best]
	out := r.keep(chosen)
	errs := []error{out.Err}
	for i, e := range r.ended {
		if i == best {
			continue
		}
		e.out.Release()
		if rank(e) >= refused {
			continue // it was never made
		}
		if e.out.Err != nil {
			errs = append(errs, e.out.Err)
		}
		out.Wait = max(out.Wait, e.out.Wait)
		out.Shed = out.Shed || e.out.Shed
		if e.out.Sent != backstay.SentNever && out.Sent != backstay.SentYes {
			out.Sent = e.out.Sent
		}
	}
	r.ended = nil
	if len(errs) > 1 && out.Err != nil { // a failure without an error stays without one
		out.Err = errors.Join(errs...)
	}
	return out
}

// refused is the lowest rank of an attempt that a policy refused.
const refused = 2

// rank orders attempts that failed by how much their outcome says: the lowest stands for the call.
func rank(e ending) int {
	n := min(e.index, 1)
	if errors.Is(e.out.Err, backstay.ErrRejected) {
		n += refused
	}
	return n
}

// close ends the race: whoever still runs has lost.
func (r *race) close() {
	r.mu.Lock()
	r.over = true
	r.mu.Unlock()
	for _, bound := range r.bounds {
		if bound != nil {
			bound.Cancel()
		}
	}
	for _, e := range r.ended {
		e.out.Release()
	}
	for {
		select {
		case e := <-r.endings:
			r.lost(e)
		default:
			return
		}
	}
}

// lost clears up after an attempt that nobody waits for.
func (r *race) lost(e ending) {
	if e.how == panicked {
		r.call.Emit(r.ctx, r.hedge.config.Observer, backstay.Event{
			Kind: backstay.EventAbandon, Policy: "hedge", Name: r.hedge.config.Name, Attempt: e.attempt, Reason: "panic", Err: fmt.Errorf("panic: %v", e.panicked),
		})
	}
	e.out.Release()
}
