package backstay_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

var errBoom = errors.New("boom")

// trace is a policy that records when it is entered and left.
func trace(log *[]string, name string) backstay.Policy {
	return backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
		return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
			*log = append(*log, "+"+name)
			defer func() { *log = append(*log, "-"+name) }()
			return next(ctx, call)
		}
	})
}

// T67: the first policy listed is the outermost.
func TestOrder(t *testing.T) {
	var log []string
	p := backstay.Chain(trace(&log, "a"), backstay.Chain(trace(&log, "b")), trace(&log, "c"))
	if err := backstay.Run(context.Background(), p, func(context.Context) error { log = append(log, "fn"); return nil }); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(log, " "), "+a +b +c fn -c -b -a"; got != want {
		t.Errorf("order: got %q, want %q", got, want)
	}
	printed := backstay.Chain(timeout.New(time.Second), backstay.Chain(bulkhead.New(bulkhead.Config{Name: "b"}))).String()
	if want := "timeout (1s)\n  bulkhead \"b\" (1000 at once)\n    call\n"; printed != want {
		t.Errorf("String:\ngot\n%swant\n%s", printed, want)
	}
}

// T68: deriving from a pipeline does not change it, and it serves many goroutines.
func TestPipelineIsImmutable(t *testing.T) {
	var n int
	p := backstay.Chain(timeout.New(time.Minute))
	before := p.String()
	q := backstay.Chain(p, bulkhead.New(bulkhead.Config{})).Observe(backstay.ObserverFunc(func(context.Context, backstay.Event) { n++ }))
	policies := p.Policies()
	policies[0] = nil
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { _ = backstay.Run(context.Background(), p, func(context.Context) error { return nil }) })
	}
	wg.Wait()
	if p.String() != before {
		t.Errorf("the pipeline has changed: got %s, was %s", p, before)
	}
	if n != 0 {
		t.Error("the observer of a derived pipeline was told of calls through the first")
	}
	_ = backstay.Run(context.Background(), q, func(context.Context) error { return nil })
	if n != 2 {
		t.Errorf("events of one call through the derived pipeline: got %d, want an attempt and a call", n)
	}
}

// T69: what is missing is left out.
func TestNothingToDo(t *testing.T) {
	var nilBreaker *breaker.Breaker
	var nilTimeout *timeout.Timeout
	var nilFunc backstay.PolicyFunc
	for name, p := range map[string]*backstay.Pipeline{
		"nil pipeline": nil, "empty chain": backstay.Chain(), "nil policy": backstay.Chain(nil), "nil pointers": backstay.Chain(nilBreaker, nilTimeout, nilFunc),
		"nil pipeline inside": backstay.Chain((*backstay.Pipeline)(nil)), "zero pipeline": {},
	} {
		got, err := backstay.Do(context.Background(), p, func(context.Context) (int, error) { return 42, nil })
		if got != 42 || err != nil {
			t.Errorf("%s: got %d, %v; want 42, nil", name, got, err)
		}
	}
}

func TestBadInput(t *testing.T) {
	if _, err := backstay.Do[int](context.Background(), nil, nil); !errors.Is(err, backstay.ErrNilFunc) {
		t.Errorf("Do without a function: got %v", err)
	}
	if err := backstay.Run(context.Background(), nil, nil); !errors.Is(err, backstay.ErrNilFunc) {
		t.Errorf("Run without a function: got %v", err)
	}
	if _, release, err := backstay.DoHeld[int](context.Background(), nil, nil, nil); !errors.Is(err, backstay.ErrNilFunc) || release == nil {
		t.Errorf("DoHeld without a function: got %v", err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errBoom)
	err := backstay.Run(ctx, nil, func(context.Context) error { t.Error("called although the context is over"); return nil })
	if !errors.Is(err, errBoom) || !errors.Is(err, context.Canceled) {
		t.Errorf("a context that is over: got %v, want its cause and context.Canceled", err)
	}
}

// Values that live on the context of their call are refused before the function runs.
func TestNeedsHeld(t *testing.T) {
	ctx := context.Background()
	refuse := func(name string, err error) {
		if !errors.Is(err, backstay.ErrNeedsHeld) {
			t.Errorf("%s: got %v, want ErrNeedsHeld", name, err)
		}
	}
	_, err := backstay.Do(ctx, nil, func(context.Context) (*http.Response, error) { panic("called") })
	refuse("*http.Response", err)
	_, err = backstay.Do(ctx, nil, func(context.Context) (*sql.Rows, error) { panic("called") })
	refuse("*sql.Rows", err)
	_, err = backstay.Do(ctx, nil, func(context.Context) (*sql.Row, error) { panic("called") })
	refuse("*sql.Row", err)
	_, err = backstay.Do(ctx, nil, func(context.Context) (*sql.Tx, error) { panic("called") })
	refuse("*sql.Tx", err)
	if _, err := backstay.Do(ctx, nil, func(context.Context) (io.Reader, error) { return nil, nil }); err != nil {
		t.Errorf("io.Reader: got %v", err)
	}
}

// A value of the wrong type is an error, never a silent zero; a nil of an interface type is that nil.
func TestTypes(t *testing.T) {
	answer := func(v any) *backstay.Pipeline {
		return backstay.Chain(backstay.Classify(func(context.Context, backstay.Outcome) backstay.Outcome { return backstay.Outcome{Value: v} }))
	}
	for _, v := range []any{"text", nil, int64(1), []int{1}} {
		got, err := backstay.Do(context.Background(), answer(v), func(context.Context) (int, error) { return 7, nil })
		if !errors.Is(err, backstay.ErrType) {
			t.Errorf("%T for an int: got %d, %v; want ErrType", v, got, err)
		}
	}
	if got, err := backstay.Do(context.Background(), nil, func(context.Context) (error, error) { return nil, nil }); got != nil || err != nil {
		t.Errorf("a nil interface: got %v, %v", got, err)
	}
	if got, err := backstay.Do(context.Background(), nil, func(context.Context) (*int, error) { return nil, nil }); got != nil || err != nil {
		t.Errorf("a nil pointer: got %v, %v", got, err)
	}
	if got, err := backstay.Do(context.Background(), nil, func(context.Context) (int, error) { return 7, errBoom }); got != 7 || err != errBoom {
		t.Errorf("a value with an error: got %d, %v; want both, as the function returned them", got, err)
	}
}

func TestMarks(t *testing.T) {
	for _, c := range []struct {
		name     string
		err      error
		attempts int
		class    backstay.Class
	}{
		{"plain", errBoom, 3, backstay.Failure},
		{"permanent", backstay.Permanent(errBoom), 1, backstay.Failure},
		{"permanent, wrapped", fmt.Errorf("load: %w", backstay.Permanent(errBoom)), 1, backstay.Failure},
		{"ignored", backstay.Ignore(errBoom), 1, backstay.Neutral},
		{"retry after", backstay.RetryAfter(errBoom, time.Millisecond), 3, backstay.Failure},
		{"a refusal inside", &backstay.Rejected{Policy: "bulkhead", Err: errBoom}, 1, backstay.Neutral},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, class := 0, backstay.Unclassified
				look := backstay.Classify(func(_ context.Context, out backstay.Outcome) backstay.Outcome { class = out.Class; return out })
				err := backstay.Run(context.Background(), backstay.Chain(retry.New(retry.Config{}), look), func(context.Context) error { n++; return c.err })
				if !errors.Is(err, errBoom) || n != c.attempts || class != c.class {
					t.Errorf("got %v after %d attempts, counted as %v; want boom, %d, %v", err, n, class, c.attempts, c.class)
				}
			})
		})
	}
	if err := backstay.Run(context.Background(), nil, func(context.Context) error { return backstay.Permanent(errBoom) }); err != errBoom {
		t.Errorf("a marked error comes back as %#v, want the bare one", err)
	}
	for _, mark := range []error{backstay.Permanent(nil), backstay.Ignore(nil), backstay.RetryAfter(nil, time.Second)} {
		if mark != nil {
			t.Errorf("a mark on nil: got %v, want nil", mark)
		}
	}
}

// T44: the function can read which attempt it is.
func TestAttemptNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		p := backstay.Chain(timeout.New(time.Minute), retry.New(retry.Config{}), timeout.New(time.Second))
		_ = backstay.Run(context.Background(), p, func(ctx context.Context) error {
			ctx = context.WithValue(ctx, t, 1)
			c := backstay.CallFrom(ctx)
			got = append(got, fmt.Sprintf("%d %v %s %s", c.Attempt(), c.Previous(), c.Name(), c.Key()))
			return errBoom
		}, backstay.Named("load"), backstay.WithKey("k"))
		if want := "[1 <nil> load k 2 boom load k 3 boom load k]"; fmt.Sprint(got) != want {
			t.Errorf("got %v, want %v", got, want)
		}
	})
	if backstay.CallFrom(context.Background()) != nil {
		t.Error("CallFrom outside a call is not nil")
	}
}

// T43: a retry around a retry does not multiply, in one pipeline or across two.
func TestNestedRetry(t *testing.T) {
	r := func() backstay.Policy { return retry.New(retry.Config{Delay: -1}) }
	n := 0
	fn := func(context.Context) error { n++; return errBoom }
	_ = backstay.Run(context.Background(), backstay.Chain(r(), r()), fn)
	if n != 3 {
		t.Errorf("two retries in one pipeline: got %d attempts, want 3", n)
	}
	n = 0
	inner := backstay.Chain(r())
	_ = backstay.Run(context.Background(), backstay.Chain(r()), func(ctx context.Context) error { return backstay.Run(ctx, inner, fn) })
	if n != 3 {
		t.Errorf("a pipeline inside a pipeline: got %d attempts, want 3", n)
	}
}

// Panics and Goexit pass through every policy and leave nothing taken.
func TestPanicAndGoexit(t *testing.T) {
	b := bulkhead.New(bulkhead.Config{Limit: 1})
	p := backstay.Chain(timeout.New(time.Minute), retry.New(retry.Config{}), b, breaker.New(breaker.Config{}), timeout.New(time.Second))
	func() {
		defer func() {
			if got := recover(); got != errBoom {
				t.Errorf("panic: got %v, want %v", got, errBoom)
			}
		}()
		_ = backstay.Run(context.Background(), p, func(context.Context) error { panic(errBoom) })
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = backstay.Run(context.Background(), p, func(context.Context) error { runtime.Goexit(); return nil })
	}()
	<-done
	if got := b.Snapshot().InUse; got != 0 {
		t.Errorf("permits taken at the end: got %d, want 0", got)
	}
}

// DoHeld: the context and the permit live until release, the time limit only until the function returns.
func TestDoHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{})
		p := backstay.Chain(timeout.New(10*time.Second), retry.New(retry.Config{}), b, timeout.New(time.Second))
		var order []string
		var got context.Context
		v, release, err := backstay.DoHeld(context.Background(), p, func(ctx context.Context) (string, error) {
			got = ctx
			return "rows", nil
		}, func(string) { order = append(order, fmt.Sprint("close, context over: ", got.Err() != nil)) })
		if v != "rows" || err != nil {
			t.Fatalf("got %q, %v", v, err)
		}
		time.Sleep(time.Hour)
		if got.Err() != nil || b.Snapshot().InUse != 1 {
			t.Errorf("while held: context %v, permits %d; want nil, 1", got.Err(), b.Snapshot().InUse)
		}
		done := got.Done()
		release()
		release()
		<-done
		if fmt.Sprint(order) != "[close, context over: false]" || b.Snapshot().InUse != 0 {
			t.Errorf("after release: %v, permits %d", order, b.Snapshot().InUse)
		}
	})
}

// Values that nobody will use are closed: those of a call that took too long.
func TestDoHeldTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := 0
		_, release, err := backstay.DoHeld(context.Background(), backstay.Chain(timeout.New(time.Second)), func(context.Context) (int, error) {
			time.Sleep(2 * time.Second)
			return 1, nil
		}, func(int) { closed++ })
		if !errors.Is(err, timeout.ErrExceeded) || closed != 1 {
			t.Errorf("got %v and %d closes, want a timeout and 1", err, closed)
		}
		release()
	})
}

// T71: the budget of allocations on the way of a success.
func TestAllocations(t *testing.T) {
	v := new(int)
	fn := func(context.Context) (*int, error) { return v, nil }
	ctx := context.Background()
	for _, c := range []struct {
		name string
		p    *backstay.Pipeline
		most float64
	}{
		{"retry, breaker, bulkhead", backstay.Chain(retry.New(retry.Config{}), breaker.New(breaker.Config{}), bulkhead.New(bulkhead.Config{})), 3},
		{"with two timeouts", backstay.Chain(timeout.New(time.Minute), retry.New(retry.Config{}), breaker.New(breaker.Config{}), bulkhead.New(bulkhead.Config{}), timeout.New(time.Second)), 12},
	} {
		got := testing.AllocsPerRun(1000, func() {
			if _, err := backstay.Do(ctx, c.p, fn); err != nil {
				t.Fatal(err)
			}
		})
		t.Logf("%s: %v allocations", c.name, got)
		if got > c.most {
			t.Errorf("%s: got %v allocations a call, want at most %v", c.name, got, c.most)
		}
	}
}

// A context's observer sees the call made with it and not the calls inside that one.
func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, report := backstay.WithReport(context.Background())
		p := backstay.Chain(retry.New(retry.Config{Attempts: 2, Delay: time.Second, Jitter: retry.None}))
		_ = backstay.Run(ctx, p, func(ctx context.Context) error {
			return backstay.Run(ctx, nil, func(context.Context) error { time.Sleep(time.Minute); return errBoom })
		})
		info := report.Info()
		if info.Attempts != 2 || info.Waited != time.Second || info.Elapsed != 2*time.Minute+time.Second || len(info.Errors) != 2 || info.Stopped == "" {
			t.Errorf("report: got %+v, want 2 attempts, 1s waited, 2m1s in all, two errors and why it stopped", info)
		}
	})
}

// Watching must not break a call.
func TestObserverPanics(t *testing.T) {
	var seen int
	p := backstay.Chain().Observe(backstay.ObserverFunc(func(context.Context, backstay.Event) { panic("observer") })).
		Observe(backstay.ObserverFunc(func(context.Context, backstay.Event) { seen++ }))
	if err := backstay.Run(context.Background(), p, func(context.Context) error { return nil }); err != nil || seen != 2 {
		t.Errorf("got %v, and the second observer was told %d times; want nil, 2", err, seen)
	}
}

func TestRejectedText(t *testing.T) {
	for _, c := range []struct {
		r    backstay.Rejected
		want string
	}{
		{backstay.Rejected{Policy: "breaker", Name: "inventory", Reason: "open", RetryAfter: 4231 * time.Millisecond}, `breaker "inventory": open, retry in 4.2s`},
		{backstay.Rejected{Policy: "bulkhead", Reason: "full"}, `bulkhead: full`},
		{backstay.Rejected{Policy: "breaker", Reason: "open", RetryAfter: time.Nanosecond}, `breaker: open, retry in 1µs`},
	} {
		if got := c.r.Error(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
