package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/backstay-go/backstay"
)

// publishLoop hands batches to the publisher, several at once, until stopping; it returns when the last has come back.
func (r *Relay) publishLoop(stopping, work context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	places := make(chan struct{}, r.cfg.InFlight)
	timer := time.NewTimer(0)
	defer timer.Stop()
	size := r.cfg.Batch
	if t := r.cfg.Throttle; t != nil && t.Burst() > 0 {
		size = min(size, t.Burst())
	}
	var spare []*record
	for {
		select {
		case <-stopping.Done():
			return
		case places <- struct{}{}:
		}
		if stopping.Err() != nil {
			return
		}
		b := r.board
		b.mu.Lock()
		now, place := time.Now(), 0
		batch, until := b.take(now, size, spare[:0])
		next := b.next()
		if held := b.line.hold(now, len(batch), size, b.queued()); !held.IsZero() {
			b.putBack(batch)
			batch = batch[:0]
			if next.IsZero() || held.Before(next) {
				next = held
			}
		} else if len(batch) > 0 {
			place = b.line.begin()
		}
		expired, crowded := len(b.done) > 0, b.crowded && len(batch) > 0
		if crowded {
			b.crowded = false
		}
		b.mu.Unlock()
		if crowded {
			r.look() // there is room again
		}
		if expired {
			r.flush.raise()
		}
		if len(batch) > 0 {
			spare = nil
			running.Go(func() {
				r.publish(stopping, work, batch, until, place)
				<-places
			})
			continue
		}
		spare = batch
		<-places
		wait := time.Hour
		if !next.IsZero() {
			wait = max(time.Until(next), 0)
		}
		timer.Reset(wait)
		select {
		case <-stopping.Done():
			return
		case <-timer.C:
		case <-r.kick:
		}
	}
}

// publish makes one call of the publisher, that of a place in the line, and settles what it says.
func (r *Relay) publish(stopping, work context.Context, batch []*record, until time.Time, place int) {
	errs := make([]error, len(batch))
	if t := r.cfg.Throttle; t != nil {
		if err := t.WaitN(stopping, len(batch)); err != nil {
			r.putBack(batch)
			return
		}
	}
	if !time.Now().Before(until) { // it took long to get here: the partitions may be another's by now
		r.putBack(batch)
		return
	}
	began := time.Now()
	ctx, cancel := context.WithDeadline(work, earlier(began.Add(r.cfg.PublishTimeout), until))
	r.send(ctx, batch, errs)
	cancel()
	ended := time.Now()
	failed := slices.IndexFunc(errs, func(err error) bool { return err != nil }) // one of a batch tells the story
	attempt := 0
	if failed >= 0 {
		attempt = batch[failed].msg.Attempt // of this one: once settled, it may be on its next
	}

	b := r.board
	b.mu.Lock()
	b.line.end(place, began, ended, failed >= 0)
	b.settle(ended, batch, errs)
	full := len(b.done) >= r.cfg.Batch
	for _, rec := range batch {
		if p := rec.lane.part; p.draining {
			r.drained(p)
		}
	}
	b.mu.Unlock()
	if full {
		r.full.Store(true)
	}
	r.flush.raise()
	r.kick.raise()
	r.tele.published(ctx, batch, errs, ended.Sub(began))
	if failed >= 0 {
		m := batch[failed].msg
		r.log.WarnContext(ctx, "outbox: publish", "id", m.ID, "topic", m.Topic, "attempt", attempt, "err", errs[failed])
	}
}

// putBack undoes the beginning of a call.
func (r *Relay) putBack(batch []*record) {
	r.board.mu.Lock()
	r.board.line.under--
	r.board.putBack(batch)
	for _, rec := range batch {
		r.drained(rec.lane.part)
	}
	r.board.mu.Unlock()
	r.kick.raise()
}

// send publishes through the policy. A policy that retries repeats what has failed and is not lost for good.
func (r *Relay) send(ctx context.Context, batch []*record, errs []error) {
	messages := make([]*Message, 0, len(batch))
	index := make([]int, 0, len(batch)) // of messages in batch
	for i, rec := range batch {
		m := rec.msg
		if r.cfg.Opener != nil {
			m = m.Clone() // so that the next publication and OnParked find it sealed
			if errs[i] = r.open(ctx, m); errs[i] != nil {
				continue
			}
		}
		messages, index = append(messages, m), append(index, i)
	}
	if len(messages) == 0 {
		return
	}
	ctx, end := r.tele.publishing(ctx, messages)
	defer func() { end(errs) }()
	for _, i := range index {
		errs[i] = ErrNoResult
	}
	if r.pipeline == nil {
		r.call(ctx, messages, index, errs)
		return
	}
	tried := false
	out := r.pipeline.Handle(ctx, backstay.CallInfo{Name: "outbox.publish", Repeat: backstay.Unsaid}, backstay.Handler(func(ctx context.Context, _ *backstay.Call) backstay.Outcome {
		if tried {
			messages, index = unfinished(messages, index, errs)
		}
		tried = true
		r.call(ctx, messages, index, errs)
		return outcome(index, errs)
	}))
	if !tried { // refused: nothing was sent
		err := out.Err
		if err == nil {
			err = errors.New("outbox: the policy made no call")
		}
		for _, i := range index {
			errs[i] = Unavailable(err)
		}
	}
}

func (r *Relay) open(ctx context.Context, m *Message) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("outbox: opener panicked: %T", v)
		}
	}()
	return r.cfg.Opener.Open(ctx, m)
}

// call is one call of Publish. A panic leaves what has no result unknown; its value may hold a payload, so only its type is told.
func (r *Relay) call(ctx context.Context, messages []*Message, index []int, errs []error) {
	result := make([]error, len(messages))
	for i := range result {
		result[i] = ErrNoResult
	}
	returned := false
	defer func() {
		if !returned {
			v := recover() // nil after runtime.Goexit, which ends this goroutine all the same
			for i, err := range result {
				if err == ErrNoResult {
					result[i] = UnknownOutcome(fmt.Errorf("publisher panicked: %T", v))
				}
			}
		}
		for i, at := range index {
			errs[at] = result[i]
		}
	}()
	r.pub.Publish(ctx, messages, result)
	returned = true
}

// unfinished keeps the messages that another attempt may help.
func unfinished(messages []*Message, index []int, errs []error) ([]*Message, []int) {
	var m []*Message
	var ix []int
	for i, at := range index {
		if errs[at] != nil && judge(errs[at]) != fatal {
			m, ix = append(m, messages[i]), append(ix, at)
		}
	}
	return m, ix
}

// outcome says what a call was to a policy: a failure when the broker is in trouble, a success when it answered, be it by refusing
// single messages.
func outcome(index []int, errs []error) backstay.Outcome {
	var worst error
	again := backstay.No
	for _, at := range index {
		err := errs[at]
		if err == nil {
			continue
		}
		switch judge(err) {
		case fatal:
			if worst == nil {
				worst = err
			}
		default:
			worst, again = err, backstay.Yes
		}
	}
	out := backstay.Outcome{Err: worst, Class: backstay.Success, Again: again, Sent: backstay.SentYes}
	if again == backstay.Yes {
		out.Class = backstay.Failure
	}
	return out
}
