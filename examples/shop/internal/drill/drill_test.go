package drill_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/examples/shop/internal/drill"
	"github.com/backstay-go/backstay/examples/shop/internal/fault"
)

// plant writes down what is done to it, and knows what is still broken.
type plant struct {
	did    []string
	broken map[string]bool
}

func (p *plant) note(what string, broken bool) error {
	p.did = append(p.did, fmt.Sprint(what, " ", broken))
	if broken {
		p.broken[what] = true
	} else {
		delete(p.broken, what)
	}
	return nil
}
func (p *plant) Faults(_ context.Context, service string, s fault.Set) error {
	return p.note(service, s.Any())
}
func (p *plant) Broker(on bool) error                    { return p.note("broker", !on) }
func (p *plant) Relay(_ context.Context, on bool) error  { return p.note("relay", !on) }
func (p *plant) Poison(_ context.Context, on bool) error { return p.note("poison", on) }
func (p *plant) Kill(service string) error               { p.did = append(p.did, "kill "+service); return nil }
func newPlant() *plant                                   { return &plant{broken: map[string]bool{}} }
func services() []string                                 { return []string{"inventory", "payments", "orders"} }
func quietly(string, ...any)                             {}
func run(t *testing.T, p *plant, kill bool, seed uint64) int {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	r := drill.Random{Plant: p, Services: services(), Kill: kill, Log: quietly}
	return r.Run(ctx, seed)
}

// The schedule follows from the seed, leaves nothing broken, and kills each service in turn.
func TestRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, other := newPlant(), newPlant(), newPlant()
		n := run(t, a, true, 7)
		run(t, b, true, 7)
		run(t, other, true, 8)
		if !slices.Equal(a.did, b.did) {
			t.Errorf("got %q and %q of one seed", a.did, b.did)
		}
		if slices.Equal(a.did, other.did) {
			t.Error("another seed has the same schedule")
		}
		if len(a.broken) > 0 {
			t.Errorf("still broken: %v", a.broken)
		}
		if n < 60 {
			t.Errorf("got %d faults in ten minutes, want more", n)
		}
		var kills []string
		for _, d := range a.did {
			if s, ok := strings.CutPrefix(d, "kill "); ok {
				kills = append(kills, s)
			}
		}
		if len(kills) < 6 || !slices.Equal(kills[:6], append(services(), services()...)) {
			t.Errorf("got kills of %q, want each service in turn", kills)
		}
	})
}

// Without processes nothing is killed.
func TestNoKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant()
		run(t, p, false, 7)
		for _, d := range p.did {
			if strings.HasPrefix(d, "kill ") {
				t.Fatalf("got %q", d)
			}
		}
	})
}

// Each preset breaks something, and mends it.
func TestPresets(t *testing.T) {
	for _, preset := range drill.Presets() {
		p := newPlant()
		if err := preset.Do(t.Context(), p, true); err != nil {
			t.Errorf("%s: %v", preset.Name, err)
		}
		if len(p.did) != 1 || len(p.broken) == 0 && !preset.Killer {
			t.Errorf("%s: did %q, want one thing broken", preset.Name, p.did)
		}
		if err := preset.Do(t.Context(), p, false); err != nil || len(p.broken) > 0 {
			t.Errorf("%s off: got %v, still broken %v", preset.Name, err, p.broken)
		}
		if preset.Title == "" || preset.Watch == "" {
			t.Errorf("%s says nothing", preset.Name)
		}
	}
	if _, ok := drill.Find("no such"); ok {
		t.Error("found a preset that there is not")
	}
}
