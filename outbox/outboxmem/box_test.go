package outboxmem_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxmem"
	"github.com/backstay-go/backstay/outbox/outboxtest"
)

type tx struct{ *outboxmem.Tx }

func (t tx) Commit() error   { t.Tx.Commit(); return nil }
func (t tx) Rollback() error { t.Tx.Rollback(); return nil }

func TestStore(t *testing.T) {
	outboxtest.TestStore(t, func(*testing.T) outboxtest.Store {
		box := outboxmem.New()
		return outboxtest.Store{
			Source: box.Source(), Parts: 16,
			Begin:       func(context.Context) (outboxtest.StoreTx, error) { return tx{box.Begin()}, nil },
			DeadLetters: box.DeadLetters, Replay: box.Replay, Discard: box.Discard,
		}
	})
}

func TestInboxOnce(t *testing.T) {
	box := outboxmem.New()
	in := box.Inbox("billing")
	failed := errors.New("no")
	if err := in.Handle(t.Context(), "m", func(*outboxmem.Tx) error { return failed }); !errors.Is(err, failed) {
		t.Fatalf("got %v, want the handler's error", err)
	}
	ran := 0
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := in.Handle(t.Context(), "m", func(tx *outboxmem.Tx) error {
				ran++
				return tx.Enqueue(t.Context(), outbox.Message{Topic: "t"})
			}); err != nil {
				t.Errorf("Handle: got %v, want nil", err)
			}
		})
	}
	all.Wait()
	if ran != 1 || box.Len() != 1 {
		t.Errorf("handled %d times with %d messages, want once with 1", ran, box.Len())
	}
}
