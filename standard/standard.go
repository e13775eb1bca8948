// Package standard is the default pipeline: the order and the numbers in one place. httpclient and grpcclient use it when they are given no
// policies.
//
// Outermost first:
//
//	total timeout     30 s, to the headers
//	retry             3 attempts, full jitter 100 ms × 2 ≤ 5 s, server hints ≤ 30 s
//	  budget per key  10 % of the calls of the last 10 s, start 2, cap 10, one more per 10 s
//	limit per key     adaptive: as many at once as the server bears, 10 to 1,000, from 1,000
//	breaker per key   50 % of ≥ 20 calls in 30 s, or 5 in a row over ≥ 1 s; open at most 1 s; a second between probes; ramp 0.3 s
//	attempt timeout   10 s, to the headers
//
// A stage is changed by its own Config, and switched off as that says: Retry.Attempts 1, Breaker.Mode breaker.Disabled, Limit.Shadow,
// a negative Total or Attempt. Limit.Min equal to Limit.Max is a fixed bulkhead. The reasons for the numbers are in docs/decisions/005.
package standard

import (
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/adaptive"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/budget"
	"github.com/backstay-go/backstay/internal/configjson"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

// Config sets the stages. The zero value works. Fields of a stage that are zero have the defaults of that stage's
// package, but for those listed in the package documentation of this one.
type Config struct {
	// Total bounds the whole call, waits included. Default 30s, as dotnet/extensions' standard handler; negative: none.
	Total time.Duration `json:"total,omitempty"`
	// Attempt bounds one attempt. Default 10s, as there; negative: none. Shorter than Total.
	Attempt time.Duration `json:"attempt,omitempty"`
	// MinAttempt refuses a call when less than this is left until its deadline. Default 0: none.
	MinAttempt time.Duration `json:"minAttempt,omitempty"`
	// Retry sets the retry. Its budget comes from Budget, unless it has one of its own; its MaxDelay is a sixth of Total by default, at most 5s.
	Retry retry.Config `json:"retry,omitzero"`
	// Budget sets the retry budget of each key.
	Budget budget.Config `json:"budget,omitzero"`
	// Limit sets the adaptive limit of each key. Its Initial is its Max by default, so that a burst at start is not refused before anything is known of
	// the server; its Min is 10, so that a client with few calls at once is never refused; its SlowCall is half of Attempt, its Name the key.
	Limit adaptive.Config `json:"limit,omitzero"`
	// Breaker sets the breaker of each key. Its SlowCall is half of Attempt by default, Consecutive 5, MaxOpenFor and ProbeGap 1s, Ramp 300ms, its Name the key.
	Breaker breaker.Config `json:"breaker,omitzero"`
	// Keys is how many keys (hosts) have state of their own. Default 1,024.
	Keys int `json:"keys,omitempty"`
	// Idle is after how long without a call a key may be forgotten. Default 10 min; negative: never.
	Idle time.Duration `json:"idle,omitempty"`
	// Observer is told of the events of all calls.
	Observer backstay.Observer `json:"-"`
}

// MarshalJSON writes durations as strings and leaves functions out.
func (c Config) MarshalJSON() ([]byte, error) { return configjson.Marshal(c) }

// UnmarshalJSON reads what MarshalJSON writes and refuses unknown fields.
func (c *Config) UnmarshalJSON(data []byte) error { return configjson.Unmarshal(data, c) }

// Validate reports every field that makes no sense, those of the stages included.
func (c Config) Validate() error {
	d := c.withDefaults()
	errs := []error{d.Retry.Validate(), d.Budget.Validate(), d.Limit.Validate(), d.Breaker.Validate(), d.keys().Validate()}
	if c.MinAttempt < 0 {
		errs = append(errs, fmt.Errorf("standard: Config.MinAttempt is %v; it must not be negative", c.MinAttempt))
	}
	if d.Attempt > 0 && d.Total > 0 && d.Attempt >= d.Total {
		errs = append(errs, fmt.Errorf("standard: Config.Attempt of %v is not shorter than Config.Total of %v, so an attempt that timed out could never be repeated", d.Attempt, d.Total))
	}
	if w := d.Breaker.Window; d.Attempt > 0 && w > 0 && w < 2*d.Attempt {
		errs = append(errs, fmt.Errorf("standard: Config.Breaker.Window of %v is shorter than twice Config.Attempt of %v: too few endings fall into it when every attempt times out", w, d.Attempt))
	}
	return errors.Join(errs...)
}

// maxOpenFor is how long a breaker stays open at most. A fault that ends just after a probe has failed is noticed that much later. See
// docs/decisions/005: with more, clients come back later than they would without a breaker.
const maxOpenFor = time.Second

// Where many clients make few calls each, a stalled server hears of their breakers only if those open after a few calls, and refuse some: see docs/decisions/055.
const (
	consecutive = 5
	probeGap    = time.Second
)

// ramp is how long a breaker that has closed still holds calls back. The adaptive limit around it bounds what comes then, and a second of it would be a second of
// refusals where one client makes all the calls: see docs/decisions/005.
const ramp = 300 * time.Millisecond

func (c Config) withDefaults() Config {
	if c.Total == 0 {
		c.Total = 30 * time.Second
		if c.Attempt >= c.Total {
			c.Total = 3 * c.Attempt
		}
	}
	if c.Attempt == 0 {
		c.Attempt = 10 * time.Second
		if c.Total > 0 && c.Attempt >= c.Total {
			c.Attempt = c.Total / 3
		}
	}
	if c.Retry.MaxDelay == 0 && c.Retry.Backoff == nil && c.Total > 0 {
		c.Retry.MaxDelay = max(min(5*time.Second, c.Total/6), c.Retry.Delay, 100*time.Millisecond)
	}
	if c.Breaker.SlowCall == 0 && c.Attempt > 0 {
		c.Breaker.SlowCall = c.Attempt / 2
	}
	if c.Breaker.MaxOpenFor == 0 && c.Breaker.OpenFor <= maxOpenFor {
		c.Breaker.MaxOpenFor = maxOpenFor
	}
	if c.Breaker.Consecutive == 0 {
		c.Breaker.Consecutive = consecutive
	}
	if c.Breaker.Ramp == 0 {
		c.Breaker.Ramp = ramp
	}
	if c.Breaker.ProbeGap == 0 {
		c.Breaker.ProbeGap = probeGap
	}
	if c.Limit.Min == 0 {
		c.Limit.Min = 10
		if c.Limit.Max > 0 {
			c.Limit.Min = min(c.Limit.Min, c.Limit.Max)
		}
	}
	if c.Limit.Initial == 0 {
		c.Limit.Initial = c.Limit.Max
		if c.Limit.Max == 0 {
			c.Limit.Initial = max(1000, c.Limit.Min)
		}
	}
	if c.Limit.SlowCall == 0 && c.Attempt > 0 {
		c.Limit.SlowCall = c.Attempt / 2
	}
	if c.Breaker.Window == 0 && c.Breaker.Count == 0 && c.Attempt > 15*time.Second {
		c.Breaker.Window = 2 * c.Attempt
	}
	return c
}

func (c Config) keys() backstay.KeyedConfig {
	return backstay.KeyedConfig{Max: c.Keys, Idle: c.Idle, Observer: c.Observer}
}

// Stack is the stages of a standard pipeline, for those who want to look at their state, or to put a stage of their own between them.
type Stack struct {
	Total    *timeout.Timeout
	Retry    *retry.Retry
	Budgets  *budget.Table // nil when Config.Retry has a budget of its own
	Limits   *backstay.Keyed[*adaptive.Limit]
	Breakers *backstay.Keyed[*breaker.Breaker]
	Attempt  *timeout.Timeout
	observer backstay.Observer
}

// Build returns the stages. It panics when the config is not valid.
func Build(c Config) *Stack {
	if err := c.Validate(); err != nil {
		panic(err)
	}
	c = c.withDefaults()
	s := &Stack{observer: c.Observer}
	s.Total = timeout.NewWith(timeout.Config{Name: "total", Limit: c.Total, MinAttempt: c.MinAttempt})
	if c.Retry.Budget == nil && c.Retry.BudgetFor == nil {
		s.Budgets = budget.PerKey(c.Budget, c.keys())
		c.Retry.BudgetFor = s.Budgets.For
	}
	s.Retry = retry.New(c.Retry)
	s.Limits = backstay.NewKeyed(c.keys(), func(key string) *adaptive.Limit {
		l := c.Limit
		l.Name = key
		return adaptive.New(l)
	})
	s.Breakers = backstay.NewKeyed(c.keys(), func(key string) *breaker.Breaker {
		b := c.Breaker
		b.Name = key
		return breaker.New(b)
	})
	s.Attempt = timeout.NewWith(timeout.Config{Name: "attempt", Limit: c.Attempt})
	return s
}

// Retrying returns the retry as it stands in the pipeline: it also tells of the tokens left in Budgets (backstay.Gauged).
func (s *Stack) Retrying() backstay.Policy {
	if s.Budgets == nil {
		return s.Retry
	}
	return &retrying{s.Retry, s.Budgets}
}

// retrying is a retry and the budgets that it asks for by a function.
type retrying struct {
	*retry.Retry
	budgets *budget.Table
}

// Gauges implements backstay.Gauged.
func (r *retrying) Gauges(tell func(backstay.Gauge)) { r.budgets.Gauges(tell) }

// Pipeline returns the stages in their order.
func (s *Stack) Pipeline() *backstay.Pipeline {
	return backstay.Chain(s.Total, s.Retrying(), s.Limits, s.Breakers, s.Attempt).Observe(s.observer)
}

// New returns the standard pipeline. It panics when the config is not valid.
func New(c Config) *backstay.Pipeline { return Build(c).Pipeline() }
