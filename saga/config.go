package saga

import (
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/internal/configjson"
	"golang.org/x/time/rate"
)

// Config holds an engine's numbers. The zero Config works. It is an Option.
type Config struct {
	// Lease is how long the node's lease lasts without renewal: how long its instances
	// wait before another node takes them when it dies. Renewed every third of it. Default 30 s;
	// at least 100 ms.
	Lease time.Duration `json:"lease,omitempty"`
	// Poll is how often due instances are looked for, give or take a quarter. Starts and
	// signals through the engine do not wait for it. Default 1 s; at least 1 ms.
	Poll time.Duration `json:"poll,omitempty"`
	// InFlight limits the instances that this engine holds at a time. Default 1,000.
	InFlight int `json:"inFlight,omitempty"`
	// Grace is how long bodies may still run after Run's context ends, before theirs does too.
	// Default 10 s; negative: none.
	Grace time.Duration `json:"grace,omitempty"`
	// Hold is the longest wait (backoff, delay) that an instance spends in this engine; for a
	// longer one it is released and claimed again when due. Default 2 s; negative: none is held.
	Hold time.Duration `json:"hold,omitempty"`
	// Batch limits the checkpoints written in one transaction. Default 256.
	Batch int `json:"batch,omitempty"`
	// Writers is the number of goroutines that write checkpoints: while one waits for its commit, the next
	// collects. Default 2; SQLite, which has one writer, is served best by 1.
	Writers int `json:"writers,omitempty"`
	// Observer is told of state changes and attempts: events with Policy "saga", Name the definition, Call the
	// step's path, Key the instance. nil: nobody.
	Observer backstay.Observer `json:"-"`
}

// MarshalJSON writes durations as strings and leaves the observer out.
func (c Config) MarshalJSON() ([]byte, error) { return configjson.Marshal(c) }

// UnmarshalJSON reads what MarshalJSON writes and refuses unknown fields.
func (c *Config) UnmarshalJSON(data []byte) error { return configjson.Unmarshal(data, c) }

// Validate joins everything that is wrong with the numbers.
func (c Config) Validate() error {
	var faults []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf("saga: Config."+format, args...))
		}
	}
	want(c.Lease == 0 || c.Lease >= 100*time.Millisecond, "Lease %v is below 100ms", c.Lease)
	want(c.Poll == 0 || c.Poll >= time.Millisecond, "Poll %v is below 1ms", c.Poll)
	want(c.InFlight >= 0, "InFlight %d is negative", c.InFlight)
	want(c.Batch >= 0, "Batch %d is negative", c.Batch)
	want(c.Writers >= 0, "Writers %d is negative", c.Writers)
	return errors.Join(faults...)
}

func (c Config) withDefaults() Config {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
		*d = max(*d, 0)
	}
	set(&c.Lease, 30*time.Second)
	set(&c.Poll, time.Second)
	set(&c.Grace, 10*time.Second)
	set(&c.Hold, 2*time.Second)
	if c.InFlight == 0 {
		c.InFlight = 1000
	}
	if c.Batch == 0 {
		c.Batch = 256
	}
	if c.Writers == 0 {
		c.Writers = 2
	}
	return c
}

// Option says what an engine runs and how: Register, Limit, AtMost, a Config.
type Option interface{ apply(*Engine) }

type optionFunc func(*Engine)

func (f optionFunc) apply(e *Engine) { f(e) }

func (c Config) apply(e *Engine) { e.cfg = c }

// Register lets the engine run these definitions; several versions of one name may stand side by side.
func Register(defs ...Registrable) Option {
	return optionFunc(func(e *Engine) {
		for _, r := range defs {
			d := r.definition()
			if old := e.defs[d.ref]; old != nil && old != d {
				e.faults = append(e.faults, fmt.Errorf("%w: %s %d registered twice", ErrDefinition, d.ref.Def, d.ref.Ver))
			}
			if e.defs[d.ref] == nil {
				e.refs = append(e.refs, d.ref)
			}
			e.defs[d.ref] = d
		}
	})
}

// Limit lets attempts of the steps of this name (in any definition; of one definition as "place-order/charge") begin
// no faster than l allows, on this engine. Waiting for l is not part of the attempt.
func Limit(step string, l *rate.Limiter) Option {
	return optionFunc(func(e *Engine) { e.gate(step).rate = l })
}

// AtMost lets at most n attempts of the steps of this name, as in Limit, run at a time on this engine.
func AtMost(step string, n int) Option {
	return optionFunc(func(e *Engine) {
		if n < 1 {
			e.faults = append(e.faults, fmt.Errorf("saga: AtMost(%q, %d) is below 1", step, n))
			return
		}
		e.gate(step).slots = make(chan struct{}, n)
	})
}

// Around runs every body, undos and choices included, through p, outside the step's own policy. The Call's
// Name is definition/path; FromContext finds the body's Ctx.
func Around(p backstay.Policy) Option {
	return optionFunc(func(e *Engine) { e.around = backstay.Chain(p) })
}

// gate is what attempts of a step pass before they begin.
type gate struct {
	rate  *rate.Limiter
	slots chan struct{}
}

func (e *Engine) gate(step string) *gate {
	g := e.gates[step]
	if g == nil {
		g = &gate{}
		e.gates[step] = g
	}
	return g
}
