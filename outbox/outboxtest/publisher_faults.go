package outboxtest

import (
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
)

func keepsOrder(p outbox.Publisher) bool {
	k, ok := p.(outbox.KeyOrderer)
	return ok && k.KeepsKeyOrder()
}

func testKeepsOrder(t *testing.T, b Broker) {
	p, topic := b.open(t), b.Topic(t)
	const keys, each = 4, 25
	all := messages(topic, keys*each)
	for i, m := range all {
		m.Key = string(rune('a' + i%keys))
	}
	if keepsOrder(p) {
		b.mustPublish(t, p, all...)
	} else {
		for from := 0; from < len(all); from += keys {
			b.mustPublish(t, p, all[from:from+keys]...)
		}
	}
	sent := make(map[string]int64)
	for _, m := range all {
		sent[m.ID] = m.Seq
	}
	got := b.only(t, topic, all...)
	for _, m := range got {
		m.Seq = sent[m.ID] // not every broker carries it
	}
	if err := CheckOrder(got); err != nil {
		t.Error(err)
	}
}

func testConcurrent(t *testing.T, b Broker) {
	p, topic := b.open(t), b.Topic(t)
	all := messages(topic, 320)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			part := all[i*40 : (i+1)*40]
			for from := 0; from < len(part); from += 10 {
				for j, err := range publish(t, p, b.Wait, part[from:from+10]...) {
					if err != nil {
						t.Errorf("goroutine %d, message %d: got %v, want nil", i, from+j, err)
					}
				}
			}
		})
	}
	wg.Wait()
	b.only(t, topic, all...)
}

func testDeadline(t *testing.T, b Broker) {
	if b.Deafen == nil || b.Hear == nil {
		t.Skip("Broker.Deafen and Hear are not set")
	}
	p, topic := b.open(t), b.Topic(t)
	first := messages(topic, 1)
	b.mustPublish(t, p, first...) // so that there is a connection
	b.Deafen(t)
	heard := false
	defer func() {
		if !heard {
			b.Hear(t)
		}
	}()
	batch := messages(topic, 10)
	for i, err := range publish(t, p, 500*time.Millisecond, batch...) {
		if !errors.Is(err, outbox.ErrUnknownOutcome) {
			t.Errorf("result[%d]: got %v, want ErrUnknownOutcome", i, err)
		}
	}
	b.Hear(t)
	heard = true
	b.mustPublish(t, p, batch...)
	b.only(t, topic, append(first, batch...)...)
}

func testReconnects(t *testing.T, b Broker) {
	if b.Cut == nil || b.Mend == nil {
		t.Skip("Broker.Cut and Mend are not set")
	}
	p, topic := b.open(t), b.Topic(t)
	before := messages(topic, 5)
	b.mustPublish(t, p, before...)
	b.Cut(t)
	mended := false
	defer func() {
		if !mended {
			b.Mend(t)
		}
	}()
	during := messages(topic, 5)
	for range 3 {
		for i, err := range publish(t, p, 300*time.Millisecond, during...) {
			switch {
			case err == nil:
				t.Errorf("result[%d]: got success while the broker was away", i)
			case !errors.Is(err, outbox.ErrUnavailable) && !errors.Is(err, outbox.ErrUnknownOutcome):
				t.Errorf("result[%d]: got %v, want ErrUnavailable or ErrUnknownOutcome, which do not count as attempts", i, err)
			}
		}
	}
	b.Mend(t)
	mended = true
	b.mustPublish(t, p, during...)
	b.only(t, topic, append(before, during...)...)
}

func testLostAnswer(t *testing.T, b Broker) {
	if b.Deafen == nil || b.Cut == nil {
		t.Skip("Broker.Deafen and Cut are not set")
	}
	p, topic := b.open(t), b.Topic(t)
	before := messages(topic, 1)
	b.mustPublish(t, p, before...)
	b.Deafen(t)
	batch := messages(topic, 5)
	ended := make(chan []error, 1)
	go func() { ended <- publish(t, p, 2*time.Second, batch...) }()
	b.Read(t, topic, len(batch)+1) // the messages arrive, the answers do not
	b.Cut(t)
	result := <-ended
	b.Hear(t)
	b.Mend(t)
	for i, err := range result {
		if !errors.Is(err, outbox.ErrUnknownOutcome) {
			t.Errorf("result[%d]: got %v, want ErrUnknownOutcome", i, err)
		}
	}
	b.mustPublish(t, p, batch...)
	got := b.only(t, topic, append(before, batch...)...)
	if want := len(batch) + 1; b.Deduplicates && len(got) != want {
		t.Errorf("got %d messages, want %d: the broker should have recognised the repetition", len(got), want)
	}
}

func testClosed(t *testing.T, b Broker) {
	p, topic := b.New(t), b.Topic(t)
	c, ok := p.(io.Closer)
	if !ok {
		t.Skip("the publisher holds nothing that needs closing")
	}
	batch := messages(topic, 2)
	b.mustPublish(t, p, batch...)
	if err := c.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	for i, err := range publish(t, p, time.Second, messages(topic, 2)...) {
		if !errors.Is(err, outbox.ErrUnavailable) && !errors.Is(err, outbox.ErrUnknownOutcome) {
			t.Errorf("after Close, result[%d]: got %v, want ErrUnavailable", i, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	b.only(t, topic, batch...)
}
