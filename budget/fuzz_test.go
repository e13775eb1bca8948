package budget_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/budget"
)

// model is the same budget, told naively: every deposit is kept with the tenth of TTL in which it was made, in millionths.
type model struct {
	ratio, reserve, reserveMax, cap int64
	slot, floor                     time.Duration
	lots                            []lot // oldest first
	now, refill                     time.Duration
}

type lot struct{ slot, units int64 }

func (m *model) sum() (n int64) {
	for _, l := range m.lots {
		n += l.units
	}
	return n
}

func (m *model) take(n int64) int64 {
	for n > 0 && len(m.lots) > 0 {
		part := min(n, m.lots[0].units)
		m.lots[0].units -= part
		n -= part
		if m.lots[0].units == 0 {
			m.lots = m.lots[1:]
		}
	}
	return n
}

func (m *model) trim() {
	if over := m.sum() + m.reserve - m.cap; over > 0 {
		m.reserve -= m.take(over)
	}
}

func (m *model) age() {
	current := int64(m.now / m.slot)
	for len(m.lots) > 0 && m.lots[0].slot <= current-10 {
		m.lots = m.lots[1:]
	}
	unit := m.floor / 1_000_000
	if m.reserve >= m.reserveMax {
		m.refill = m.now
	}
	for m.now-m.refill >= unit && m.reserve < m.reserveMax {
		gain := min(int64((m.now-m.refill)/unit), m.reserveMax-m.reserve)
		m.reserve += gain
		m.refill += time.Duration(gain) * unit
	}
	if m.reserve >= m.reserveMax {
		m.refill = m.now
	}
	m.trim()
}

func (m *model) deposit() {
	m.age()
	m.lots = append(m.lots, lot{int64(m.now / m.slot), m.ratio})
	m.trim()
}

func (m *model) withdraw() bool {
	m.age()
	if m.sum()+m.reserve < 1_000_000 {
		return false
	}
	m.reserve -= m.take(1_000_000)
	return true
}

func FuzzBudget(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 1, 1, 200, 0, 1})
	f.Add([]byte{1, 1, 1, 250, 250, 250, 250, 250, 1, 1, 1})
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 2000 {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			b := budget.New(budget.Config{})
			m := &model{ratio: 100_000, reserve: 2_000_000, reserveMax: 2_000_000, cap: 10_000_000, slot: time.Second, floor: 10 * time.Second}
			for i, op := range ops {
				switch {
				case op < 100:
					for range int(op) + 1 {
						b.Deposit()
						m.deposit()
					}
				case op < 160:
					if got, want := b.Withdraw(), m.withdraw(); got != want {
						t.Fatalf("step %d: withdraw: got %v, want %v", i, got, want)
					}
				default:
					d := time.Duration(op-159) * 37 * time.Millisecond
					time.Sleep(d)
					m.now += d
				}
				m.age()
				if got, want := b.Snapshot().Tokens, float64(m.sum()+m.reserve)/1e6; got != want {
					t.Fatalf("step %d: got %v tokens, want %v", i, got, want)
				}
			}
		})
	})
}
