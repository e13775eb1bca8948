package retry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/budget"
)

// series is one call after its first attempt was no plain success. It stays on the call's goroutine and stack, which is why it may hold
// a context.
type series struct {
	c       *Config
	ctx     context.Context
	call    *backstay.Call // as the retry was handed it
	current *backstay.Call // of the latest attempt
	limit   int            // of attempts
	tokens  *budget.Budget // nil: no bound
	waits   waits

	made   int  // attempts that were not refused
	waited bool // for a breaker, which is done once
	// last is the latest outcome that another attempt was to replace; its value has been let go of. A refusal of that attempt
	// tells the caller less than last does.
	last    backstay.Outcome
	hasLast bool
}

// run goes from the first outcome to the one for the caller.
func (s *series) run(out backstay.Outcome, next backstay.Handler) backstay.Outcome {
	for {
		var p plan
		if errors.Is(out.Err, backstay.ErrRejected) {
			if p = s.afterRefusal(out); p.stop {
				return s.refused(out)
			}
		} else {
			s.made++
			permanent(&out)
			if !s.again(out) {
				return s.ended(out)
			}
			if p = s.plan(out); p.stop {
				return s.gaveUp(out, p)
			}
			s.last, s.hasLast = out, true
		}

		s.emit(backstay.EventRetry, p, out)
		out.Release() // before the wait: others have a use for the connection meanwhile
		if !sleep(s.ctx, p.wait) {
			return s.interrupted(out)
		}
		s.current = s.call.Next(s.ctx, out.Err)
		out = next(s.current, s.current)
	}
}

// permanent gives out the meaning of a *backoff.PermanentError: no further attempt. As in that package, the caller gets the error inside.
func permanent(out *backstay.Outcome) {
	var p *backoff.PermanentError
	if out.Err == nil || !errors.As(out.Err, &p) {
		return
	}
	out.Again = backstay.No
	if out.Err == error(p) && p.Err != nil {
		out.Err = p.Err
	}
}

// again reports whether out calls for another attempt.
func (s *series) again(out backstay.Outcome) bool {
	if s.ctx.Err() != nil || out.Again == backstay.No {
		return false
	}
	class := out.Judge(s.ctx, 0, 0)
	switch {
	case class == backstay.Success:
		return false
	case out.Again == backstay.Yes: // also what is no failure: a 429
		return true
	}
	return class == backstay.Failure && (s.call.Repeat() != backstay.No || out.Sent == backstay.SentNever)
}

// plan is what follows an outcome: another attempt after a wait, or none.
type plan struct {
	wait   time.Duration
	reason string // where the wait comes from, or why there is none
	stop   bool
	cause  error // with stop; may be nil
}

// plan decides whether there is another attempt, before anything is let go of or waited for. The budget comes last, so that a token is only
// taken for an attempt that has the time to be made.
func (s *series) plan(out backstay.Outcome) plan {
	if s.made >= s.limit {
		return plan{stop: true, reason: "attempts"}
	}
	var p plan
	switch {
	case out.Wait > s.c.MaxHint:
		return plan{stop: true, reason: "hint", cause: ErrHint, wait: out.Wait}
	case out.WaitExact:
		p = plan{wait: max(out.Wait, 0), reason: "hint"}
		s.waits = waits{c: s.c}
	case out.Wait > 0:
		p = plan{wait: hinted(s.c, out.Wait), reason: "hint"}
	default:
		wait, ok := s.waits.next()
		if !ok {
			return plan{stop: true, reason: "schedule"}
		}
		p = plan{wait: wait, reason: "schedule"}
	}
	need := p.wait + s.c.MinAttempt
	if s.c.MaxElapsed > 0 && need > s.c.MaxElapsed-s.elapsed() {
		return plan{stop: true, reason: "elapsed", cause: ErrElapsed, wait: p.wait}
	}
	if !s.fits(need) {
		return plan{stop: true, reason: "deadline", cause: ErrDeadline, wait: p.wait}
	}
	if !s.tokens.Withdraw() {
		return plan{stop: true, reason: "budget", cause: ErrBudget}
	}
	return p
}

// afterRefusal decides whether to wait for the policy inside that refused the attempt. The attempt that follows is the one that was refused, so it takes no token.
func (s *series) afterRefusal(out backstay.Outcome) plan {
	if out.Sent != backstay.SentNever {
		s.made++ // the function did run: what it called in turn was refused
	}
	var r *backstay.Rejected
	if !s.c.WaitForBreaker || s.waited || s.made >= s.limit || s.ctx.Err() != nil || !errors.As(out.Err, &r) {
		return plan{stop: true}
	}
	wait := r.RetryAfter
	need := wait + s.c.MinAttempt
	if wait <= 0 || wait > s.c.MaxHint || s.c.MaxElapsed > 0 && need > s.c.MaxElapsed-s.elapsed() || !s.fits(need) {
		return plan{stop: true}
	}
	s.waited = true
	return plan{wait: wait, reason: "breaker"}
}

// fits reports whether need is left until the deadline.
func (s *series) fits(need time.Duration) bool {
	deadline, ok := s.ctx.Deadline()
	return !ok || need <= time.Until(deadline)
}

func (s *series) elapsed() time.Duration { return s.call.Elapsed() }

// ended returns the outcome of a call whose latest attempt is not to be repeated: as it is, but when the context cut that attempt short, with
// the last real error.
func (s *series) ended(out backstay.Outcome) backstay.Outcome {
	if !s.hasLast || s.last.Err == nil || out.Err == nil || out.Answered || s.ctx.Err() == nil {
		return out
	}
	cause := out.Err
	if ended := backstay.ContextErr(s.ctx); !errors.Is(cause, ended) {
		cause = fmt.Errorf("%w: %w", ended, cause)
	}
	out.Err = s.exhausted(s.last.Err, plan{cause: cause})
	s.emit(backstay.EventStop, plan{reason: "context"}, out)
	return out
}

// gaveUp returns the outcome of a call that stops for a reason of the retry's own. It keeps its value. Where there is only a value and no
// error, no error is made up.
func (s *series) gaveUp(out backstay.Outcome, p plan) backstay.Outcome {
	if out.Err != nil {
		out.Err = s.exhausted(out.Err, p)
	}
	s.emit(backstay.EventStop, p, out)
	return out
}

// refused returns the outcome of a call whose latest attempt was refused by a policy inside. Nothing came of that one, so the outcome before it is
// handed back, if there is one.
func (s *series) refused(out backstay.Outcome) backstay.Outcome {
	if !s.hasLast {
		return out
	}
	out.Release()
	kept := s.last
	kept.Err = s.exhausted(kept.Err, plan{cause: out.Err})
	kept.Again = backstay.No
	s.emit(backstay.EventStop, plan{reason: "rejected"}, kept)
	return kept
}

// interrupted returns the outcome of a call whose context ended in the wait after out.
func (s *series) interrupted(out backstay.Outcome) backstay.Outcome {
	cause := backstay.ContextErr(s.ctx)
	if s.hasLast && errors.Is(out.Err, backstay.ErrRejected) {
		cause = fmt.Errorf("%w: %w", cause, out.Err) // in the wait for a breaker
		out = s.last
	}
	out.Err = s.exhausted(out.Err, plan{cause: cause})
	out.Again = backstay.No
	s.emit(backstay.EventStop, plan{reason: "context"}, out)
	return out
}

func (s *series) exhausted(err error, p plan) error {
	return &ExhaustedError{Name: s.c.Name, Attempts: s.made, Elapsed: s.elapsed(), Wait: p.wait, Err: err, Cause: p.cause}
}

func (s *series) emit(kind backstay.EventKind, p plan, out backstay.Outcome) {
	s.current.Emit(s.ctx, s.c.Observer, backstay.Event{
		Kind: kind, Policy: "retry", Name: s.c.Name, Wait: p.wait, Reason: p.reason, Class: out.Class, Err: out.Err,
	})
}

// sleep waits for d and reports whether ctx is still alive then.
func sleep(ctx context.Context, d time.Duration) bool {
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return ctx.Err() == nil
}
