package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/time/rate"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/internal/configjson"
)

// Config sets a rate limit. The zero value works: 100 calls a second, refused beyond.
type Config struct {
	// Name tells this limit from others in errors and events.
	Name string `json:"name,omitempty"`
	// Rate is how many calls may start in Per on average. Default 100; negative: no limit.
	Rate float64 `json:"rate,omitempty"`
	// Per is what Rate counts for. Default 1s; range 1ms to 24h.
	Per time.Duration `json:"per,omitempty"`
	// Burst is how many calls may start at once after a pause. Default a second's worth of Rate, at least 1. With 1 calls
	// are spread evenly: each Per/Rate one.
	Burst int `json:"burst,omitempty"`
	// MaxWait is how long a call may wait for its turn. Default 0: a call without a token is refused at once. Negative: as long as its context
	// allows. No more calls wait than Rate lets start in MaxWait.
	MaxWait time.Duration `json:"maxWait,omitempty"`
	// Cost is how many tokens a call takes. 0 or less: none; more than Burst: the call is always refused. Default: 1 for all. It must be quick and safe for
	// concurrent use.
	Cost func(ctx context.Context, call *backstay.Call) int `json:"-"`
	// Limiter is used in place of one of Rate, Per and Burst, which must be 0 then: for a limit shared with other code. It stays the
	// owner's: its settings are changed by its own methods.
	Limiter *rate.Limiter `json:"-"`
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
	add := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("ratelimit: Config."+format, args...))
	}
	if math.IsNaN(c.Rate) || math.IsInf(c.Rate, 0) {
		add("Rate is %v; it must be a number", c.Rate)
	}
	if c.Per != 0 && (c.Per < time.Millisecond || c.Per > 24*time.Hour) {
		add("Per is %v; it must be between 1ms and 24h", c.Per)
	}
	if c.Burst < 0 {
		add("Burst is %d; it must not be negative", c.Burst)
	}
	if c.Limiter != nil && (c.Rate != 0 || c.Per != 0 || c.Burst != 0) {
		add("Limiter is set beside Config.Rate, Config.Per or Config.Burst; it takes their place")
	}
	return errors.Join(errs...)
}

// limit returns the settings of a limiter.
func (c Config) limit() (perSecond rate.Limit, burst int) {
	if c.Rate < 0 {
		return rate.Inf, c.Burst
	}
	if c.Rate == 0 {
		c.Rate = 100
	}
	if c.Per == 0 {
		c.Per = time.Second
	}
	perSecond = rate.Limit(c.Rate / c.Per.Seconds())
	if burst = c.Burst; burst == 0 {
		burst = int(min(max(math.Ceil(float64(perSecond)), 1), math.MaxInt32))
	}
	return perSecond, burst
}
