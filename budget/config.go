package budget

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/backstay-go/backstay/internal/configjson"
)

// Config sets how many extra attempts a [Budget] allows. The zero value works. In JSON durations are strings, such as "10s".
type Config struct {
	// Ratio is the part of a token that each call deposits: extra attempts per call in the long run. Default 0.1, range 0.000001 to 100; negative:
	// calls deposit nothing.
	Ratio float64 `json:"ratio"`
	// TTL is how long a deposit lasts, counted to a tenth of it: it is used between 0.9 TTL and TTL. Default 10 s, range 10 ms to 24 h.
	TTL time.Duration `json:"ttl"`
	// Start is the number of tokens that a new budget has, and to which Floor refills it when it is idle. Default 2, range up to
	// 1,000,000; negative: 0, and Floor refills to one token.
	Start float64 `json:"start"`
	// Cap is the largest number of tokens that can be saved up. Default 10, or Start when that is more; at least Start and 1, up to 1,000,000;
	// negative: no cap.
	Cap float64 `json:"cap"`
	// Floor is the time in which one token comes without any calls. Default 10 s, range 1 ms to 24 h; negative: none comes.
	Floor time.Duration `json:"floor"`
}

// Validate reports every field that is out of range.
func (c Config) Validate() error {
	var errs []error
	bad := func(field, rule string, got any) {
		errs = append(errs, fmt.Errorf("budget: Config.%s must be %s; got %v", field, rule, got))
	}
	if !(c.Ratio <= 0 || c.Ratio >= 1e-6 && c.Ratio <= 100) {
		bad("Ratio", "between 0.000001 and 100, 0 for the default or negative for none", c.Ratio)
	}
	if c.TTL < 0 || c.TTL > 0 && c.TTL < 10*time.Millisecond || c.TTL > 24*time.Hour {
		bad("TTL", "between 10ms and 24h, or 0 for the default", c.TTL)
	}
	if !(c.Start <= 1e6) || math.IsInf(c.Start, 0) {
		bad("Start", "at most 1000000, 0 for the default or negative for none", c.Start)
	}
	if !(c.Cap <= 1e6) || math.IsInf(c.Cap, 0) || c.Cap > 0 && (c.Cap < 1 || c.Cap < c.Start) {
		bad("Cap", "between 1 and 1000000 and at least Start, 0 for the default or negative for none", c.Cap)
	}
	if c.Floor > 0 && c.Floor < time.Millisecond || c.Floor > 24*time.Hour {
		bad("Floor", "between 1ms and 24h, 0 for the default or negative for none", c.Floor)
	}
	return errors.Join(errs...)
}

// MarshalJSON encodes c with durations as strings and without fields that are zero.
func (c Config) MarshalJSON() ([]byte, error) { return configjson.Marshal(c) }

// UnmarshalJSON decodes into c, keeps fields that data does not name, and refuses unknown ones. It does not validate.
func (c *Config) UnmarshalJSON(data []byte) error { return configjson.Unmarshal(data, c) }

// token is the unit of account: whole numbers, so that ten deposits of a tenth make exactly one.
const token = 1_000_000

// limits is a Config with its defaults, in units of account.
type limits struct {
	deposit int64         // what a call brings
	reserve int64         // what the floor refills to
	start   int64         // what a new budget has
	cap     int64         // what all tokens together may be
	floor   time.Duration // per token; 0: none
	slot    int64         // a tenth of TTL, in nanoseconds
}

func (c Config) limits() limits {
	var l limits
	if c.Ratio == 0 {
		c.Ratio = 0.1
	}
	l.deposit = units(c.Ratio)
	if c.TTL == 0 {
		c.TTL = 10 * time.Second
	}
	l.slot = int64(c.TTL) / slots
	if c.Start == 0 {
		c.Start = 2
	}
	l.start = units(c.Start)
	l.reserve = max(l.start, token)
	switch {
	case c.Cap == 0:
		l.cap = max(10*token, l.reserve)
	case c.Cap < 0:
		l.cap = 1e12 * token // a day of 11 million tokens a second; sums stay far from overflow
	default:
		l.cap = units(c.Cap)
		l.start, l.reserve = min(l.start, l.cap), min(l.reserve, l.cap)
	}
	if c.Floor == 0 {
		c.Floor = 10 * time.Second
	}
	l.floor = max(c.Floor, 0)
	return l
}

func units(tokens float64) int64 { return int64(math.Round(max(tokens, 0) * token)) }
