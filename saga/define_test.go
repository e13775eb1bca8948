package saga_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/backstay-go/backstay/saga"
)

func noop(*saga.Ctx, int) (int, error)               { return 1, nil }
func nothing(*saga.Ctx, int, saga.Result[int]) error { return nil }

// TestDefineRefuses: each illegal graph is refused with an error that names the step.
func TestDefineRefuses(t *testing.T) {
	other := saga.Must(saga.Define("other", 1, func(b *saga.Builder[int]) {
		saga.Step(b, "p", noop).Pivot()
	}))
	var foreign *saga.StepRef[int]
	saga.Must(saga.Define("foreign", 1, func(b *saga.Builder[int]) { foreign = saga.Step(b, "f", noop).Compensate(nothing) }))
	ok := func(b *saga.Builder[int], name string) { saga.Step(b, name, noop).Compensate(nothing) }
	yes := func(*saga.Ctx, int) (bool, error) { return true, nil }
	list := func(*saga.Ctx, int) ([]int, error) { return nil, nil }
	for _, c := range []struct {
		name, want string
		build      func(b *saga.Builder[int])
	}{
		{"empty", "no steps", func(*saga.Builder[int]) {}},
		{"no kind", `step "a": no kind`, func(b *saga.Builder[int]) { saga.Step(b, "a", noop) }},
		{"two kinds", `step "a": pivot after compensate`, func(b *saga.Builder[int]) {
			d := saga.Step(b, "a", noop)
			d.Compensate(nothing)
			d.Pivot()
		}},
		{"no reason", `step "a": NothingToUndo without a reason`, func(b *saga.Builder[int]) { saga.Step(b, "a", noop).NothingToUndo("") }},
		{"duplicate", `step "a": duplicate name`, func(b *saga.Builder[int]) { ok(b, "a"); ok(b, "a") }},
		{"bad name", `step "a/b": the name`, func(b *saga.Builder[int]) { ok(b, "a/b") }},
		{"compensatable after pivot", `step "b": a compensatable step after the pivot`, func(b *saga.Builder[int]) {
			saga.Step(b, "a", noop).Pivot()
			ok(b, "b")
		}},
		{"retriable before pivot", `step "a": a retriable step that can be reached before the pivot`, func(b *saga.Builder[int]) {
			saga.Step(b, "a", noop).Retriable()
			saga.Step(b, "p", noop).Pivot()
		}},
		{"two pivots", `step "q": a second pivot on one path`, func(b *saga.Builder[int]) {
			saga.Step(b, "p", noop).Pivot()
			saga.Step(b, "q", noop).Pivot()
		}},
		{"pivot in a branch of If, then undo", `step "c": a compensatable step after the pivot`, func(b *saga.Builder[int]) {
			b.If("if", yes, func(b *saga.Builder[int]) { saga.Step(b, "p", noop).Pivot() }, nil)
			ok(b, "c")
		}},
		{"pivot in one branch, then retriable", `step "r": a retriable step`, func(b *saga.Builder[int]) {
			b.If("if", yes, func(b *saga.Builder[int]) { saga.Step(b, "p", noop).Pivot() }, nil)
			saga.Step(b, "r", noop).Retriable()
		}},
		{"pivot in Parallel", `step "both.x/p": a pivot inside parallel "both"`, func(b *saga.Builder[int]) {
			b.Parallel("both", func(p *saga.Branches[int]) {
				p.Branch("x", func(b *saga.Builder[int]) { saga.Step(b, "p", noop).Pivot() })
				p.Branch("y", func(b *saga.Builder[int]) { ok(b, "a") })
			})
		}},
		{"pivot in Each", `step "all[]/p": a pivot inside each "all"`, func(b *saga.Builder[int]) {
			saga.Each(b, "all", list, func(b *saga.Builder[int]) { saga.Step(b, "p", noop).Pivot() })
		}},
		{"pivot in Child", `step "sub/p": a pivot inside child "sub"`, func(b *saga.Builder[int]) { saga.Child(b, "sub", other, noop) }},
		{"one branch", `step "both": Parallel with fewer than two branches`, func(b *saga.Builder[int]) {
			b.Parallel("both", func(p *saga.Branches[int]) { p.Branch("x", func(b *saga.Builder[int]) { ok(b, "a") }) })
		}},
		{"Needs of a branch", `step "a": Needs "if.then/in", which is not certain`, func(b *saga.Builder[int]) {
			var in *saga.StepRef[int]
			b.If("if", yes, func(b *saga.Builder[int]) { in = saga.Step(b, "in", noop).Compensate(nothing) }, nil)
			saga.Step(b, "a", noop, saga.Needs(in)).Compensate(nothing)
		}},
		{"Needs of a sibling branch", `step "both.y/a": Needs "both.x/in", which is not certain`, func(b *saga.Builder[int]) {
			var in *saga.StepRef[int]
			b.Parallel("both", func(p *saga.Branches[int]) {
				p.Branch("x", func(b *saga.Builder[int]) { in = saga.Step(b, "in", noop).Compensate(nothing) })
				p.Branch("y", func(b *saga.Builder[int]) { saga.Step(b, "a", noop, saga.Needs(in)).Compensate(nothing) })
			})
		}},
		{"Needs of another definition", "another definition", func(b *saga.Builder[int]) { saga.Step(b, "a", noop, saga.Needs(foreign)).Compensate(nothing) }},
		{"unlimited attempts before the pivot", `step "a": attempts without limit`, func(b *saga.Builder[int]) {
			saga.Step(b, "a", noop, saga.Attempts(-1)).Compensate(nothing)
		}},
		{"undo without limit", `step "a": an undo without a limit`, func(b *saga.Builder[int]) {
			saga.Step(b, "a", noop).Compensate(nothing, saga.Attempts(-1))
		}},
		{"bad options", `step "a": Timeout(0s) is below 1ms`, func(b *saga.Builder[int]) {
			saga.Step(b, "a", noop, saga.Timeout(0), saga.Attempts(0), saga.Backoff(2, 1), saga.KeyTTL(0)).Compensate(nothing)
		}},
		{"go on without a limit", `step "w": OrGoOn without Within`, func(b *saga.Builder[int]) { saga.Wait[int](b, "w", "s", saga.OrGoOn()); ok(b, "a") }},
		{"delay of nothing", `step "d": Delay(0s)`, func(b *saga.Builder[int]) { b.Delay("d", 0); ok(b, "a") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := saga.Define("d", 1, c.build)
			if !errors.Is(err, saga.ErrDefinition) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want ErrDefinition with %q", err, c.want)
			}
		})
	}
	if _, err := saga.Define("bad name!", 0, func(b *saga.Builder[int]) { ok(b, "a") }); err == nil ||
		!strings.Contains(err.Error(), "version 0") || !strings.Contains(err.Error(), "bad name!") {
		t.Errorf("got error %v, want both faults", err)
	}
}

// trip has every kind of node that is legal together.
func trip(timeout time.Duration) *saga.Definition[int] {
	return saga.Must(saga.Define("trip", 2, func(b *saga.Builder[int]) {
		hold := saga.Step(b, "hold", noop, saga.Timeout(timeout)).Compensate(nothing)
		b.Parallel("both", func(p *saga.Branches[int]) {
			p.Branch("car", func(b *saga.Builder[int]) { saga.Step(b, "car", noop).Compensate(nothing) })
			p.Branch("hotel", func(b *saga.Builder[int]) {
				saga.Step(b, "room", noop, saga.Needs(hold)).NothingToUndo("a hold that lapses")
			})
		})
		b.If("big", func(*saga.Ctx, int) (bool, error) { return true, nil }, func(b *saga.Builder[int]) {
			saga.Wait[string](b, "approval", "approve")
		}, nil)
		saga.Each(b, "legs", func(*saga.Ctx, int) ([]int, error) { return nil, nil }, func(b *saga.Builder[int]) {
			saga.Step(b, "seat", noop).Compensate(nothing)
		})
		b.Delay("cool-off", time.Hour)
		saga.Step(b, "pay", noop).Pivot()
		saga.Step(b, "mail", noop).Retriable()
	}))
}

// TestShape: the shape survives JSON, and its hash changes with the graph and not with policies.
func TestShape(t *testing.T) {
	d := trip(time.Second)
	data, err := json.Marshal(d.Shape())
	if err != nil {
		t.Fatal(err)
	}
	var back saga.Shape
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if back.Hash() != d.Shape().Hash() {
		t.Error("the hash changed on the way through JSON")
	}
	if trip(time.Minute).Shape().Hash() != d.Shape().Hash() {
		t.Error("the hash changed with a timeout")
	}
	back.Nodes[0].Ends = "pivot"
	if back.Hash() == d.Shape().Hash() {
		t.Error("the hash did not change with the graph")
	}
	if w := d.Warnings(); len(w) != 1 || !strings.Contains(w[0], `"both.hotel/room"`) {
		t.Errorf("got warnings %q, want one for the step without a way back", w)
	}
}
