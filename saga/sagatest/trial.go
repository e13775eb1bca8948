package sagatest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagamem"
)

// attempt is one run of a trial.
type attempt[I any] struct {
	t     *testing.T
	trial Trial[I]
	def   *saga.Definition[I]
	check func(saga.State) error
	store *sagamem.Store
	first *process
	opts  []saga.Option
	id    string
}

func (trial Trial[I]) run(t *testing.T, plan func([]saga.Checkpoint) fault, f around) {
	t.Helper()
	r := trial.begin(t, plan, f)
	r.judge(r.rest())
}

// begin starts an instance on a first process, whose writes plan may spoil.
func (trial Trial[I]) begin(t *testing.T, plan func([]saga.Checkpoint) fault, f around) *attempt[I] {
	t.Helper()
	r := &attempt[I]{t: t, trial: trial, store: sagamem.New()}
	r.def, r.check = trial.New()
	watched := around(func(c *saga.Ctx, body func() backstay.Outcome) backstay.Outcome {
		r.intended(c)
		if f == nil {
			return body()
		}
		return f(c, body)
	})
	r.opts = []saga.Option{saga.Register(r.def), saga.Config{Grace: -1, Poll: 5 * time.Minute, Lease: 10 * time.Minute}, watched.option()}
	h, err := r.def.Start(t.Context(), r.store, "trial", trial.Input)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	r.id = h.ID
	r.first = spawn(t.Context(), r.store, plan, r.opts...)
	return r
}

// intended checks that the log says of a body that begins that it may have begun.
func (r *attempt[I]) intended(c *saga.Ctx) {
	log, err := r.store.History(context.WithoutCancel(c), c.ID(), 0, 1_000_000)
	if err != nil {
		r.t.Errorf("History: %v", err)
	}
	for i := range log {
		for _, s := range log[i].Next {
			if path, op, attempt, err := saga.ParseIntent(s); err == nil && path == c.Step() && op == c.Op() && attempt == c.Attempt() {
				return
			}
		}
	}
	r.t.Errorf("%s of %q began, attempt %d, before the log says that it may have", c.Op(), c.Step(), c.Attempt())
}

// rest waits until the instance is at rest. When the first process dies, a second takes its place.
func (r *attempt[I]) rest() saga.State {
	r.t.Helper()
	over, done := make(chan struct{}), make(chan error)
	go func() {
		select {
		case <-over:
			done <- r.first.end()
		case <-r.first.conn.died:
			<-r.first.done
			second := spawn(r.t.Context(), r.store, nil, r.opts...)
			<-over
			done <- second.end()
		case <-r.first.conn.cold:
			second := spawn(r.t.Context(), r.store, nil, r.opts...)
			<-over
			r.first.conn.resume()
			r.first.end()
			if r.first.conn.wrote > 0 {
				r.t.Errorf("the zombie wrote %d checkpoints", r.first.conn.wrote)
			}
			done <- second.end()
		}
	}()
	outside := saga.New(r.store, r.opts...) // sends and watches, and does not run
	if r.trial.Drive != nil {
		if err := r.trial.Drive(r.t.Context(), outside, r.id); err != nil && !errors.Is(err, saga.ErrTerminal) {
			r.t.Errorf("Drive: %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 365*24*time.Hour) // virtual
	defer cancel()
	err := outside.Wait(ctx, r.id)
	var sagaErr *saga.Error
	if err != nil && !errors.As(err, &sagaErr) {
		r.t.Errorf("Wait: %v", err)
	}
	close(over)
	if err := <-done; err != nil {
		r.t.Errorf("Run: %v", err)
	}
	in, err := r.store.Get(r.t.Context(), r.id)
	if err != nil {
		r.t.Fatalf("Get: %v", err)
	}
	return in.State
}

// judge checks the log and the world.
func (r *attempt[I]) judge(state saga.State) {
	r.t.Helper()
	err := Invariants(r.t.Context(), r.store, r.def.Shape(), r.id)
	if err == nil {
		err = r.check(state)
	}
	if err == nil {
		return
	}
	log, _ := r.store.History(r.t.Context(), r.id, 0, 1000)
	for _, e := range log {
		r.t.Logf("%3d epoch %d %-11s %s %s #%d next %v %s", e.Seq, e.Epoch, e.Event, e.Op, e.Step, e.Attempt, e.Next, e.Verb)
	}
	r.t.Errorf("at rest as %s: %v", state, err)
}

// steps lists the static paths of all steps.
func steps(nodes []saga.ShapeNode) []string { return stepsEnding(nodes, "") }

func stepsEnding(nodes []saga.ShapeNode, ends string) []string {
	var all []string
	for _, n := range nodes {
		if n.Kind == "step" && (ends == "" || n.Ends == ends) {
			all = append(all, n.Path)
		}
		for _, b := range n.Branches {
			all = append(all, stepsEnding(b.Nodes, ends)...)
		}
	}
	return all
}
