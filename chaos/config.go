package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/internal/configjson"
)

// Config sets what is injected, and how often. The zero value injects nothing; nothing is injected either unless On is set or
// [Chaos.Switch] is called. Each Rate is the share of the calls that it hits, from 0 (the default: none) to 1; they are drawn one by one, so
// that a call may be both late and lost.
type Config struct {
	// Name tells this policy from others in errors and events.
	Name string `json:"name,omitempty"`
	// On switches the injection on. Default false.
	On bool `json:"on,omitempty"`

	// FaultRate is the share of calls that fail with Fault and are not made.
	FaultRate float64 `json:"faultRate,omitempty"`
	// Fault is the error of injected failures; the caller's error matches it and ErrInjected. Default: ErrInjected alone.
	Fault error `json:"-"`
	// LostRate is the share of calls that are made, and whose success is then lost: the caller gets Fault. It is the fault that
	// finds the most bugs: the effect is there, and nobody was told.
	LostRate float64 `json:"lostRate,omitempty"`
	// LatencyRate is the share of calls that begin late: by Latency and up to Jitter more.
	LatencyRate float64       `json:"latencyRate,omitempty"`
	Latency     time.Duration `json:"latency,omitempty"` // 0 or more
	Jitter      time.Duration `json:"jitter,omitempty"`  // 0 or more
	// OutcomeRate is the share of calls that are not made and end as Outcome says: with a value, a class, a hint to wait.
	OutcomeRate float64                                                         `json:"outcomeRate,omitempty"`
	Outcome     func(ctx context.Context, call *backstay.Call) backstay.Outcome `json:"-"`
	// BehaviorRate is the share of calls before which Behavior runs: it may panic, block, cut a connection. The call fails with its error, if any.
	BehaviorRate float64                                              `json:"behaviorRate,omitempty"`
	Behavior     func(ctx context.Context, call *backstay.Call) error `json:"-"`

	// Match picks the calls that may be hit. Default: all.
	Match func(call *backstay.Call) bool `json:"-"`
	// Seed makes the draws repeatable for calls made one after the other. Default 0: another sequence each time.
	Seed uint64 `json:"seed,omitempty"`
	// Observer is told of events.
	Observer backstay.Observer `json:"-"`
}

// MarshalJSON writes durations as strings and leaves functions out.
func (c Config) MarshalJSON() ([]byte, error) { return configjson.Marshal(c) }

// UnmarshalJSON reads what MarshalJSON writes and refuses unknown fields.
func (c *Config) UnmarshalJSON(data []byte) error { return configjson.Unmarshal(data, c) }

// Validate reports every field that makes no sense.
func (c Config) Validate() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf("chaos: Config."+format, args...)) }
	for _, r := range []struct {
		name string
		rate float64
	}{{"FaultRate", c.FaultRate}, {"LostRate", c.LostRate}, {"LatencyRate", c.LatencyRate}, {"OutcomeRate", c.OutcomeRate}, {"BehaviorRate", c.BehaviorRate}} {
		if !(r.rate >= 0 && r.rate <= 1) { // NaN is out of range too
			add("%s is %v; it must be between 0 and 1", r.name, r.rate)
		}
	}
	if c.Latency < 0 {
		add("Latency is %v; it must not be negative", c.Latency)
	}
	if c.Jitter < 0 {
		add("Jitter is %v; it must not be negative", c.Jitter)
	}
	if c.LatencyRate > 0 && c.Latency <= 0 && c.Jitter <= 0 {
		add("LatencyRate is set without Config.Latency or Config.Jitter")
	}
	if c.OutcomeRate > 0 && c.Outcome == nil {
		add("OutcomeRate is set without Config.Outcome")
	}
	if c.BehaviorRate > 0 && c.Behavior == nil {
		add("BehaviorRate is set without Config.Behavior")
	}
	return errors.Join(errs...)
}
