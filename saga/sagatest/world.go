package sagatest

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/guard"
)

// World stands for the participants of a saga: it counts effects by idempotency key, and behaves as
// a participant behind saga/guard does. An action takes effect once and is answered from memory after that; an undo
// takes it back once; an undo that comes first makes a late action fail with ErrPoisoned. The zero World is empty; it
// is safe for concurrent use.
type World struct {
	mu      sync.Mutex
	effects map[string]*effect // by action key
	order   []string           // "+key", "-key", as they took effect
}

type effect struct {
	acted, undone int
	poisoned      bool
	value         string
}

// ErrPoisoned is a late action's error: its undo has come before it.
var ErrPoisoned = guard.ErrPoisoned

// Act is the effect of the step's action; it returns the same value for every repetition.
func (w *World) Act(c *saga.Ctx) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.effect(c.ActionKey())
	switch {
	case e.poisoned:
		return "", ErrPoisoned
	case e.acted == 0:
		e.acted++
		e.value = fmt.Sprintf("value-%d", len(w.order))
		w.order = append(w.order, "+"+c.Step())
	}
	return e.value, nil
}

// Undo takes the effect back.
func (w *World) Undo(c *saga.Ctx) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.effect(c.ActionKey())
	switch {
	case e.acted == 0:
		e.poisoned = true
	case e.undone == 0:
		e.undone++
		w.order = append(w.order, "-"+c.Step())
	}
	return nil
}

func (w *World) effect(key string) *effect {
	if w.effects == nil {
		w.effects = map[string]*effect{}
	}
	e := w.effects[key]
	if e == nil {
		e = &effect{}
		w.effects[key] = e
	}
	return e
}

// Order lists what took effect, in order: "+charge" for an action, "-charge" for its undo.
func (w *World) Order() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.order)
}

// Net lists the paths of steps whose effect stands, sorted.
func (w *World) Net() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var net []string
	for key, e := range w.effects {
		if e.acted > e.undone {
			_, path, _ := strings.Cut(key, "/")
			net = append(net, path)
		}
	}
	slices.Sort(net)
	return net
}
