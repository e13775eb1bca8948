package hedge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/budget"
	"github.com/backstay-go/backstay/internal/configjson"
)

// Config sets a hedge. The zero value works: one further attempt once a call takes longer than 95 % of the others, within a budget of 10 %.
type Config struct {
	// Name tells this hedge from others in events.
	Name string `json:"name,omitempty"`
	// Delay is how long an attempt may take before a further one is started beside it. With Quantile it serves until enough calls have been
	// seen. Default 0: by Quantile. Negative: at once, which doubles the load of the dependency as far as the budget allows.
	Delay time.Duration `json:"delay,omitempty"`
	// Quantile is the share of the calls, above 0 and below 1, that are to end before a further attempt is started: the delay is that
	// quantile of how long first attempts took of late. Default 0.95 (The Tail at Scale, Dean and Barroso, CACM 56/2, 2013: "the
	// 95th-percentile expected latency … limits the additional load to approximately 5 %"), and none when Delay is set.
	Quantile float64 `json:"quantile,omitempty"`
	// DelayFor picks the delay of one call, in place of Delay and Quantile. 0 or less: at once; a long one: never. It must be safe for concurrent use.
	DelayFor func(ctx context.Context, call *backstay.Call) time.Duration `json:"-"`
	// MinDelay bounds a delay by Quantile from below, so that a fast dependency does not get attempts for every hiccup of this process. Default
	// 1ms; negative: none.
	MinDelay time.Duration `json:"minDelay,omitempty"`
	// MinSamples is how many calls must have been seen within Window before Quantile is used. Default 100: with fewer the
	// 95th percentile is a matter of a handful of calls. Range 1 to 1,000,000.
	MinSamples int `json:"minSamples,omitempty"`
	// Window is for how long a call counts for Quantile: one to two of it. Default 1m; range 1s to 1h.
	Window time.Duration `json:"window,omitempty"`
	// Extra is how many further attempts a call may have, each after a delay of its own. Default 1; range 1 to 9.
	Extra int `json:"extra,omitempty"`
	// Unsafe also hedges calls of which nobody has said that they may be repeated; those of which it was said that they must not are not. Two
	// attempts then run at the same time: the function must bear that. Default false.
	Unsafe bool `json:"unsafe,omitempty"`
	// Budget bounds the further attempts; sharing it with the retry bounds both together. Who shares it with no retry puts
	// it into the chain too, so that calls deposit. Default: one of its own with the budget's defaults.
	Budget *budget.Budget `json:"budget,omitempty"`
	// BudgetFor, if set, picks the budget by the call's key, in place of Budget: the For of a [budget.Table].
	BudgetFor func(key string) *budget.Budget `json:"-"`
	// Observer is told of events.
	Observer backstay.Observer `json:"-"`
}

// MarshalJSON writes durations as strings and leaves functions out.
func (c Config) MarshalJSON() ([]byte, error) { return configjson.Marshal(c) }

// UnmarshalJSON reads what MarshalJSON writes and refuses unknown fields.
func (c *Config) UnmarshalJSON(data []byte) error { return configjson.Unmarshal(data, c) }

// Validate reports every field that is out of range.
func (c Config) Validate() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf("hedge: Config."+format, args...)) }
	d := c.withDefaults()
	if d.Quantile != 0 && !(d.Quantile > 0 && d.Quantile < 1) { // NaN is out of range too
		add("Quantile is %v; it must be above 0 and below 1", c.Quantile)
	}
	if d.MinSamples < 1 || d.MinSamples > 1_000_000 {
		add("MinSamples is %d; it must be between 1 and 1000000", c.MinSamples)
	}
	if d.Window < time.Second || d.Window > time.Hour {
		add("Window is %v; it must be between 1s and 1h", c.Window)
	}
	if d.Extra < 1 || d.Extra > 9 {
		add("Extra is %d; it must be between 1 and 9", c.Extra)
	}
	if c.DelayFor != nil && (c.Delay != 0 || c.Quantile != 0) {
		add("DelayFor is set beside Config.Delay or Config.Quantile; it takes their place")
	}
	if c.Budget != nil && c.BudgetFor != nil {
		add("BudgetFor is set beside Config.Budget; it takes its place")
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	if c.Quantile == 0 && c.Delay == 0 && c.DelayFor == nil {
		c.Quantile = 0.95
	}
	if c.MinDelay == 0 {
		c.MinDelay = time.Millisecond
	}
	if c.MinSamples == 0 {
		c.MinSamples = 100
	}
	if c.Window == 0 {
		c.Window = time.Minute
	}
	if c.Extra == 0 {
		c.Extra = 1
	}
	return c
}
