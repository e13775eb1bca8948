package outboxtest

import (
	"context"
	"errors"
	"sync"

	"github.com/backstay-go/backstay/outbox"
)

// Fault is what [Faulty] does to one message.
type Fault int

const (
	Pass        Fault = iota // hand it on
	Refuse                   // an unmarked error: it counts as an attempt
	RefuseFinal              // [outbox.ErrPermanent]
	Away                     // [outbox.ErrUnavailable]
	LoseAck                  // hand it on, and answer [outbox.ErrUnknownOutcome] where it would have been success
	LoseMessage              // [outbox.ErrUnknownOutcome], not handed on
	Hang                     // [outbox.ErrUnknownOutcome] when ctx is over, not handed on
)

// ErrInjected is what every error of [Faulty] is.
var ErrInjected = errors.New("outboxtest: injected fault")

// Faulty is a publisher that fails on purpose in front of another one. LoseAck is the fault worth most: the message is published, and the
// relay must assume that it may not be.
type Faulty struct {
	// Next takes what passes. Required.
	Next outbox.Publisher

	// Plan says what happens to a message at its attempt-th publication through this Faulty, counted from 1. Nil: all pass. It is called
	// by several goroutines.
	Plan func(m *outbox.Message, attempt int) Fault

	mu       sync.Mutex
	attempts map[string]int // by id; guarded by mu
}

// KeepsKeyOrder reports what Next does.
func (f *Faulty) KeepsKeyOrder() bool {
	k, ok := f.Next.(outbox.KeyOrderer)
	return ok && k.KeepsKeyOrder()
}

// Publish implements [outbox.Publisher]. When Next keeps the order of keys, so does Faulty: behind a message that failed, those of its key
// are answered with [outbox.ErrUnavailable] and not handed on.
func (f *Faulty) Publish(ctx context.Context, batch []*outbox.Message, result []error) {
	var (
		pass   []*outbox.Message
		place  []int
		lost   = make(map[int]bool) // places whose success is not told
		failed = make(map[string]bool)
		hang   bool
		runs   = f.KeepsKeyOrder()
	)
	for i, m := range batch {
		if runs && m.Key != "" && failed[m.Key] {
			result[i] = outbox.Unavailable(ErrInjected)
			continue
		}
		fault := f.fault(m)
		switch fault {
		case Pass, LoseAck:
			lost[i] = fault == LoseAck
			pass, place = append(pass, m), append(place, i)
		case Refuse:
			result[i] = ErrInjected
		case RefuseFinal:
			result[i] = outbox.Permanent(ErrInjected)
		case Away:
			result[i] = outbox.Unavailable(ErrInjected)
		default:
			hang = hang || fault == Hang
			result[i] = outbox.UnknownOutcome(ErrInjected)
		}
		failed[m.Key] = failed[m.Key] || fault != Pass
	}
	if len(pass) > 0 {
		results := make([]error, len(pass))
		for i := range results {
			results[i] = outbox.ErrNoResult
		}
		f.Next.Publish(ctx, pass, results)
		for i, err := range results {
			if err == nil && lost[place[i]] {
				err = outbox.UnknownOutcome(ErrInjected)
			}
			result[place[i]] = err
		}
	}
	if hang {
		<-ctx.Done()
	}
}

func (f *Faulty) fault(m *outbox.Message) Fault {
	f.mu.Lock()
	if f.attempts == nil {
		f.attempts = make(map[string]int)
	}
	f.attempts[m.ID]++
	attempt := f.attempts[m.ID]
	f.mu.Unlock()
	if f.Plan == nil {
		return Pass
	}
	return f.Plan(m, attempt)
}
