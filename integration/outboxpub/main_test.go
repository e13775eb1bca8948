package outboxpub_test

import (
	"crypto/rand"
	"net"
	"os"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// need skips the test when nothing listens at addr, and fails it when servers are required.
func need(tb testing.TB, what, addr string) {
	tb.Helper()
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err == nil {
		_ = c.Close()
		return
	}
	if os.Getenv("BACKSTAY_SERVERS") == "require" {
		tb.Fatalf("no %s at %s, and BACKSTAY_SERVERS=require: %v", what, addr, err)
	}
	tb.Skipf("SKIPPED: no %s at %s", what, addr)
}

// unique is a name that nobody else has.
func unique(prefix string) string { return prefix + "_" + rand.Text() }

// newMessage is a valid message.
func newMessage(topic, key, payload string) *outbox.Message {
	return &outbox.Message{ID: outbox.NewID(), Topic: topic, Key: key, Payload: []byte(payload), Attempt: 1}
}

// eventually asks until the answer is nil, or fails the test.
func eventually(tb testing.TB, limit time.Duration, ask func() error) {
	tb.Helper()
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var err error
	for {
		if err = ask(); err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-timeout.C:
			tb.Fatalf("after %v: %v", limit, err)
		}
	}
}

// results is what a relay hands over.
func results(n int) []error {
	r := make([]error, n)
	for i := range r {
		r[i] = outbox.ErrNoResult
	}
	return r
}
