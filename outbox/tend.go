package outbox

import (
	"context"
	"time"
)

const (
	tendEvery  = time.Second // how often scheduled messages are looked for, at the latest
	tendLimit  = 1000        // messages moved in one call
	purgeEvery = time.Minute
)

// tendLoop moves scheduled messages that have come due, purges dead letters, and asks for the gauges: one after the other, so that all of
// it together holds one connection.
func (r *Relay) tendLoop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var purged, gauged time.Time
	gauger, gauges := r.src.(Gauger)
	gauges = gauges && r.cfg.Gauge > 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		keep := time.Duration(0)
		if r.cfg.KeepDead > 0 && time.Since(purged) >= purgeEvery {
			keep, purged = r.cfg.KeepDead, time.Now()
		}
		call, cancel := context.WithTimeout(ctx, 10*time.Second)
		got, err := r.src.Tend(call, tendLimit, keep)
		cancel()
		wait := tendEvery
		switch {
		case err != nil:
			if ctx.Err() == nil {
				r.log.WarnContext(ctx, "outbox: tend", "err", err)
			}
		case got.Due > 0:
			r.Hint(true)
			wait = 0
			if got.Due < tendLimit {
				wait = urgentPoll
			}
		case got.Next >= 0:
			wait = min(max(got.Next, time.Millisecond), wait)
		}
		if gauges && time.Since(gauged) >= r.cfg.Gauge {
			gauged = time.Now()
			r.gauge(ctx, gauger)
		}
		timer.Reset(wait)
	}
}

// listenLoop hears the store's hints, if it has any.
func (r *Relay) listenLoop(ctx context.Context) {
	l, ok := r.src.(Listener)
	if !ok {
		return
	}
	pause := 100 * time.Millisecond
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		err := l.Listen(ctx, func() {
			pause = 100 * time.Millisecond
			r.Hint(true) // what came while nobody listened
		}, r.Hint)
		if ctx.Err() != nil {
			return
		}
		r.log.WarnContext(ctx, "outbox: listen; polling meanwhile", "err", err, "again", pause)
		timer.Reset(pause)
		pause = min(2*pause, 5*time.Second)
	}
}
