package sagatest_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagatest"
)

type order struct {
	Items []string
	Fast  bool
}

// everything is a definition with every kind of node, and the check of its world.
func everything() (*saga.Definition[order], func(saga.State) error) {
	w := &sagatest.World{}
	d := saga.Must(saga.Define("everything", 1, func(b *saga.Builder[order]) {
		hold := step(b, w, "reserve").Compensate(undo[order](w))
		b.If("fast", func(_ *saga.Ctx, o order) (bool, error) { return o.Fast, nil },
			func(b *saga.Builder[order]) { step(b, w, "courier").Compensate(undo[order](w)) },
			func(b *saga.Builder[order]) { step(b, w, "post").Compensate(undo[order](w)) })
		b.Parallel("both", func(p *saga.Branches[order]) {
			p.Branch("left", func(b *saga.Builder[order]) {
				step(b, w, "l1").Compensate(undo[order](w))
				step(b, w, "l2").Compensate(undo[order](w))
			})
			p.Branch("right", func(b *saga.Builder[order]) {
				step(b, w, "r1").Compensate(undo[order](w))
			})
		})
		saga.Each(b, "ship", func(_ *saga.Ctx, o order) ([]string, error) { return o.Items, nil }, func(b *saga.Builder[string]) {
			pick := step(b, w, "pick").Compensate(undo[string](w))
			saga.Step(b, "pack", func(c *saga.Ctx, item string) (string, error) {
				if pick.Get(c) == "" || hold.Get(c) == "" {
					return "", saga.Fail(fmt.Errorf("no result of earlier steps"))
				}
				return w.Act(c)
			}, saga.Needs(pick, hold)).Compensate(undo[string](w))
		})
		saga.Child(b, "bill", saga.Must(saga.Define("bill", 1, func(b *saga.Builder[int]) {
			step(b, w, "invoice").Compensate(undo[int](w))
		})), func(_ *saga.Ctx, o order) (int, error) { return len(o.Items), nil })
		b.Delay("cool-off", time.Hour)
		saga.Wait[string](b, "approval", "approve", saga.Within(24*time.Hour))
		step(b, w, "charge").Pivot()
		step(b, w, "confirm").Retriable()
	}))
	all := []string{
		"bill/invoice", "both.left/l1", "both.left/l2", "both.right/r1", "charge", "confirm", "fast.then/courier", "reserve",
		"ship[0]/pack", "ship[0]/pick", "ship[1]/pack", "ship[1]/pick",
	}
	return d, func(s saga.State) error {
		switch net := w.Net(); {
		case s == saga.Completed && !slices.Equal(net, all):
			return fmt.Errorf("got effects %v, want all", net)
		case s == saga.Compensated && !slices.Equal(without(net, "charge"), nil):
			return fmt.Errorf("got effects %v left, want none", net)
		case !s.Terminal() && !s.Parked():
			return fmt.Errorf("it is not at rest")
		}
		return nil
	}
}

// without leaves out the pivot: one that says no after its effect has lied.
func without(all []string, name string) []string {
	return slices.DeleteFunc(all, func(s string) bool { return s == name })
}

func step[I any](b *saga.Builder[I], w *sagatest.World, name string) *saga.Draft[I, string] {
	return saga.Step(b, name, func(c *saga.Ctx, _ I) (string, error) { return w.Act(c) })
}

func undo[I any](w *sagatest.World) func(*saga.Ctx, I, saga.Result[string]) error {
	return func(c *saga.Ctx, _ I, res saga.Result[string]) error {
		if v, ok := res.Value(); ok && v == "" {
			return saga.Fail(fmt.Errorf("a known result without a value"))
		}
		return w.Undo(c)
	}
}

func TestRun(t *testing.T) {
	sagatest.Run(t, sagatest.Trial[order]{
		New: everything, Input: order{Items: []string{"a", "b"}, Fast: true},
		Drive: func(ctx context.Context, e *saga.Engine, id string) error {
			return e.Signal(ctx, id, "approve", "yes", "1")
		},
	})
}
