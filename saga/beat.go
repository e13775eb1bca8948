package saga

import (
	"context"
	"fmt"
	"time"
)

// join begins a life of this node: a new id with a lease. The life's context comes from hard.
func (e *Engine) join(ctx, hard context.Context) error {
	node := newID()
	p, err := e.store.Beat(ctx, Beat{Node: node, TTL: e.cfg.Lease})
	if err != nil {
		return fmt.Errorf("saga: lease: %w", err)
	}
	e.setClock(p.Now)
	life, end := context.WithCancelCause(hard)
	e.mu.Lock()
	e.node, e.life, e.end = node, life, end
	e.mu.Unlock()
	return nil
}

// beat renews the lease every third of it. When the node is declared dead, or when the lease may
// have run out unrenewed, every body's context ends with ErrFenced, what they held is dropped, and
// the node begins a new life. The margin of a tenth covers a body that is slow to notice.
func (e *Engine) beat(ctx, hard context.Context) {
	every := e.cfg.Lease / 3
	valid := time.Now().Add(e.cfg.Lease)
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
			if e.join(hard, hard) == nil {
				valid, every = sent.Add(e.cfg.Lease), e.cfg.Lease/3
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
	e.node, e.live = "", map[string]*task{}
	e.mu.Unlock()
	end(ErrFenced)
}

// nudge tells the task of an instance, if it is here, that there is mail.
func (e *Engine) nudge(id string) {
	e.mu.Lock()
	t := e.live[id]
	e.mu.Unlock()
	if t != nil {
		t.mailed.Store(true)
		t.nudge()
	}
}
