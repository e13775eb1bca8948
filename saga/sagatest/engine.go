package sagatest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/saga"
)

// Kit is a store to run the engine's acceptance cases on. Only Open is required; cases that need more are skipped
// with a word.
type Kit struct {
	// Open returns an empty store and cleans up through t.
	Open func(t *testing.T) saga.Store
	// Virtual runs every case in a testing/synctest bubble, with hours of virtual time. Without it the
	// cases wait for real, with durations cut down to 1/2000.
	Virtual bool
	// Begin begins a transaction of the business database: a Starter bound to it, and its two ends.
	Begin func(t *testing.T, s saga.Store) (to saga.Starter, commit, rollback func() error)
	// Write is the effect of a transactional step: it sets key to value through the handle of a saga.Tx. Value reads what
	// is committed; "" for nothing.
	Write func(ctx context.Context, handle any, key, value string) error
	Value func(t *testing.T, s saga.Store, key string) string
	// TxKind is the kind of those transactions: see saga.BindTx.
	TxKind string
	// Dump returns everything that the store's tables hold, for the case that looks for plaintext.
	Dump func(t *testing.T, s saga.Store) []byte
}

// TestEngine runs the acceptance cases of sagas on a store: what users rely on, from the order of undos to what an operator
// may do. Together with TestStore it is what a new store has to pass.
func TestEngine(t *testing.T, kit Kit) {
	for _, c := range slices.Concat(undoCases, pivotCases, crashCases, peopleCases, keepCases) {
		t.Run(c.name, func(t *testing.T) {
			if !kit.Virtual {
				c.run(&lab{T: t, kit: kit, store: kit.Open(t)})
				return
			}
			synctest.Test(t, func(t *testing.T) { c.run(&lab{T: t, kit: kit, store: kit.Open(t)}) })
		})
	}
}

type engineCase struct {
	name string
	run  func(*lab)
}

// lab is one case at work.
type lab struct {
	*testing.T
	kit   Kit
	store saga.Store
	w     World

	failLast atomic.Bool // of txSteps: the last step says no
}

// d is a duration of the case, as long as the kit's time allows.
func (l *lab) d(d time.Duration) time.Duration {
	if l.kit.Virtual {
		return d
	}
	return max(d/2000, 20*time.Millisecond)
}

// quick is the engine's timing for these cases.
func (l *lab) quick() saga.Config {
	if l.kit.Virtual {
		return saga.Config{Lease: 30 * time.Second, Poll: time.Second}
	}
	// Long enough that a machine at its limit does not lose leases by starving, which is legal and not what a case is about.
	return saga.Config{Lease: 1500 * time.Millisecond, Poll: 20 * time.Millisecond}
}

// run starts an engine; over ends it.
func (l *lab) run(opts ...saga.Option) *process {
	l.Helper()
	return spawn(l.Context(), l.store, nil, append([]saga.Option{l.quick()}, opts...)...)
}

// over ends processes and checks their errors.
func (l *lab) over(ps ...*process) {
	l.Helper()
	for _, p := range ps {
		if err := p.end(); err != nil {
			l.Errorf("Run: %v", err)
		}
	}
}

func begin[I any](l *lab, d *saga.Definition[I], to saga.Starter, key string, in I, opts ...saga.StartOption) string {
	l.Helper()
	h, err := d.Start(l.Context(), to, key, in, opts...)
	if err != nil {
		l.Fatalf("Start: %v", err)
	}
	return h.ID
}

// wait waits for the instance to come to rest.
func (l *lab) wait(p *process, id string) error {
	l.Helper()
	ctx, cancel := context.WithTimeout(l.Context(), l.limit())
	defer cancel()
	err := p.Wait(ctx, id)
	var e *saga.Error
	if err != nil && !errors.As(err, &e) {
		l.Fatalf("Wait: %v", err)
	}
	return err
}

func (l *lab) limit() time.Duration {
	if l.kit.Virtual {
		return 1000 * time.Hour
	}
	return 30 * time.Second
}

func (l *lab) reader() saga.Reader { return l.store.(saga.Reader) }

// in waits until the instance is in state s.
func (l *lab) in(id string, s saga.State) saga.Instance {
	l.Helper()
	var got saga.Instance
	l.until(fmt.Sprintf("instance is %s", s), func() bool {
		var err error
		if got, err = l.reader().Get(l.Context(), id); err != nil {
			l.Fatalf("Get: %v", err)
		}
		return got.State == s
	})
	return got
}

// until polls: on virtual time it sleeps, which is exact there.
func (l *lab) until(what string, ok func() bool) {
	l.Helper()
	if !l.kit.Virtual {
		poll(l.T, what, ok)
		return
	}
	for range 100_000 {
		synctest.Wait()
		if ok() {
			return
		}
		time.Sleep(100 * time.Millisecond) // virtual
	}
	l.Fatalf("never: %s", what)
}

// state checks where an instance rests, and its log.
func (l *lab) state(d interface{ Shape() saga.Shape }, id string, want saga.State) {
	l.Helper()
	got, err := l.reader().Get(l.Context(), id)
	if err != nil || got.State != want {
		l.dump(id)
		l.Fatalf("got state %s (%v), want %s", got.State, err, want)
	}
	if err := Invariants(l.Context(), l.reader(), d.Shape(), id); err != nil {
		l.dump(id)
		l.Fatal(err)
	}
}

func (l *lab) dump(id string) {
	log, _ := l.reader().History(l.Context(), id, 0, 1000)
	for _, e := range log {
		l.Logf("%3d epoch %d %-11s %-10s %s #%d next %v %s %q", e.Seq, e.Epoch, e.Event, e.Op, e.Step, e.Attempt, e.Next, e.Verb, e.Note)
	}
}

func (l *lab) history(id string) []saga.Entry {
	l.Helper()
	log, err := l.reader().History(l.Context(), id, 0, 1000)
	if err != nil {
		l.Fatalf("History: %v", err)
	}
	return log
}

// events counts the entries that match.
func (l *lab) events(id string, match func(saga.Entry) bool) int {
	n := 0
	for _, e := range l.history(id) {
		if match(e) {
			n++
		}
	}
	return n
}

func (l *lab) order(want string) {
	l.Helper()
	if got := strings.Join(l.w.Order(), " "); got != want {
		l.Fatalf("got effects %q, want %q", got, want)
	}
}

func (l *lab) is(got, want error) {
	l.Helper()
	if !errors.Is(got, want) || want == nil && got != nil {
		l.Fatalf("got error %v, want %v", got, want)
	}
}

// act adds a compensatable step that takes effect in the world and then asks f, which may be nil, how it ends.
func act[I any](l *lab, b *saga.Builder[I], name string, f func(c *saga.Ctx) error, opts ...saga.StepOption) *saga.StepRef[string] {
	return draft(l, b, name, f, opts...).Compensate(func(c *saga.Ctx, _ I, _ saga.Result[string]) error { return l.w.Undo(c) })
}

func draft[I any](l *lab, b *saga.Builder[I], name string, f func(c *saga.Ctx) error, opts ...saga.StepOption) *saga.Draft[I, string] {
	return saga.Step(b, name, func(c *saga.Ctx, _ I) (string, error) {
		v, err := l.w.Act(c)
		if err == nil && f != nil {
			err = f(c)
		}
		return v, err
	}, opts...)
}

var errNo = errors.New("the card was declined")

func define[I any](name string, ver int, build func(b *saga.Builder[I]), opts ...saga.DefineOption) *saga.Definition[I] {
	return saga.Must(saga.Define(name, ver, build, opts...))
}
