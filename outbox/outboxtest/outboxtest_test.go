package outboxtest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxtest"
)

func messages(keys ...string) []*outbox.Message {
	var all []*outbox.Message
	for i, key := range keys {
		all = append(all, &outbox.Message{ID: fmt.Sprint(i + 1), Topic: "t", Key: key, Seq: int64(i + 1), Payload: []byte("x")})
	}
	return all
}

func publish(p outbox.Publisher, batch []*outbox.Message) []error {
	result := make([]error, len(batch))
	for i := range result {
		result[i] = outbox.ErrNoResult
	}
	p.Publish(context.Background(), batch, result)
	return result
}

func TestRecorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r outboxtest.Recorder
		r.None(t, "")
		batch := messages("a", "b")
		go func() {
			time.Sleep(time.Second)
			publish(&r, batch[:1])
			time.Sleep(time.Second)
			publish(&r, batch[1:])
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		got, err := r.Wait(ctx, 2)
		if err != nil || len(got) != 2 {
			t.Fatalf("got %d messages, %v, want 2", len(got), err)
		}
		batch[0].Payload[0] = 'y'
		if string(got[0].Payload) != "x" {
			t.Error("the recorder keeps the publisher's message, want a copy")
		}
		if _, err := r.Wait(ctx, 3); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
	})
}

func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plan := map[string]outboxtest.Fault{
			"1": outboxtest.Pass, "2": outboxtest.Refuse, "3": outboxtest.RefuseFinal, "4": outboxtest.Away, "5": outboxtest.LoseAck,
			"6": outboxtest.LoseMessage, "7": outboxtest.Hang,
		}
		var r outboxtest.Recorder
		f := &outboxtest.Faulty{Next: &r, Plan: func(m *outbox.Message, attempt int) outboxtest.Fault {
			if attempt > 1 {
				return outboxtest.Pass
			}
			return plan[m.ID]
		}}
		batch := messages("a", "b", "c", "d", "e", "f", "g")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		result := make([]error, len(batch))
		began := time.Now()
		f.Publish(ctx, batch, result)
		if took := time.Since(began); took != time.Second {
			t.Errorf("got an answer after %v, want it at the deadline", took)
		}
		for i, want := range []error{nil, outboxtest.ErrInjected, outbox.ErrPermanent, outbox.ErrUnavailable, outbox.ErrUnknownOutcome, outbox.ErrUnknownOutcome, outbox.ErrUnknownOutcome} {
			if !errors.Is(result[i], want) {
				t.Errorf("result[%d]: got %v, want %v", i, result[i], want)
			}
		}
		if err := outboxtest.CheckComplete(r.Messages(), "1", "5"); err != nil {
			t.Error(err)
		}
		for i, err := range publish(f, batch[1:]) {
			if err != nil {
				t.Errorf("second attempt, result[%d]: got %v, want nil", i, err)
			}
		}
	})
}

// In front of a publisher of runs, Faulty is one too: behind a failure nothing of the key passes.
func TestFaultsInRun(t *testing.T) {
	for _, fault := range []outboxtest.Fault{outboxtest.Refuse, outboxtest.LoseAck, outboxtest.LoseMessage} {
		r := outboxtest.Recorder{Runs: true}
		f := &outboxtest.Faulty{Next: &r, Plan: func(m *outbox.Message, attempt int) outboxtest.Fault {
			if m.ID == "2" && attempt == 1 {
				return fault
			}
			return outboxtest.Pass
		}}
		result := publish(f, messages("a", "a", "b", "a"))
		if result[0] != nil || result[1] == nil || result[2] != nil || result[3] == nil {
			t.Errorf("fault %d: got %v, want the second and fourth to fail", fault, result)
		}
		for _, m := range r.Messages() {
			if m.ID == "4" {
				t.Errorf("fault %d: a message behind a failed one was handed on", fault)
			}
		}
	}
}

func TestCheckOrder(t *testing.T) {
	m := messages("a", "a", "b", "a", "", "")
	for name, test := range map[string]struct {
		deliveries []*outbox.Message
		ok         bool
	}{
		"in order":            {[]*outbox.Message{m[0], m[1], m[2], m[3]}, true},
		"keys interleaved":    {[]*outbox.Message{m[2], m[0], m[1], m[3]}, true},
		"a late repetition":   {[]*outbox.Message{m[0], m[1], m[0], m[3]}, true},
		"no key, no order":    {[]*outbox.Message{m[5], m[4]}, true},
		"overtaken":           {[]*outbox.Message{m[0], m[3], m[1]}, false},
		"overtaken, repeated": {[]*outbox.Message{m[1], m[0], m[1]}, false},
	} {
		if err := outboxtest.CheckOrder(test.deliveries); (err == nil) != test.ok {
			t.Errorf("%s: got %v, want ok %v", name, err, test.ok)
		}
	}
	if err := outboxtest.CheckComplete(m[:2], "1"); err == nil {
		t.Error("a message nobody asked for: got nil, want an error")
	}
	if err := outboxtest.CheckComplete(m[:1], "1", "2"); err == nil {
		t.Error("a missing message: got nil, want an error")
	}
}

// memory is a broker of the simplest kind, to run the suite against itself.
type memory struct{ outboxtest.Recorder }

// The suite passes a publisher that does what it should. That it fails one that does not is shown by the mutants of the real publishers.
func TestSuite(t *testing.T) {
	var m memory
	outboxtest.TestPublisher(t, outboxtest.Broker{
		New:   func(testing.TB) outbox.Publisher { return &m },
		Topic: func(testing.TB) string { return outbox.NewID() },
		Read: func(_ testing.TB, topic string, _ int) []*outbox.Message {
			var got []*outbox.Message
			for _, message := range m.Messages() {
				if message.Topic == topic {
					got = append(got, message)
				}
			}
			return got
		},
	})
}

func ExampleRecorder() {
	var published outboxtest.Recorder
	relayed := []*outbox.Message{{ID: "1", Topic: "orders", Key: "42", Payload: []byte(`{"total":100}`)}}
	result := make([]error, 1)
	published.Publish(context.Background(), relayed, result) // a relay's part
	for _, m := range published.Messages() {
		fmt.Println(m.Topic, m.Key, string(m.Payload))
	}
	// Output: orders 42 {"total":100}
}
