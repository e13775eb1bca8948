package breaker_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
)

// model is what the documentation of Config says, written down as naively as can be: it keeps all endings and looks at all of them.
type model struct {
	breaker.Config // with no zero left in it

	now     time.Duration // since New
	mode    breaker.Mode
	state   breaker.State
	changes int // of state: a permit from before the last is stale
	endings []modelEnding
	row     []time.Duration // failures since the last success
	opens   int
	until   time.Duration // the end of the open period
	since   time.Duration // when the state began
	probes  []*modelPermit
	good    int
	bad     int
}

type modelEnding struct {
	at           time.Duration
	failed, slow bool
}

type modelPermit struct {
	real    *breaker.Permit
	changes int
	start   time.Duration
	probe   bool
	free    bool // counts for nothing
}

func (m *model) enter(s breaker.State) {
	m.state, m.since, m.probes, m.good, m.bad = s, m.now, nil, 0, 0
	m.changes++
	switch s {
	case breaker.Open:
		m.opens++
		d := m.OpenFor
		for range m.opens - 1 {
			d = min(2*d, m.MaxOpenFor)
		}
		m.until = m.now + d
	case breaker.Closed:
		m.opens, m.endings, m.row = 0, nil, nil
	}
}

func (m *model) judges() bool { return m.mode == breaker.Auto || m.mode == breaker.Shadow }

func (m *model) setMode(to breaker.Mode) {
	if to == m.mode {
		return
	}
	before := m.judges()
	m.mode = to
	if !before || !m.judges() {
		m.enter(breaker.Closed)
	}
}

// acquire says whether a call is let through, and with which permit.
func (m *model) acquire() (p *modelPermit, refused bool) {
	switch m.mode {
	case breaker.Disabled:
		return &modelPermit{free: true}, false
	case breaker.ForcedOpen:
		return nil, true
	case breaker.ForcedClosed:
		return &modelPermit{changes: m.changes, start: m.now}, false
	}
	if p := m.judge(); p != nil {
		return p, false
	}
	if m.mode == breaker.Shadow {
		return &modelPermit{free: true}, false
	}
	return nil, true
}

func (m *model) judge() *modelPermit {
	if m.state == breaker.HalfOpen && m.now-m.since >= m.MaxHalfOpen && m.good+m.bad > 0 {
		if m.good > m.bad {
			m.enter(breaker.Closed)
		} else {
			m.enter(breaker.Open)
		}
	}
	if m.state == breaker.Open {
		if m.now < m.until {
			return nil
		}
		m.enter(breaker.HalfOpen)
	}
	p := &modelPermit{start: m.now}
	if m.state == breaker.HalfOpen {
		for len(m.probes) > 0 && m.now-m.probes[0].start >= m.ProbeTimeout {
			m.probes = m.probes[1:]
		}
		if len(m.probes) >= m.Probes || len(m.probes)+m.good >= m.Successes {
			return nil
		}
		if n := len(m.probes); n > 0 && m.good == 0 && m.now-m.probes[n-1].start < m.ProbeGap {
			return nil
		}
		p.probe = true
		m.probes = append(m.probes, p)
	}
	p.changes = m.changes
	return p
}

func (m *model) done(p *modelPermit, class backstay.Class) {
	if p.free || p.changes != m.changes {
		return
	}
	slow := m.now-p.start >= m.SlowCall
	if p.probe {
		m.probed(p, class, slow)
	} else {
		m.count(class, slow)
	}
}

func (m *model) probed(p *modelPermit, class backstay.Class, slow bool) {
	for i := range m.probes {
		if m.probes[i] != p {
			continue
		}
		m.probes = append(m.probes[:i:i], m.probes[i+1:]...)
		switch {
		case class == backstay.Failure, class == backstay.Success && slow && m.SlowRate > 0:
			if m.bad++; m.bad > m.Tolerated {
				m.enter(breaker.Open)
			}
		case class == backstay.Success:
			if m.good++; m.good >= m.Successes {
				m.enter(breaker.Closed)
			}
		}
		return
	}
}

func (m *model) count(class backstay.Class, slow bool) {
	switch class {
	case backstay.Failure:
		m.row = append(m.row, m.now)
	case backstay.Success:
		m.row = nil
	default:
		return
	}
	failed := class == backstay.Failure
	m.endings = append(m.endings, modelEnding{m.now, failed, slow})
	if m.mode == breaker.ForcedClosed {
		return
	}
	total, failures, slows := m.window()
	look := failed || slow || total == m.MinCalls
	rate := look && total >= m.MinCalls &&
		(float64(failures) >= m.FailureRate*float64(total) || m.SlowRate > 0 && float64(slows) >= m.SlowRate*float64(total))
	if rate || failed && len(m.row) >= m.Consecutive && m.now-m.row[0] >= m.Spread {
		m.enter(breaker.Open)
	}
}

// window counts the endings that are not forgotten.
func (m *model) window() (total, failures, slow int) {
	in := m.endings
	if m.Count > 0 {
		in = in[max(len(in)-m.Count, 0):]
	}
	for _, e := range in {
		if tenth := m.Window / 10; m.Count == 0 && m.now/tenth-e.at/tenth >= 10 {
			continue
		}
		total++
		if e.failed {
			failures++
		}
		if e.slow {
			slow++
		}
	}
	return total, failures, slow
}

// check compares all that can be read.
func (m *model) check(b *breaker.Breaker) error {
	s := b.Snapshot()
	total, failures, slow := m.window()
	got := fmt.Sprint(s.Calls, s.Failures, s.Slow, s.Consecutive, s.Opens, s.Probes, s.Succeeded, s.Failed, s.For, s.Mode)
	want := fmt.Sprint(total, failures, slow, len(m.row), m.opens, len(m.probes), m.good, m.bad, m.now-m.since, m.mode)
	if got != want {
		return fmt.Errorf("calls, failures, slow, in a row, opens, probes, succeeded, failed, for, mode:\ngot  %s\nwant %s", got, want)
	}
	state, after := m.state, time.Duration(0)
	if state == breaker.Open {
		if after = max(m.until-m.now, 0); after == 0 {
			state = breaker.Due
		}
	}
	if m.mode == breaker.ForcedOpen {
		state = breaker.Open
	}
	if s.State != state || s.RetryAfter != after {
		return fmt.Errorf("got %v for %v more, want %v for %v", s.State, s.RetryAfter, state, after)
	}
	return nil
}

// FuzzModel runs a script against a breaker and the model. The first four bytes are the config; then each two are a step.
func FuzzModel(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00\x10\x00\x10\x00\x10\x00\x10\x00\x10\x00\x10\x00\x10\x00\x10\x00\x10\x00\x10\x00"))
	f.Add([]byte{5, 3, 0x21, 0x13, 0, 0, 16, 0, 0, 0, 16, 0, 48, 200, 0, 0, 0, 0, 16, 0, 32, 1, 48, 255, 0, 0, 16, 0, 64, 0, 0, 0, 32, 0, 0, 0, 48, 90, 0, 0})
	f.Add([]byte{0x83, 2, 0x12, 0x31, 80, 0, 0, 0, 48, 255, 0, 0, 0, 0, 16, 1, 80, 1, 80, 2, 0, 0, 80, 4, 0, 0, 16, 0, 80, 0})
	f.Add([]byte{0, 0, 0x81, 0, 16, 0, 48, 255, 0, 0, 0, 0, 48, 60, 0, 0, 0, 0, 48, 60, 0, 0, 16, 1, 0, 0, 0, 0, 48, 90, 0, 0}) // a gap between probes
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) < 4 {
			return
		}
		synctest.Test(t, func(t *testing.T) { runModel(t, script[:4], script[4:min(len(script), 2000)]) })
	})
}

func runModel(t *testing.T, c, script []byte) {
	m := &model{Config: breaker.Config{
		Window: 1000 * time.Millisecond, FailureRate: 0.5, MinCalls: 1 + int(c[0]&7), Consecutive: 1 + int(c[1]&7), Spread: -1,
		SlowCall: 100 * time.Millisecond, SlowRate: -1, OpenFor: 100 * time.Millisecond, MaxOpenFor: 700 * time.Millisecond, NoJitter: true, Ramp: -1,
		Probes: 1 + int(c[2]&3), Tolerated: int(c[2] >> 4 & 3), ProbeTimeout: 150 * time.Millisecond, MaxHalfOpen: 500 * time.Millisecond,
	}}
	m.Successes = m.Probes + int(c[3]&3)
	if c[2]&0x80 != 0 {
		m.ProbeGap = 60 * time.Millisecond
	}
	if c[0]&0x80 != 0 {
		m.Count = 8 + int(c[3]>>4)
	}
	if c[1]&0x80 != 0 {
		m.SlowRate = 0.25
	}
	if c[1]&0x40 != 0 {
		m.Spread = 200 * time.Millisecond
	}
	b := breaker.New(m.Config)
	m.Spread = max(m.Spread, 0)
	var permits []*modelPermit
	begin := time.Now()
	for i := 0; i+1 < len(script); i += 2 {
		op, arg := script[i]>>4, int(script[i+1])
		m.now = time.Since(begin)
		switch op {
		case 0, 8, 9:
			p, refused := m.acquire()
			real, err := b.Acquire(t.Context())
			if refused != (err != nil) || refused && !errors.Is(err, breaker.ErrOpen) {
				t.Fatalf("step %d: acquire: got error %v, want refused %v", i/2, err, refused)
			}
			if p != nil {
				p.real = real
				permits = append(permits, p)
			}
		case 3:
			time.Sleep(time.Duration(arg) * time.Millisecond)
			m.now = time.Since(begin)
		case 4:
			if m.judges() && m.state != breaker.Open {
				m.enter(breaker.Open)
			}
			b.Trip()
		case 5:
			m.setMode(breaker.Mode(arg % 5))
			b.SetMode(breaker.Mode(arg % 5))
		case 6:
			m.enter(breaker.Closed)
			b.Reset()
		default:
			if len(permits) == 0 {
				continue
			}
			n := arg % len(permits)
			p := permits[n]
			permits = append(permits[:n:n], permits[n+1:]...)
			switch op % 4 {
			case 1:
				m.done(p, backstay.Failure)
				p.real.DoneErr(t.Context(), errDown)
			case 2:
				m.done(p, backstay.Success)
				p.real.DoneErr(t.Context(), nil)
			default:
				m.done(p, backstay.Neutral)
				p.real.Cancel(t.Context())
			}
		}
		if err := m.check(b); err != nil {
			t.Fatalf("after step %d (%d %d): %v", i/2, op, arg, err)
		}
	}
}

// FuzzRecovers: from wherever a script has led, calls that succeed get through again within a bounded time, although none of the permits
// still out ever reports.
func FuzzRecovers(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 3, 3, 0, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		synctest.Test(t, func(t *testing.T) {
			b := breaker.New(breaker.Config{Consecutive: 3, Spread: -1, Tolerated: 1, Successes: 3, MinCalls: 5})
			ctx := t.Context()
			var out []*breaker.Permit
			for _, op := range script[:min(len(script), 1000)] {
				switch op % 8 {
				case 0, 1, 2:
					if p, err := b.Acquire(ctx); err == nil {
						out = append(out, p)
					}
				case 3, 4:
					if len(out) > 0 {
						out[0].DoneErr(ctx, []error{nil, errDown, backstay.Ignore(errDown)}[op%3])
						out = out[1:]
					}
				case 5:
					time.Sleep(time.Duration(op) * 10 * time.Millisecond)
				case 6:
					b.Trip()
				case 7:
					_ = try(b, errDown)
				}
			}
			// The longest open period and the lease of a probe, and then the ramp.
			for range 5 + 15 + 1 {
				_ = try(b, nil)
				time.Sleep(time.Second)
			}
			for range 10 {
				if err := try(b, nil); err != nil {
					t.Fatalf("got error %v: still refusing a working dependency; %+v", err, b.Snapshot())
				}
			}
		})
	})
}

// TestModel runs scripts that are longer than those a fuzzer comes by at first, the same ones each time.
func TestModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	n := 1000
	if testing.Short() {
		n = 100
	}
	for range n {
		c, script := make([]byte, 4), make([]byte, 400)
		for _, b := range [][]byte{c, script} {
			for i := range b {
				b[i] = byte(r.Uint32())
			}
		}
		fail := byte(r.IntN(4)) // some scripts have mostly failures, some mostly time
		for i := 0; i < len(script); i += 2 {
			switch op := script[i] >> 4; {
			case op > 10:
				script[i] = []byte{1, 1, 2, 3}[fail] << 4
			case op >= 4 && op <= 6 && r.IntN(8) > 0: // the hand of an operator would hide the rules
				script[i] = 0
			case op == 3:
				script[i+1] /= 1 << r.IntN(4)
			}
		}
		synctest.Test(t, func(t *testing.T) { runModel(t, c, script) })
	}
}
