package saga

import (
	"context"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/internal/deadline"
)

// join begins a life of this node: a new id with a lease. The life's context comes from hard. It reports until when the lease
// lasts at least: it has begun at some time between question and answer.
func (e *Engine) join(ctx, hard context.Context) (valid time.Time, err error) {
	node := newID()
	valid = time.Now().Add(e.cfg.Lease)
	call, cancel := context.WithDeadline(ctx, valid)
	defer cancel()
	p, err := e.store.Beat(call, Beat{Node: node, TTL: e.cfg.Lease})
	if err != nil {
		return time.Time{}, fmt.Errorf("saga: lease: %w", err)
	}
	e.setClock(p.Now)
	life, end := context.WithCancelCause(hard)
	e.calls.Store(deadline.Open(life, nil))
	e.mu.Lock()
	e.node, e.life, e.end = node, life, end
	e.mu.Unlock()
	return valid, nil
}

// beat renews the lease every third of it. When the node is declared dead, or when the lease may
// have run out unrenewed, every body's context ends with ErrFenced, what they held is dropped, and
// the node begins a new life. The margin of a tenth covers a body that is slow to notice.
func (e *Engine) beat(ctx, hard context.Context, valid time.Time) {
	every := max(time.Until(valid)-e.cfg.Lease*2/3, 0)
	for {
		timer := time.NewTimer(every)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		sent := time.Now()
		limit := valid.Add(-e.cfg.Lease / 10)
		// A hung connection leaves time for another try; the last one gets a twelfth in any case.
		call, cancel := context.WithDeadline(ctx, latest(earliest(limit, sent.Add(e.cfg.Lease/4)), sent.Add(e.cfg.Lease/12)))
		p, err := e.store.Beat(call, Beat{Node: e.nodeID(), TTL: e.cfg.Lease})
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && !p.Lost:
			valid, every = sent.Add(e.cfg.Lease), e.cfg.Lease/3
			e.setClock(p.Now)
			for _, id := range p.Mail {
				e.nudge(id)
			}
		case err == nil && p.Lost, !time.Now().Before(limit):
			e.lose()
			if until, err := e.join(hard, hard); err == nil {
				valid, every = until, max(time.Until(until)-e.cfg.Lease*2/3, 0)
				e.Wake()
			} else {
				every = e.cfg.Lease / 12
			}
		default:
			every = e.cfg.Lease / 12 // try again while the lease lasts
		}
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.After(b) {
		return b
	}
	return a
}

// lose ends this life: nothing held is ours any more.
func (e *Engine) lose() {
	e.mu.Lock()
	end := e.end
	for id := range e.live {
		e.askAgain(id)
	}
	e.node, e.live = "", map[string]*task{}
	e.mu.Unlock()
	end(ErrFenced)
	e.tel.lost.Add(context.Background(), 1)
}

// nudge tells the task of an instance that there is mail, and reports whether it is here.
func (e *Engine) nudge(id string) bool {
	e.mu.Lock()
	t := e.live[id]
	if t != nil {
		t.mailed.Store(true) // under mu: leave sees it
	}
	e.mu.Unlock()
	if t != nil {
		t.nudge()
	}
	return t != nil
}
