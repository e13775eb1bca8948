package outbox

import (
	"context"
	"errors"
	"time"

	"github.com/backstay-go/backstay"
)

// Poison says what becomes of a message that the broker will not take: one whose error is marked [ErrPermanent] or [ErrTooLarge], or that
// has failed RelayConfig.MaxAttempts times. A message without key is always treated as by Skip, except under Block.
type Poison int

const (
	// ParkKey moves the message and every later one of its key to the dead letters; other keys flow, and a replay sends the key's messages in order. The default.
	ParkKey Poison = iota
	// Skip moves the message alone to the dead letters: later messages of its key pass it.
	Skip
	// Block keeps trying: the key stops, other keys flow, and the age of the oldest message rises until somebody looks.
	Block
)

// String returns "park-key", "skip" or "block".
func (p Poison) String() string {
	switch p {
	case Skip:
		return "skip"
	case Block:
		return "block"
	}
	return "park-key"
}

// MarshalText makes a Poison its name in JSON.
func (p Poison) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads "park-key", "skip" or "block"; empty is the default.
func (p *Poison) UnmarshalText(b []byte) error {
	switch string(b) {
	case "park-key", "":
		*p = ParkKey
	case "skip":
		*p = Skip
	case "block":
		*p = Block
	default:
		return errors.New("outbox: poison: want park-key, skip or block")
	}
	return nil
}

// doom sorts errors of publication by what they say about the message.
type doom int

const (
	counted   doom = iota // it was tried and refused this time
	uncounted             // nothing was learned about it
	unknown               // it may have been taken
	fatal                 // it will never be taken
)

func judge(err error) doom {
	switch {
	case errors.Is(err, ErrPermanent), errors.Is(err, ErrTooLarge):
		return fatal
	case errors.Is(err, ErrUnavailable), errors.Is(err, backstay.ErrRejected):
		return uncounted
	case errors.Is(err, ErrUnknownOutcome), errors.Is(err, ErrNoResult),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return unknown
	}
	return counted
}

// settle takes in what a batch has come to.
func (b *board) settle(now time.Time, batch []*record, errs []error) {
	for i := 0; i < len(batch); {
		l := batch[i].lane
		j := i + 1
		for j < len(batch) && batch[j].lane == l {
			j++
		}
		b.settleLane(now, l, batch[i:j], errs[i:j])
		i = j
	}
}

// settleLane handles the run of one lane: recs are its first records.
func (b *board) settleLane(now time.Time, l *lane, recs []*record, errs []error) {
	p := l.part
	l.sending = 0
	var failed *record
	var cause error
	var prev *record // the last record that stays
	for i, r := range recs {
		p.pending--
		if errs[i] == nil {
			l.remove(prev, r)
			b.counts.Published++
			b.finished(p, r)
			continue
		}
		b.counts.Failed++
		if judge(errs[i]) == unknown {
			b.counts.Unknown++
		}
		if failed == nil {
			failed, cause = r, errs[i]
		}
		prev = r
	}
	switch {
	case !p.owned || l.epoch != p.Epoch:
		b.abandon(l)
	case failed != nil:
		b.fail(now, l, failed, cause)
	default:
		b.pass(l)
	}
}

// pass goes on with a lane whose head got through.
func (b *board) pass(l *lane) {
	p := l.part
	p.heal(l)
	if l.head != nil {
		b.ready.push(l)
	}
	if l.gap != 0 {
		p.rewind(l.gap)
		p.gapped[l] = struct{}{}
		return
	}
	b.retire(l)
}

// fail decides about a lane whose head, r, did not get through.
func (b *board) fail(now time.Time, l *lane, r *record, err error) {
	p := l.part
	verdict := judge(err)
	if verdict == counted {
		r.attempts++
		b.tries[r] = err.Error()
	}
	l.cut(1)
	if l.failures++; l.failures == 1 {
		p.failing++
	}
	delete(p.gapped, l)
	poisoned := verdict == fatal || verdict == counted && b.rules.maxAttempts > 0 && r.attempts >= b.rules.maxAttempts
	switch {
	case poisoned && b.rules.poison == Skip, poisoned && b.rules.poison == ParkKey && l.key == "":
		l.parking = true
		b.park(p, r, err.Error(), false)
	case poisoned && b.rules.poison == ParkKey:
		l.parking = true
		if p.parked == nil {
			p.parked = map[string]struct{}{}
		}
		p.parked[l.key] = struct{}{}
		b.park(p, r, err.Error(), true)
	default:
		b.wait(l, now.Add(b.rules.backoff(l.failures, err)))
	}
}

// parkedDone takes in that dead letters are stored.
func (b *board) parkedDone(ps []*parking) {
	for _, k := range ps {
		b.counts.Parked++
		l, p := k.rec.lane, k.rec.lane.part
		p.pending--
		p.bury(k.rec.msg.Seq)
		delete(b.tries, k.rec)
		if !l.parking {
			continue
		}
		l.parking = false
		l.remove(nil, k.rec)
		b.pass(l) // under ParkKey what follows meets the parked key when it is read again
	}
}

// parkedRefused takes in that the partition has moved on: its owner or a replay decides anew.
func (b *board) parkedRefused(ps []*parking) {
	for _, k := range ps {
		l, p := k.rec.lane, k.rec.lane.part
		p.pending--
		l.parking = false
		delete(p.known, k.rec.msg.Seq)
		p.rewind(k.rec.msg.Seq)
		if l.head == k.rec {
			l.remove(nil, k.rec)
		}
		p.heal(l)
		if l.gap != 0 {
			p.rewind(l.gap)
			p.gapped[l] = struct{}{}
		}
		b.retire(l)
	}
}

// deleted takes in that the rows of these messages are gone.
func (b *board) deleted(rs []*record) {
	for _, r := range rs {
		p := r.lane.part
		p.pending--
		p.bury(r.msg.Seq)
		delete(b.tries, r)
	}
}

// bury notes that a message's row is gone. A read that is under way may still return it, unless it began under another lease.
func (p *partition) bury(seq int64) {
	if p.owned {
		p.buried = append(p.buried, seq)
	} else {
		delete(p.known, seq)
	}
}
