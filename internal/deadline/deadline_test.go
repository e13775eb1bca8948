package deadline_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/internal/deadline"
)

var errCause = errors.New("cause")

type key struct{}

// limit is a Limit like that of a timeout; one for each context, so it is shared in a bubble too.
func limit(cause error) *deadline.Limit {
	l := &deadline.Limit{Cause: cause, Shared: true}
	l.ShareInBubbles()
	return l
}

// view is all that anybody can see of a context and of one derived from it.
type view struct {
	err, cause           error
	done                 bool
	childErr, childCause error
	childDone            bool
	after                bool
	value                any
	left                 time.Duration
	hasDeadline          bool
}

// TestEqualsStandard runs the same story on the standard context and on ours and compares what can be seen.
func TestEqualsStandard(t *testing.T) {
	type world struct {
		parent context.Context
		end    context.CancelCauseFunc
		cancel func()
	}
	stories := []struct {
		name  string
		limit time.Duration
		outer time.Duration // the parent's own deadline; 0: none
		story func(w world)
		blind bool // cannot be told when nobody looks: see the package documentation
	}{
		{"alive", time.Second, 0, func(world) { time.Sleep(time.Millisecond) }, false},
		{"expires", time.Second, 0, func(world) { time.Sleep(2 * time.Second) }, false},
		{"expires at once", -time.Second, 0, func(world) {}, false},
		{"cancelled", time.Second, 0, func(w world) { w.cancel() }, false},
		{"cancelled after expiry", time.Second, 0, func(w world) { time.Sleep(2 * time.Second); w.cancel() }, false},
		{"parent cancelled with a cause", time.Second, 0, func(w world) { w.end(errors.New("parent")) }, false},
		{"parent cancelled after expiry", time.Second, 0, func(w world) { time.Sleep(2 * time.Second); w.end(nil) }, true},
		{"parent ends earlier", time.Second, time.Millisecond, func(world) { time.Sleep(time.Minute) }, false},
		{"parent ends later", time.Second, time.Minute, func(world) { time.Sleep(2 * time.Second) }, false},
	}
	for _, s := range stories {
		for _, asked := range []string{"first", "last"} { // is Done asked for before the story, or only after it
			if asked == "last" && s.blind {
				continue
			}
			t.Run(s.name+", asked "+asked, func(t *testing.T) {
				run := func(make func(context.Context, time.Duration) (context.Context, func())) view {
					parent, end := context.WithCancelCause(context.WithValue(context.Background(), key{}, "v"))
					defer end(nil)
					if s.outer != 0 {
						var stop context.CancelFunc
						parent, stop = context.WithTimeout(parent, s.outer)
						defer stop()
					}
					ctx, cancel := make(parent, s.limit)
					defer cancel()
					var v view
					var child context.Context
					derive := func() {
						var stop context.CancelFunc
						child, stop = context.WithCancel(context.WithValue(ctx, "k", "v"))
						t.Cleanup(stop)
						context.AfterFunc(ctx, func() { v.after = true })
					}
					if asked == "first" {
						derive()
					}
					s.story(world{parent, end, cancel})
					v.err, v.cause = ctx.Err(), context.Cause(ctx)
					if asked == "last" {
						derive()
					}
					synctest.Wait()
					select {
					case <-ctx.Done():
						v.done = true
					default:
					}
					select {
					case <-child.Done():
						v.childDone = true
					default:
					}
					v.childErr, v.childCause = child.Err(), context.Cause(child)
					v.value = ctx.Value(key{})
					var at time.Time
					at, v.hasDeadline = ctx.Deadline()
					v.left = time.Until(at)
					return v
				}
				var got, alone, want view
				synctest.Test(t, func(t *testing.T) {
					want = run(func(p context.Context, d time.Duration) (context.Context, func()) {
						c, cancel := context.WithTimeoutCause(p, d, errCause)
						return c, cancel
					})
				})
				synctest.Test(t, func(t *testing.T) {
					got = run(func(p context.Context, d time.Duration) (context.Context, func()) {
						c := deadline.New(p, d, limit(errCause))
						return c, c.Cancel
					})
				})
				synctest.Test(t, func(t *testing.T) {
					alone = run(func(p context.Context, d time.Duration) (context.Context, func()) {
						c := deadline.New(p, d, &deadline.Limit{Cause: errCause}) // with a timer of its own
						return c, c.Cancel
					})
				})
				for i, got := range []view{got, alone} {
					if want.cause != nil && got.cause != nil && want.cause.Error() == got.cause.Error() {
						got.cause = want.cause
					}
					if want.childCause != nil && got.childCause != nil && want.childCause.Error() == got.childCause.Error() {
						got.childCause = want.childCause
					}
					if got != want {
						t.Errorf("shared and alone, %d: got  %+v\nwant %+v", i, got, want)
					}
				}
			})
		}
	}
}

func TestDisarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, asked := range []bool{true, false} {
			parent, end := context.WithCancel(context.Background())
			c := deadline.New(parent, time.Second, limit(errCause))
			if asked {
				c.Done()
			}
			time.Sleep(time.Second / 2)
			if !c.Disarm() {
				t.Fatalf("asked %v: Disarm before the deadline reported that it had passed", asked)
			}
			time.Sleep(time.Second)
			if err := c.Err(); err != nil {
				t.Errorf("asked %v: Err after the lifted deadline: got %v, want nil", asked, err)
			}
			if c.Expired() {
				t.Errorf("asked %v: Expired after Disarm", asked)
			}
			end()
			<-c.Done()
			if err := c.Err(); err != context.Canceled {
				t.Errorf("asked %v: Err after the parent's end: got %v, want %v", asked, err, context.Canceled)
			}
			c.Cancel()
		}
	})
}

func TestDisarmTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, asked := range []bool{true, false} {
			c := deadline.New(context.Background(), time.Second, limit(errCause))
			if asked {
				c.Done()
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if c.Disarm() {
				t.Errorf("asked %v: Disarm after the deadline reported that it was in time", asked)
			}
			if err := c.Err(); err != context.DeadlineExceeded {
				t.Errorf("asked %v: Err: got %v, want %v", asked, err, context.DeadlineExceeded)
			}
			if cause := context.Cause(c); cause != errCause {
				t.Errorf("asked %v: Cause: got %v, want %v", asked, cause, errCause)
			}
			c.Cancel()
		}
	})
}

// TestOneAllocation guards the reason for this package.
func TestOneAllocation(t *testing.T) {
	parent, limit := context.Background(), limit(errCause)
	got := testing.AllocsPerRun(100, func() {
		c := deadline.New(parent, time.Hour, limit)
		_ = c.Err()
		c.Finish()
	})
	if got > 1 {
		t.Errorf("a context that nobody waits on: got %v allocations, want 1", got)
	}
}

// TestNoTimerLeft: a cancelled context leaves nothing behind that would fire later.
func TestNoTimerLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		c := deadline.New(context.Background(), time.Hour, limit(errCause))
		c.Done()
		c.Cancel()
		if err := c.Err(); err != context.Canceled {
			t.Errorf("Err after Cancel: got %v, want %v", err, context.Canceled)
		}
		if since := time.Since(start); since != 0 {
			t.Errorf("%v passed", since)
		}
	})
}

// TestNested: an attempt's context inside a total one, through something that hands a context on, as a Call does.
func TestNested(t *testing.T) {
	errOuter := errors.New("outer")
	cases := []struct {
		name         string
		outer, inner time.Duration
		story        func(outer, inner *deadline.Ctx)
		err, cause   error
		expired      [2]bool // outer, inner
	}{
		{"inner first", 2 * time.Second, time.Second, func(_, _ *deadline.Ctx) { time.Sleep(3 * time.Second / 2) }, context.DeadlineExceeded, errCause, [2]bool{false, true}},
		{"outer first", time.Second, 2 * time.Second, func(_, _ *deadline.Ctx) { time.Sleep(3 * time.Second / 2) }, context.DeadlineExceeded, errOuter, [2]bool{true, false}},
		{"outer cancelled", 2 * time.Second, time.Second, func(o, _ *deadline.Ctx) { o.Cancel() }, context.Canceled, context.Canceled, [2]bool{}},
		{"inner cancelled", 2 * time.Second, time.Second, func(_, i *deadline.Ctx) { i.Cancel() }, context.Canceled, context.Canceled, [2]bool{}},
		{"both lifted", 2 * time.Second, time.Second, func(o, i *deadline.Ctx) { i.Disarm(); o.Disarm(); time.Sleep(time.Minute) }, nil, nil, [2]bool{}},
		{"lifted, then the outer cancelled", 2 * time.Second, time.Second, func(o, i *deadline.Ctx) { i.Disarm(); o.Disarm(); o.Cancel() }, context.Canceled, context.Canceled, [2]bool{}},
		{"watched", 2 * time.Second, time.Second, func(o, i *deadline.Ctx) {
			i.Disarm()
			o.Disarm()
			i.Watch(time.Second, errOuter)
			time.Sleep(time.Second / 2)
			i.Unwatch()
			time.Sleep(time.Minute)
			i.Watch(time.Second, errCause)
			time.Sleep(2 * time.Second)
		}, context.DeadlineExceeded, errCause, [2]bool{}},
	}
	for _, c := range cases {
		for _, realOuter := range []bool{false, true} {
			t.Run(c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					outer := deadline.New(context.Background(), c.outer, limit(errOuter))
					defer outer.Cancel()
					if realOuter {
						outer.Done()
					}
					inner := deadline.New(through{outer}, c.inner, limit(errCause))
					defer inner.Cancel()
					done := inner.Done()
					c.story(outer, inner)
					synctest.Wait()
					select { // before Err, which looks at the clock itself
					case <-done:
						if c.err == nil {
							t.Error("Done is closed")
						}
					default:
						if c.err != nil {
							t.Error("Done is not closed")
						}
					}
					if got := inner.Err(); got != c.err {
						t.Errorf("Err: got %v, want %v", got, c.err)
					}
					if got := context.Cause(inner); got != c.cause {
						t.Errorf("Cause: got %v, want %v", got, c.cause)
					}
					if got := [2]bool{outer.Expired(), inner.Expired()}; got != c.expired {
						t.Errorf("Expired of outer and inner: got %v, want %v", got, c.expired)
					}
				})
			})
		}
	}
}

// through hands a context on, as backstay.Call does.
type through struct{ context.Context }

func (t through) Parent() context.Context { return t.Context }

// Lifting walks outwards: an attempt's limit inside a total one, both gone, while the caller's own stays.
func TestLift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		caller, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		total := deadline.New(caller, 30*time.Second, limit(errCause))
		attempt := deadline.New(total, 10*time.Second, limit(errCause))
		defer total.Cancel()
		defer attempt.Cancel()
		done := attempt.Done()
		if outer := attempt.Lift(); outer != context.Context(total) {
			t.Errorf("got %v outside the attempt, want the total", outer)
		}
		if outer := total.Lift(); outer != caller {
			t.Errorf("got %v outside the total, want the caller's", outer)
		}
		time.Sleep(time.Minute)
		if attempt.Err() != nil || attempt.Expired() || total.Expired() {
			t.Errorf("got %v, expired %v and %v after a minute, want it alive", attempt.Err(), attempt.Expired(), total.Expired())
		}
		cancel()
		<-done
	})
}

// between hands everything on but one value, as the Call of a further attempt does.
type between struct{ context.Context }

func (b between) Parent() context.Context { return b.Context }

func (b between) Value(k any) any {
	if k == any(key{}) {
		return "between"
	}
	return b.Context.Value(k)
}

// A limit inside a limit, which is not made real: it ends as two standard contexts would, and sees the values in between.
func TestInside(t *testing.T) {
	for _, realOuter := range []bool{false, true} {
		for _, how := range []string{"inner", "outer cancelled", "outer cancelled before", "caller"} {
			synctest.Test(t, func(t *testing.T) {
				caller, leave := context.WithCancel(context.WithValue(t.Context(), key{}, "caller"))
				defer leave()
				outer := deadline.New(caller, time.Hour, limit(errors.New("outer")))
				if realOuter {
					outer.Done()
				}
				inner := deadline.New(between{outer}, time.Minute, limit(errCause))
				defer outer.Cancel()
				defer inner.Cancel()
				if how == "outer cancelled before" {
					outer.Cancel()
				}
				child, stop := context.WithCancel(inner)
				defer stop()
				if got := child.Value(key{}); got != "between" {
					t.Errorf("got the value %v, want that between", got)
				}
				start := time.Now()
				want, took := context.Canceled, time.Duration(0)
				switch how {
				case "inner":
					want, took = context.DeadlineExceeded, time.Minute
				case "outer cancelled":
					outer.Cancel()
				case "caller":
					leave()
				}
				<-child.Done()
				if inner.Err() != want || time.Since(start) != took {
					t.Errorf("%s: got %v after %v, want %v after %v", how, inner.Err(), time.Since(start), want, took)
				}
				if how == "inner" && context.Cause(child) != errCause {
					t.Errorf("got the cause %v, want the inner one's", context.Cause(child))
				}
			})
		}
	}
}
