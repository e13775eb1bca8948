package outboxsql

import (
	"context"
	"database/sql"
	"fmt"
	"hash/fnv"
	"strings"
	"sync"
	"time"

	"github.com/backstay-go/backstay/internal/sqldialect"
)

// Channel is the name under which hints are notified on PostgreSQL; the payload is "c" after a commit and "e" before one.
func (b *Box) Channel() string {
	name := "backstay_" + strings.ReplaceAll(b.cfg.Table, ".", "_")
	if len(name) <= 63 {
		return name
	}
	h := fnv.New64a()
	h.Write([]byte(b.cfg.Table))
	return fmt.Sprintf("backstay_outbox_%016x", h.Sum64())
}

// Wake tells the relays that messages have been committed, for callers that own the commit. It does not wait. Without it they look out for
// 50 ms after an Enqueue, and poll later.
func (b *Box) Wake() { b.hint(true) }

// Hint tells the relays that messages are about to be committed, as Enqueue does, for companions that write them themselves.
func (b *Box) Hint() { b.hint(false) }

func (b *Box) hint(committed bool) {
	b.mu.Lock()
	local := make([]func(bool), 0, len(b.hints))
	for h := range b.hints {
		local = append(local, *h)
	}
	b.mu.Unlock()
	for _, h := range local {
		h(committed)
	}
	if b.d == sqldialect.Postgres && !b.cfg.Silent {
		b.bell.ring(committed)
	}
}

// Subscribe calls hint for the hints of this process until the returned function is called.
func (b *Box) Subscribe(hint func(committed bool)) (cancel func()) {
	b.mu.Lock()
	b.hints[&hint] = struct{}{}
	b.mu.Unlock()
	return func() {
		b.mu.Lock()
		delete(b.hints, &hint)
		b.mu.Unlock()
	}
}

// RingWith sends hints to other processes by notify instead of a NOTIFY on Config.Hints. It is for companions such as outboxpgx; notify is called
// from one goroutine at a time, and its errors lose the hint.
func (b *Box) RingWith(notify func(ctx context.Context, payload string) error) { b.bell.with(notify) }

// Close waits for a hint that is being sent, two seconds at the most. The box can be used again afterwards.
func (b *Box) Close() { b.bell.wait() }

// bell sends hints to other processes: at once when none was sent for a millisecond, else when the millisecond is over, all that came meanwhile in
// one; that of a commit need not wait for that of an enqueue. Each notifying commit takes a lock of the whole cluster, so there are at most two
// thousand a second of a process, never in the caller's transaction. The goroutine lives only while there is something to send.
type bell struct {
	channel string
	commit  chan struct{} // holds one when a commit's hint is pending

	mu      sync.Mutex // guards the rest
	notify  func(ctx context.Context, payload string) error
	running chan struct{} // closed at the end of the goroutine; nil: it does not run
	pending string        // "": nothing
}

// bellPause is the pause between two hints of a process.
const bellPause = time.Millisecond

func newBell(channel string) *bell { return &bell{channel: channel, commit: make(chan struct{}, 1)} }

// use rings on db from now on, unless told otherwise by Config or RingWith.
func (l *bell) use(db *sql.DB) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.notify != nil {
		return
	}
	l.notify = func(ctx context.Context, payload string) error {
		_, err := db.ExecContext(ctx, "SELECT pg_notify($1, $2)", l.channel, payload)
		return err
	}
}

func (l *bell) with(notify func(ctx context.Context, payload string) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.notify = notify
}

func (l *bell) ring(committed bool) {
	payload := "e"
	if committed {
		payload = "c"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.notify == nil {
		return
	}
	if l.pending != "c" {
		l.pending = payload
	}
	if committed {
		select {
		case l.commit <- struct{}{}:
		default:
		}
	}
	if l.running == nil {
		l.running = make(chan struct{})
		go l.run(l.running)
	}
}

func (l *bell) run(ended chan struct{}) {
	defer close(ended)
	pause := time.NewTimer(bellPause)
	defer pause.Stop()
	for {
		l.mu.Lock()
		payload, notify := l.pending, l.notify
		l.pending = ""
		select {
		case <-l.commit: // it is in the payload
		default:
		}
		if payload == "" {
			l.running = nil
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		_ = notify(ctx, payload) // a lost hint is found by polling
		cancel()
		pause.Reset(bellPause)
		if payload == "c" {
			<-pause.C
			continue
		}
		select {
		case <-pause.C:
		case <-l.commit:
		}
	}
}

func (l *bell) wait() {
	l.mu.Lock()
	running := l.running
	l.mu.Unlock()
	if running != nil {
		<-running
	}
}
