package adaptive

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/internal/configjson"
)

// Config sets an adaptive limit. The zero value works. The reasons for the numbers are in docs/decisions/006.
type Config struct {
	// Name tells this limit from others in errors and events.
	Name string `json:"name,omitempty"`
	// Initial is the limit before anything is known. Default 20 (as Netflix's Gradient2); at least Min, at most Max. It is found again
	// quickly where it is wrong: the limit doubles every Window until the first sign of a queue.
	Initial int `json:"initial,omitempty"`
	// Min is the limit below which it never falls, so that there are always calls that can find out that the dependency is well
	// again. Default 2, so that one call that hangs does not keep all others out; with more a crowd of clients recovers later. Range 1 to Max.
	Min int `json:"min,omitempty"`
	// Max is the limit above which it never grows. Default 1,000 (as the bulkhead).
	Max int `json:"max,omitempty"`
	// Tolerance is how many times its baseline the response time may be before the limit shrinks. Default 1.5 (as Gradient2): more
	// allows a longer queue in the dependency, less takes ordinary noise for one. Range 1 to 10.
	Tolerance float64 `json:"tolerance,omitempty"`
	// Headroom is how many calls may be queued in the dependency beyond what Tolerance allows, for bursts; the square root of the limit, if
	// that is more. Default 4 (Gradient2's queue size): more refuses fewer calls of a small server that is nearly full, and makes for longer queues when many clients
	// overload one. range 1 to Max; negative: the square root alone.
	Headroom int `json:"headroom,omitempty"`
	// Window is the shortest time between two looks at the samples. Default 100ms. It is never less than two response times.
	Window time.Duration `json:"window,omitempty"`
	// Baseline is for how long the lowest response time counts as the one without a queue. After it the limit is halved for a
	// few response times to measure again (as BBR's ProbeRTT, which does so every 10 s). Default 5s; negative: never measured again.
	Baseline time.Duration `json:"baseline,omitempty"`
	// DropRate is the share of recent endings that must be drops before the limit is cut. Default 0.1, which is two of the last
	// sixteen: one lost packet is no overload. Range above 0 to 1.
	DropRate float64 `json:"dropRate,omitempty"`
	// SlowCall is from when on an attempt that a deadline from outside cut short counts as a drop. Default 5s, half the default attempt timeout;
	// negative: never.
	SlowCall time.Duration `json:"slowCall,omitempty"`
	// Share is the part of the limit that a call may fill, so that important calls find room when the others do not: 1 is all of it,
	// with 0.5 a call is refused while half of the limit is in use. Values are clamped to 0 to 1; one call in flight is always
	// allowed. Default: 1 for all. It must be quick and safe for concurrent use.
	Share func(ctx context.Context, call *backstay.Call) float64 `json:"-"`
	// Shadow refuses nothing; what would have been refused is an EventShadow. The limit then learns from calls that it would not have let through.
	Shadow bool `json:"shadow,omitempty"`
	// UntilReturn gives a permit back when the function returns, although its value is still in use.
	UntilReturn bool `json:"untilReturn,omitempty"`
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
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf("adaptive: Config."+format, args...)) }
	d := c.withDefaults()
	if d.Min < 1 {
		add("Min is %d; it must be at least 1", c.Min)
	}
	if d.Max < 1 || d.Max > math.MaxInt32 {
		add("Max is %d; it must be between 1 and %d", c.Max, math.MaxInt32)
	}
	if d.Min > d.Max {
		add("Min of %d is more than Config.Max of %d", d.Min, d.Max)
	}
	if c.Initial != 0 && (c.Initial < d.Min || c.Initial > d.Max) {
		add("Initial is %d; it must be between Config.Min of %d and Config.Max of %d", c.Initial, d.Min, d.Max)
	}
	if !(d.Tolerance >= 1 && d.Tolerance <= 10) { // NaN is out of range too
		add("Tolerance is %v; it must be between 1 and 10", c.Tolerance)
	}
	if d.Headroom > d.Max {
		add("Headroom is %d; it must be at most Config.Max of %d", c.Headroom, d.Max)
	}
	if d.Window < 0 || d.Window > time.Minute {
		add("Window is %v; it must be between 0 and 1m", c.Window)
	}
	if !(d.DropRate > 0 && d.DropRate <= 1) {
		add("DropRate is %v; it must be above 0 and at most 1", c.DropRate)
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	if c.Max == 0 {
		c.Max = max(1000, c.Min, c.Initial)
	}
	if c.Min == 0 {
		c.Min = min(2, max(c.Max, 1))
		if c.Initial > 0 {
			c.Min = min(c.Min, c.Initial)
		}
	}
	if c.Initial == 0 {
		c.Initial = min(max(20, c.Min), c.Max)
	}
	if c.Tolerance == 0 {
		c.Tolerance = 1.5
	}
	if c.Headroom == 0 {
		c.Headroom = min(4, max(c.Max, 1))
	}
	if c.Window == 0 {
		c.Window = 100 * time.Millisecond
	}
	if c.Baseline == 0 {
		c.Baseline = 5 * time.Second
	}
	if c.DropRate == 0 {
		c.DropRate = 0.1
	}
	if c.SlowCall == 0 {
		c.SlowCall = 5 * time.Second
	}
	return c
}
