package outbox

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/internal/configjson"
	"golang.org/x/time/rate"
)

// RelayConfig sets a [Relay] up. The zero value works. For durations and numbers 0 is the default and a negative value means none
// where that makes sense, as the field says.
type RelayConfig struct {
	// Name tells relays apart in metrics and logs. Default: none.
	Name string `json:"name"`
	// Lease is for how long a partition stays with a relay that is not heard from: the longest gap in delivery when one dies. It is
	// renewed after a third. Default 10 s, at least 100 ms.
	Lease time.Duration `json:"lease"`
	// Batch is the largest number of messages in one call of Publish. Default 500.
	Batch int `json:"batch"`
	// InFlight is how many calls of Publish run at once, each for other keys. Default 4. In a backlog, while two run or more, a batch that is not full waits up to 10 ms
	// for company if calls are seen to take longer the more of them run. Alone, messages never wait.
	InFlight int `json:"inFlight"`
	// PublishTimeout bounds one call of Publish. Default 10 s; also bounded by the lease as it stands at the start.
	PublishTimeout time.Duration `json:"publishTimeout"`
	// MinBackoff and MaxBackoff bound the wait after a failure of a key's first message: doubled each time, and jittered down to half.
	// Default 100 ms and 30 s.
	MinBackoff time.Duration `json:"minBackoff"`
	MaxBackoff time.Duration `json:"maxBackoff"`
	// MaxAttempts is after how many refusals a message is poison. Outages of the broker, unknown outcomes and refusals by Policy do not
	// count. Default 20; negative: never.
	MaxAttempts int `json:"maxAttempts"`
	// Poison says what then becomes of it. Default ParkKey.
	Poison Poison `json:"poison"`
	// MinPoll and MaxPoll bound the pause between two looks at an outbox that was found empty: doubled each time, with jitter. Default 5 ms
	// and 1 s. Hints shorten the pause, see [Listener]; nothing else depends on them.
	MinPoll time.Duration `json:"minPoll"`
	MaxPoll time.Duration `json:"maxPoll"`
	// Lag is how far behind its newest reading a relay starts to look when its source is no [WriterWatcher], so that a transaction that committed
	// late, with an older number, is seen. Later ones still are found by a look 30 lags back each lag and by a sweep of everything each
	// Sweep, less often when these take more than a quarter of the time, and may be overtaken by later messages of their keys. A WriterWatcher is asked four times in a Lag, and then no transaction is too late. Default 1 s.
	Lag time.Duration `json:"lag"`
	// Sweep is how often everything is looked at. Default 10 s, at least 10 ms.
	Sweep time.Duration `json:"sweep"`
	// Gauge is how often the source is asked how full it is, for Stats; see [Gauger]. Default 15 s; negative: never.
	Gauge time.Duration `json:"gauge"`
	// DrainTimeout bounds how long Run goes on after its context is over, until what is with the broker is confirmed, deleted, and the leases are given
	// back. Default 30 s.
	DrainTimeout time.Duration `json:"drainTimeout"`
	// KeepDead is the age at which dead letters are deleted. Default and negative: never.
	KeepDead time.Duration `json:"keepDead"`
	// MaxAge is the age of the oldest message above which Health reports a fault. Default 5 min; negative: never.
	MaxAge time.Duration `json:"maxAge"`

	// Throttle limits the messages published, also across relays of one process that share it. Its burst bounds the batch. Nil: no limit.
	Throttle *rate.Limiter `json:"-"`
	// Policy is put around Publish: a breaker, a rate limit, a retry (which repeats only what has failed). Nil: none.
	Policy backstay.Policy `json:"-"`
	// Opener opens payloads that were sealed at enqueue, before they are published. Nil: they are published as they are.
	Opener Opener `json:"-"`
	// Log is told of faults: no payload, no header values. Nil: nobody.
	Log *slog.Logger `json:"-"`
	// OnParked is told of each message that went to the dead letters, from the relay's own goroutine, under no lock. It
	// must not block. Nil: nobody.
	OnParked func(m *Message, reason string) `json:"-"`
}

func (c RelayConfig) withDefaults() RelayConfig {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	num := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	def(&c.Lease, 10*time.Second)
	def(&c.PublishTimeout, 10*time.Second)
	def(&c.MinBackoff, 100*time.Millisecond)
	def(&c.MaxBackoff, max(30*time.Second, c.MinBackoff))
	def(&c.MinPoll, 5*time.Millisecond)
	def(&c.MaxPoll, max(time.Second, c.MinPoll))
	def(&c.Lag, time.Second)
	def(&c.Sweep, 10*time.Second)
	def(&c.Gauge, 15*time.Second)
	def(&c.DrainTimeout, 30*time.Second)
	def(&c.MaxAge, 5*time.Minute)
	num(&c.Batch, 500)
	num(&c.InFlight, 4)
	num(&c.MaxAttempts, 20)
	return c
}

// Validate reports all faults of the config, joined, or nil.
func (c RelayConfig) Validate() error {
	c = c.withDefaults()
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf("outbox.RelayConfig."+format, args...))
		}
	}
	fault(c.Lease < 100*time.Millisecond, "Lease: %v, want at least 100ms", c.Lease)
	fault(c.Batch < 0, "Batch: %d, want at least 1", c.Batch)
	fault(c.InFlight < 0, "InFlight: %d, want at least 1", c.InFlight)
	fault(c.PublishTimeout < 0, "PublishTimeout: %v, want a deadline", c.PublishTimeout)
	fault(c.MinBackoff < 0 || c.MaxBackoff < c.MinBackoff, "MinBackoff, MaxBackoff: %v, %v, want 0 < min ≤ max", c.MinBackoff, c.MaxBackoff)
	fault(c.MinPoll < 0 || c.MaxPoll < c.MinPoll, "MinPoll, MaxPoll: %v, %v, want 0 < min ≤ max", c.MinPoll, c.MaxPoll)
	fault(c.Lag < 0, "Lag: %v, want it positive", c.Lag)
	fault(c.Sweep < 10*time.Millisecond, "Sweep: %v, want at least 10ms", c.Sweep)
	fault(c.DrainTimeout < 0, "DrainTimeout: %v, want it positive", c.DrainTimeout)
	fault(c.Poison < ParkKey || c.Poison > Block, "Poison: %d, want ParkKey, Skip or Block", int(c.Poison))
	fault(c.Throttle != nil && c.Throttle.Burst() < 1 && c.Throttle.Limit() != rate.Inf, "Throttle: a burst of 0 lets nothing through")
	return errors.Join(faults...)
}

// backoff returns the pause after the given number of failures in a row.
func (c RelayConfig) backoff(failures int, err error) time.Duration {
	d := c.MaxBackoff
	if shift := failures - 1; shift < 30 && c.MinBackoff<<shift < d && c.MinBackoff<<shift > 0 {
		d = c.MinBackoff << shift
	}
	d = d/2 + rand.N(d/2+1)
	var r *backstay.Rejected
	if errors.As(err, &r) && r.RetryAfter > d {
		d = min(r.RetryAfter, c.MaxBackoff)
	}
	return d
}

// MarshalJSON encodes the data of the config, with durations as strings ("1.5s"); limiters, policies and functions are left out.
func (c RelayConfig) MarshalJSON() ([]byte, error) { return configjson.Marshal(c) }

// UnmarshalJSON decodes what MarshalJSON encodes. Unknown fields are refused, fields not named keep their values.
func (c *RelayConfig) UnmarshalJSON(data []byte) error { return configjson.Unmarshal(data, c) }
