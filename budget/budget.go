package budget

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// slots is how many parts of TTL deposits are told apart by. Ten make their age right to a tenth in 80 bytes.
const slots = 10

// Budget holds tokens. One Budget may serve any number of policies at the same time. The zero value has the defaults; a nil Budget
// allows everything. Do not copy one after its first use. All methods are safe for concurrent use and allocate nothing.
type Budget struct {
	// fullUntil is when the current slot ends, while all deposits are in it and Cap is reached: until then one more
	// changes nothing and needs no lock. 0: not so. Set and cleared with mu held, which makes a deposit that reads the old value one that
	// came before the withdrawal that clears it.
	fullUntil atomic.Int64

	table atomic.Pointer[Config] // the settings that a Table has given it; nil: in no table

	mu        sync.Mutex
	ready     bool // config and base are set; guarded by mu, as is all below
	config    Config
	limits    limits
	base      time.Time    // times are nanoseconds since; never changes once ready
	lots      [slots]int64 // deposits by age, a ring
	head      int64        // number of the newest slot since base
	deposited int64        // sum of lots
	reserve   int64        // tokens that do not age
	refilled  int64        // until when the floor has been added
	withdrawn int64
	denied    int64
}

// New returns a full Budget: one with Start tokens. It panics when c is not valid.
func New(c Config) *Budget {
	if err := c.Validate(); err != nil {
		panic(err)
	}
	b := &Budget{}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set(c)
	return b
}

// Deposit adds what one call brings. Each call deposits once, by the outermost policy that draws on the budget: a retry does; where hedges
// draw on it without a retry around them, the Budget itself stands in the chain as a policy.
func (b *Budget) Deposit() {
	if b == nil {
		return
	}
	if until := b.fullUntil.Load(); until != 0 && int64(time.Since(b.base)) < until {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.advance()
	b.lots[b.head%slots] += b.limits.deposit
	b.deposited += b.limits.deposit
	b.trim()
	if b.deposited == b.lots[b.head%slots] && b.deposited+b.reserve == b.limits.cap {
		b.fullUntil.Store((b.head + 1) * b.limits.slot)
	}
}

// Withdraw takes one token, and reports false when there is none: the extra attempt is then not made. It never waits. What
// was taken cannot be given back.
func (b *Budget) Withdraw() bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.advance()
	if b.deposited+b.reserve < token {
		b.denied++
		return false
	}
	b.withdrawn++
	b.fullUntil.Store(0)
	fromLots := min(b.deposited, token) // what ages is used first
	b.drop(fromLots)
	b.reserve -= token - fromLots
	return true
}

// Snapshot is a budget at one moment.
type Snapshot struct {
	Tokens    float64 // what can be withdrawn now; fractions included
	Withdrawn int64   // tokens taken so far
	Denied    int64   // withdrawals refused so far
}

// Snapshot returns the state. It changes nothing. That of a nil Budget is zero.
func (b *Budget) Snapshot() Snapshot {
	if b == nil {
		return Snapshot{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.advance()
	return Snapshot{Tokens: float64(b.deposited+b.reserve) / token, Withdrawn: b.withdrawn, Denied: b.denied}
}

// Config returns the settings in use, as they were given.
func (b *Budget) Config() Config {
	if b == nil {
		return Config{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.config
}

// Apply changes the settings of a budget in use. Tokens stay, as far as the new Cap allows; with another TTL the deposits count as made now. A
// new Start only matters for the refill. On an error nothing changes.
func (b *Budget) Apply(c Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ready {
		b.set(c)
		return nil
	}
	b.advance()
	sum := b.deposited
	b.config, b.limits = c, c.limits()
	b.lots = [slots]int64{}
	b.head = b.now() / b.limits.slot
	b.lots[b.head%slots] = sum
	b.reserve = min(b.reserve, b.limits.reserve)
	b.trim()
	b.fullUntil.Store(0)
	return nil
}

// MarshalJSON encodes the settings.
func (b *Budget) MarshalJSON() ([]byte, error) { return b.Config().MarshalJSON() }

// UnmarshalJSON makes b a budget with the settings in data, so that a Config with a *Budget can be read from a file. On
// one in use it does as Apply.
func (b *Budget) UnmarshalJSON(data []byte) error {
	var c Config
	if err := c.UnmarshalJSON(data); err != nil {
		return err
	}
	return b.Apply(c)
}

// set gives b its first settings. Called with mu held.
func (b *Budget) set(c Config) {
	b.ready, b.config, b.limits, b.base = true, c, c.limits(), time.Now()
	b.reserve = b.limits.start
}

// now never goes back, nor below zero, also when b is older than the clock (a budget from outside in a synctest bubble).
func (b *Budget) now() int64 { return max(int64(time.Since(b.base)), b.refilled) }

// advance drops deposits that are too old and adds what the floor has brought. Called with mu held.
func (b *Budget) advance() {
	if !b.ready {
		b.set(Config{})
	}
	now := b.now()
	slot := now / b.limits.slot
	if slot-b.head >= slots {
		b.lots, b.deposited, b.head = [slots]int64{}, 0, slot
	}
	for b.head < slot {
		b.head++
		b.deposited -= b.lots[b.head%slots]
		b.lots[b.head%slots] = 0
	}

	if b.limits.floor == 0 || b.reserve >= b.limits.reserve {
		b.refilled = now
		return
	}
	// 128 bits: a day of nanoseconds times a million does not fit 64.
	hi, lo := bits.Mul64(uint64(now-b.refilled), token)
	gained, rest := bits.Div64(hi, lo, uint64(b.limits.floor)) // floor ≥ 1e6 > hi, see Validate
	if missing := b.limits.reserve - b.reserve; gained >= uint64(missing) {
		b.reserve, b.refilled = b.limits.reserve, now
	} else {
		b.reserve += int64(gained)
		b.refilled = now - int64(rest/token) // the rest of a unit counts next time
	}
	b.trim()
}

// trim takes what exceeds Cap from the oldest deposits. Called with mu held.
func (b *Budget) trim() {
	if over := b.deposited + b.reserve - b.limits.cap; over > 0 {
		fromLots := min(over, b.deposited)
		b.drop(fromLots)
		b.reserve -= over - fromLots
	}
}

// drop removes n units of deposits, oldest first. Called with mu held; n is at most deposited.
func (b *Budget) drop(n int64) {
	b.deposited -= n
	for i := int64(1); n > 0; i++ {
		lot := &b.lots[(b.head+i)%slots] // the slot after the newest is the oldest
		part := min(n, *lot)
		*lot -= part
		n -= part
	}
}
