package breaker

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/internal/configjson"
)

// Config sets when a [Breaker] opens, for how long, and how it closes again. The zero Config works. On numbers, 0 is the default and a
// negative value means off where that is said. As JSON, durations are strings ("1.5s") and functions and observers are left out.
//
// Three rules open a closed breaker: the share of failures, failures in a row, and the share of slow calls. Only completed calls count: those
// that hang dilute nothing. Neutral endings (see [backstay.Outcome.Judge]) count for nothing at all.
type Config struct {
	// Name is told in errors and events: "inventory". May be empty.
	Name string `json:"name"`

	// Window is how far back the rates look. An ending is forgotten after nine to ten tenths of it. Default 30s; range 10ms to 24h. It should
	// be at least twice the attempt timeout, or else too few endings fall into it when every attempt times out.
	Window time.Duration `json:"window"`
	// Count, when above 0, makes the rates look at the last Count endings in place of a while. Up to 65,536, at a quarter of a byte each.
	Count int `json:"count"`
	// FailureRate opens the breaker when this share of the endings in the window are failures. Default 0.5; up to 1; negative: off.
	FailureRate float64 `json:"failureRate"`
	// SlowRate opens the breaker when this share of the endings in the window took SlowCall or longer, successful or not; and in the half-open
	// state makes a slow probe a failed one. Callers still get their results. Default 0 and negative: off; up to 1.
	SlowRate float64 `json:"slowRate"`
	// MinCalls is how many endings the window must hold before a rate means something. Default 20, or Count if that is less; negative: 1. Not above Count.
	MinCalls int `json:"minCalls"`
	// SlowCall is how long a call takes that is slow. It is also how long an attempt must have run for a deadline that came from outside to count
	// as a failure. Default 5s, half the default attempt timeout; negative: no call is slow.
	SlowCall time.Duration `json:"slowCall"`
	// Consecutive opens the breaker after so many failures without a success between, however far apart. Default 10; negative: off.
	Consecutive int `json:"consecutive"`
	// Spread is how far apart the first and the last of those failures must at least be, so that calls which one hiccup fails at the same
	// moment are not taken for an outage. Default 1s; negative: none.
	Spread time.Duration `json:"spread"`

	// OpenFor is how long the breaker stays open before it lets probes through. It doubles each time the probes fail, and is OpenFor again
	// once the breaker has closed. Default 1s, since an open period that outlives the fault prolongs the outage; range 1ms to 24h.
	OpenFor time.Duration `json:"openFor"`
	// MaxOpenFor is where the doubling ends. Default 5s, or OpenFor if that is more; up to 24h, not below OpenFor; negative: no doubling.
	MaxOpenFor time.Duration `json:"maxOpenFor"`
	// NoJitter keeps the open period as it is. Otherwise it is shortened at random by up to a half, so that the
	// clients of a server do not all come back at the same moment.
	NoJitter bool `json:"noJitter"`
	// OpenFunc, if set, says how long the breaker stays open the opens-th time since it was last closed, from 1, in place of doubling and jitter. What
	// it returns is kept between 1ms and MaxOpenFor; a negative value, as from a backoff that says stop, is MaxOpenFor. It is called outside all locks, and
	// until it has returned, or if it panics, the doubled period holds.
	OpenFunc func(opens int) time.Duration `json:"-"`
	// Ramp is how long after closing the breaker still holds some calls back, so that a server which has just recovered does not get all of them at
	// once: the share let through grows evenly from none to all. Calls that would be the only Probes in flight always pass, so a client with few calls
	// notices nothing. Default 1s; negative: none. Up to 24h.
	Ramp time.Duration `json:"ramp"`

	// Probes is how many calls may be in flight in the half-open state. Default 2, or Successes if that is less; not above Successes.
	Probes int `json:"probes"`
	// ProbeGap is how long a probe keeps the next one waiting while none has succeeded. A server that is down then gets one from each client at a time, and still
	// one probe that hangs, or that is slow by nature, does not keep all others out. Default 0 and negative: none; up to 24h.
	ProbeGap time.Duration `json:"probeGap"`
	// Successes is how many probes must succeed for the breaker to close. Default 2, or Probes if that is more; up to 1,000,000.
	Successes int `json:"successes"`
	// Tolerated is how many probes may fail in one half-open period before the breaker opens again. Default 0; negative: 0.
	Tolerated int `json:"tolerated"`
	// ProbeTimeout is after how long a probe that has not reported is given up, so that another call may take its place; what it reports later changes
	// nothing. Longer than the attempt timeout, or a probe that times out is never counted. Default 15s; range 1ms to 24h.
	ProbeTimeout time.Duration `json:"probeTimeout"`
	// MaxHalfOpen ends a half-open period that has too few calls to reach Successes: the next call finds the breaker closed if more probes have
	// succeeded than failed, open again if not, and half-open still if none has done either. Default 30s; negative: none.
	MaxHalfOpen time.Duration `json:"maxHalfOpen"`

	// Mode overrides the breaker's own judgement from the start; see [Breaker.SetMode]. Default [Auto].
	Mode Mode `json:"mode"`
	// Observer is told of events, beside the observer of the call. May be nil.
	Observer backstay.Observer `json:"-"`
}

// MarshalJSON encodes the fields that are set.
func (c Config) MarshalJSON() ([]byte, error) { return configjson.Marshal(c) }

// UnmarshalJSON sets the fields that data names, and refuses unknown ones. It does not validate.
func (c *Config) UnmarshalJSON(data []byte) error { return configjson.Unmarshal(data, c) }

const (
	maxDuration  = 24 * time.Hour // keeps sums of times far from overflow
	minOpenFor   = time.Millisecond
	minWindow    = 10 * time.Millisecond
	maxCount     = 1 << 16
	maxSuccesses = 1_000_000
)

// Validate reports every field that is out of range, and every two that contradict each other.
func (c Config) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf("breaker: Config."+format, args...)) }
	duration := func(name string, d, least time.Duration) {
		if d < least || d > maxDuration {
			fault("%s is %v, want %v to %v, or 0 for the default", name, d, least, maxDuration)
		}
	}
	share := func(name string, v float64) {
		if math.IsNaN(v) || v > 1 {
			fault("%s is %v, want a share of at most 1, 0 for the default or a negative value for off", name, v)
		}
	}
	if c.Window != 0 {
		duration("Window", c.Window, minWindow)
	}
	if c.Count < 0 || c.Count > maxCount {
		fault("Count is %d, want 1 to %d, or 0 for a window of time", c.Count, maxCount)
	}
	share("FailureRate", c.FailureRate)
	share("SlowRate", c.SlowRate)
	if c.Count > 0 && c.MinCalls > c.Count {
		fault("MinCalls is %d, more than the %d of Count: no rate would ever be looked at", c.MinCalls, c.Count)
	}
	if c.SlowCall > maxDuration {
		fault("SlowCall is %v, want at most %v", c.SlowCall, maxDuration)
	}
	if c.SlowRate > 0 && c.SlowCall < 0 {
		fault("SlowRate is %v, but a negative SlowCall makes no call slow", c.SlowRate)
	}
	if c.Spread > maxDuration {
		fault("Spread is %v, want at most %v", c.Spread, maxDuration)
	}
	if c.OpenFor != 0 {
		duration("OpenFor", c.OpenFor, minOpenFor)
	}
	if c.MaxOpenFor > maxDuration {
		fault("MaxOpenFor is %v, want at most %v", c.MaxOpenFor, maxDuration)
	}
	if least := c.filled().OpenFor; c.MaxOpenFor > 0 && c.MaxOpenFor < least {
		fault("MaxOpenFor is %v, less than the %v of OpenFor", c.MaxOpenFor, least)
	}
	if c.Ramp > maxDuration {
		fault("Ramp is %v, want at most %v", c.Ramp, maxDuration)
	}
	if c.ProbeGap > maxDuration {
		fault("ProbeGap is %v, want at most %v", c.ProbeGap, maxDuration)
	}
	if c.Probes < 0 {
		fault("Probes is %d, want at least 1, or 0 for the default", c.Probes)
	}
	if c.Successes < 0 || c.Successes > maxSuccesses || c.Probes > maxSuccesses {
		fault("Successes is %d and Probes %d, want 1 to %d, or 0 for the default", c.Successes, c.Probes, maxSuccesses)
	}
	if c.Successes > 0 && c.Probes > c.Successes {
		fault("Probes is %d, more than the %d of Successes: the last ones would be for nothing", c.Probes, c.Successes)
	}
	if c.ProbeTimeout != 0 {
		duration("ProbeTimeout", c.ProbeTimeout, time.Millisecond)
	}
	if c.MaxHalfOpen > maxDuration {
		fault("MaxHalfOpen is %v, want at most %v", c.MaxHalfOpen, maxDuration)
	}
	if c.Mode > Shadow {
		fault("Mode is %d, want Auto to Shadow", c.Mode)
	}
	return errors.Join(errs...)
}

// filled returns c with defaults in place of zeros, and with zero for what is off.
func (c Config) filled() Config {
	if c.Window == 0 {
		c.Window = 30 * time.Second
	}
	c.FailureRate = defaulted(c.FailureRate, 0.5)
	c.SlowRate = max(c.SlowRate, 0)
	switch {
	case c.MinCalls < 0:
		c.MinCalls = 1
	case c.MinCalls == 0 && c.Count > 0:
		c.MinCalls = min(20, c.Count)
	case c.MinCalls == 0:
		c.MinCalls = 20
	}
	c.SlowCall = defaulted(c.SlowCall, 5*time.Second)
	c.Consecutive = defaulted(c.Consecutive, 10)
	c.Spread = defaulted(c.Spread, time.Second)
	c.OpenFor = defaulted(c.OpenFor, time.Second)
	c.MaxOpenFor = max(defaulted(c.MaxOpenFor, 5*time.Second), c.OpenFor)
	c.Ramp = defaulted(c.Ramp, time.Second)
	if c.Successes == 0 {
		c.Successes = max(2, c.Probes)
	}
	if c.Probes == 0 {
		c.Probes = min(2, c.Successes)
	}
	c.Tolerated = max(c.Tolerated, 0)
	c.ProbeGap = max(c.ProbeGap, 0)
	c.ProbeTimeout = defaulted(c.ProbeTimeout, 15*time.Second)
	c.MaxHalfOpen = defaulted(c.MaxHalfOpen, 30*time.Second)
	return c
}

// defaulted returns v, or def for 0, or 0 for a negative value.
func defaulted[T int | float64 | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return max(v, 0)
}
