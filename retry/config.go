package retry

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/budget"
	"github.com/backstay-go/backstay/internal/configjson"
)

// Config sets when and how often a [Retry] repeats a call. The zero Config works. On numbers, 0 is the default and a negative value means
// off or none. As JSON, durations are strings ("1.5s"), a budget is the object of its own settings, and functions and observers are left out.
type Config struct {
	// Name is told in errors and events: "inventory". May be empty.
	Name string `json:"name"`

	// Attempts is how many attempts a call gets in all, the first included. Default 3; 1: no retry; negative: no limit but time. A call's own limit
	// ([backstay.Attempts], [backstay.NoRetry]) goes before it.
	Attempts int `json:"attempts"`

	// Schedule is how the waits grow. Default [Exponential].
	Schedule Schedule `json:"schedule"`
	// Delay is the first wait, before jitter. Default 100ms, up to 24h; negative: no wait.
	Delay time.Duration `json:"delay"`
	// Factor is what each wait of the exponential schedule is multiplied by. Default 2, range 1 to 1000. Decorrelated jitter does not use it.
	Factor float64 `json:"factor"`
	// MaxDelay bounds each wait, jitter included. Server hints have their own bound. Default 5s, or Delay if that is more; not below Delay; negative: no bound.
	MaxDelay time.Duration `json:"maxDelay"`
	// Jitter is how waits are spread, so that clients which failed together do not come back together. Default [Full]; with Backoff, [None].
	Jitter Jitter `json:"jitter"`
	// Backoff, if set, makes the schedule of one call, in place of Schedule, Delay and Factor. It is called once for each call that is repeated, again after an exact wait of the server's, and must
	// not return one instance twice, since they are not safe for concurrent use. Values of github.com/cenkalti/backoff fit. -1 ([backoff.Stop]) ends the
	// call, other negative values mean 0, and MaxDelay bounds the rest.
	Backoff func() BackOff `json:"-"`

	// MaxElapsed is how long after its start a call may still begin an attempt. An attempt that would begin later is not made, nor is
	// its wait. Default 0 and negative: no limit but the context's.
	MaxElapsed time.Duration `json:"maxElapsed"`
	// MinAttempt is the shortest time in which an attempt can be of use. When a wait and MinAttempt do not fit in what is left until the
	// deadline, or of MaxElapsed, the call ends at once. Default 10ms, which a request in one data centre needs; up to 24h; negative: none.
	MinAttempt time.Duration `json:"minAttempt"`

	// MaxHint is the longest time for which a server may ask to be left alone ([backstay.Outcome] Wait). A longer hint ends the call at once, with
	// the time in the error. Default 30s; negative: no bound.
	MaxHint time.Duration `json:"maxHint"`
	// HintJitter lengthens waits that a server asked for, by a random part of them up to this one, since it asked all its clients
	// alike. A hint is never shortened, and one that is an order ([backstay.Outcome] WaitExact) is kept. Default 0.1, up to 1; negative: exact.
	HintJitter float64 `json:"hintJitter"`

	// Budget bounds the attempts beyond each call's first, over all calls; it may be shared with other retries and with hedges. Default nil: no bound, which
	// is wrong for a client of a server that can be overloaded. The zero Budget has its defaults.
	Budget *budget.Budget `json:"budget"`
	// BudgetFor, if set, picks the budget by the call's key, in place of Budget: the For of a [budget.Table]. It is asked for each call and must be quick.
	BudgetFor func(key string) *budget.Budget `json:"-"`

	// WaitForBreaker makes a call that a policy inside refuses with a time ([backstay.Rejected] RetryAfter, as an open breaker does) wait for
	// that time once, if MaxHint and the deadline allow, in place of ending it. What was refused counts neither as an attempt nor against the budget. A call
	// that is limited to one attempt does not wait.
	WaitForBreaker bool `json:"waitForBreaker"`
	// Nested lets this retry repeat a call although a retry around it does so too. Their attempts multiply.
	Nested bool `json:"nested"`

	// Rand returns random numbers from 0 to 1 for the jitter. It is called from many goroutines. Default: math/rand/v2.
	Rand func() float64 `json:"-"`
	// Observer is told of events, beside the observer of the call. May be nil.
	Observer backstay.Observer `json:"-"`
}

// MarshalJSON encodes the fields that are set.
func (c Config) MarshalJSON() ([]byte, error) { return configjson.Marshal(c) }

// UnmarshalJSON decodes data. Fields that it does not name keep their values, unknown ones are an error.
func (c *Config) UnmarshalJSON(data []byte) error { return configjson.Unmarshal(data, c) }

// day is the longest wait that can be configured: more is a slip of units.
const day = 24 * time.Hour

// Validate reports every field that is out of range.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, field, rule string, got any) {
		if !ok {
			errs = append(errs, fmt.Errorf("retry: Config.%s must be %s; got %v", field, rule, got))
		}
	}
	check(c.Schedule == "" || slices.Contains([]Schedule{Exponential, Constant, Linear}, c.Schedule), "Schedule", "exponential, constant or linear", string(c.Schedule))
	check(c.Jitter == "" || slices.Contains([]Jitter{Full, Equal, Decorrelated, None}, c.Jitter), "Jitter", "full, equal, decorrelated or none", string(c.Jitter))
	check(c.Jitter != Decorrelated || c.Backoff == nil && (c.Schedule == "" || c.Schedule == Exponential), "Jitter", "another than decorrelated, which is a schedule of its own, with Schedule or Backoff", c.Jitter)
	check(c.Delay <= day, "Delay", "at most 24h", c.Delay)
	check(c.Factor == 0 || c.Factor >= 1 && c.Factor <= 1000, "Factor", "between 1 and 1000, or 0 for the default", c.Factor) // NaN is neither
	check(c.MaxDelay <= 0 || c.MaxDelay >= c.Delay, "MaxDelay", "at least Delay", c.MaxDelay)
	check(c.MinAttempt <= day, "MinAttempt", "at most 24h", c.MinAttempt)
	check(c.HintJitter <= 1, "HintJitter", "at most 1", c.HintJitter)
	check(c.Budget == nil || c.BudgetFor == nil, "BudgetFor", "left out when Budget is set", "both")
	return errors.Join(errs...)
}

// withDefaults returns c with its defaults filled in; 0 then means none, or no wait.
func (c Config) withDefaults() Config {
	switch {
	case c.Attempts == 0:
		c.Attempts = 3
	case c.Attempts < 0:
		c.Attempts = math.MaxInt
	}
	if c.Schedule == "" {
		c.Schedule = Exponential
	}
	if c.Jitter == "" {
		c.Jitter = Full
		if c.Backoff != nil {
			c.Jitter = None
		}
	}
	c.Delay = orDefault(c.Delay, 100*time.Millisecond)
	if c.Factor == 0 {
		c.Factor = 2
	}
	switch {
	case c.MaxDelay == 0:
		c.MaxDelay = max(5*time.Second, c.Delay)
	case c.MaxDelay < 0:
		c.MaxDelay = forever
	}
	c.MinAttempt = orDefault(c.MinAttempt, 10*time.Millisecond)
	c.MaxElapsed = max(c.MaxElapsed, 0)
	switch {
	case c.MaxHint == 0:
		c.MaxHint = 30 * time.Second
	case c.MaxHint < 0:
		c.MaxHint = forever
	}
	switch {
	case c.HintJitter == 0:
		c.HintJitter = 0.1
	case c.HintJitter < 0:
		c.HintJitter = 0
	}
	if c.Rand == nil {
		c.Rand = rand.Float64
	}
	return c
}

// orDefault returns what n stands for: the default for 0, and 0 for none.
func orDefault(n, def time.Duration) time.Duration {
	if n == 0 {
		return def
	}
	return max(n, 0)
}
