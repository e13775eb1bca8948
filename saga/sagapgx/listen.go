package sagapgx

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/backstay-go/backstay/saga"
)

// channel is where hints go. All sagas of a database share it; a hint too many
// costs a look.
const channel = "backstay_saga"

const (
	// probeEvery is how long a listener may be silent before it sends itself a
	// notification, so that a connection that is dead without having been
	// closed is noticed.
	probeEvery = 15 * time.Second
	// probeWait is how long that notification, or a connection, may take.
	probeWait = 5 * time.Second
	// calm is the least time between two notifications of one process; what
	// comes meanwhile goes with the next.
	calm = time.Millisecond
	// maxMail bounds the instances that one notification names each by itself.
	// Beats find the rest.
	maxMail = 1000
)

// ErrDeaf is why Hints ends when notifications do not arrive: a pooler that
// shares connections out by transaction swallows them, or the connection is
// dead. The engine polls meanwhile and listens again.
var ErrDeaf = errors.New("sagapgx: notifications do not arrive")

// Hints implements [saga.Hinter]: hints of this store directly, those of other
// processes by LISTEN on a connection of its own.
func (s *Store) Hints(ctx context.Context, hint func(saga.Hint)) error {
	ctx, stop := context.WithCancel(ctx)
	var here sync.WaitGroup
	here.Go(func() { _ = s.Store.Hints(ctx, hint) }) // ends with ctx
	err := s.listen(ctx, hint)
	stop()
	here.Wait()
	return err
}

func (s *Store) listen(ctx context.Context, hint func(saga.Hint)) error {
	connect, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	c, err := s.own.connect(connect)
	if err != nil {
		return err
	}
	defer closeConn(ctx, c)
	if _, err := c.Exec(connect, "LISTEN "+channel); err != nil {
		return err
	}
	for first := true; ; first = false {
		if err := s.ring(ctx, c, hint); err != nil {
			return err
		}
		if first {
			hint(saga.Hint{}) // whatever was said before
		}
		silent, cancel := context.WithTimeout(ctx, probeEvery)
		err := s.hear(silent, c, hint, "")
		cancel()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && silent.Err() == nil {
			return err
		}
	}
}

// ring sends a notification to itself and hears until it comes.
func (s *Store) ring(ctx context.Context, c *pgx.Conn, hint func(saga.Hint)) error {
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	own := fmt.Sprintf("%s p %d", s.voice.name, c.PgConn().PID())
	if _, err := c.Exec(ctx, "SELECT pg_notify($1, $2)", channel, own); err != nil {
		return err
	}
	if err := s.hear(ctx, c, hint, own); err != nil {
		return fmt.Errorf("%w: %w", ErrDeaf, err)
	}
	return nil
}

// hear hands notifications of other stores on until ctx is over or the payload
// stop comes.
func (s *Store) hear(ctx context.Context, c *pgx.Conn, hint func(saga.Hint), stop string) error {
	for {
		n, err := c.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		if n.Payload == stop {
			return nil
		}
		from, what, _ := strings.Cut(n.Payload, " ")
		if from == s.voice.name {
			continue // our own engines have heard
		}
		switch kind, id, _ := strings.Cut(what, " "); kind {
		case "d":
			hint(saga.Hint{})
		case "s":
			hint(saga.Hint{Soon: true})
		case "m":
			hint(saga.Hint{Mail: id})
		}
	}
}

// voice sends the hints of a store to other processes: at once, then at most
// once in a millisecond, and never in anybody's transaction. A hint that
// cannot be sent is dropped.
type voice struct {
	own  *own
	name string // tells this store's notifications from others'

	mu        sync.Mutex
	due, soon bool            // guarded by mu: to be said
	mail      map[string]bool // guarded by mu: to be said
	talking   bool            // guarded by mu: a goroutine is at it
	talk      sync.WaitGroup
}

func newVoice(o *own) *voice { return &voice{own: o, name: rand.Text()[:12], mail: map[string]bool{}} }

func (v *voice) hint(h saga.Hint) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case h.Soon:
		v.soon = true
	case h.Mail == "":
		v.due = true
	case len(v.mail) < maxMail:
		v.mail[h.Mail] = true
	default:
		v.due = true
	}
	if !v.talking {
		v.talking = true
		v.talk.Go(v.run)
	}
}

// run says what there is to say and ends.
func (v *voice) run() {
	for {
		words := v.words()
		if words == nil {
			return
		}
		v.say(words)
		time.Sleep(calm)
	}
}

func (v *voice) words() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var words []string
	if v.due {
		words = append(words, v.name+" d")
	}
	if v.soon {
		words = append(words, v.name+" s")
	}
	for id := range v.mail {
		words = append(words, v.name+" m "+id)
	}
	v.due, v.soon = false, false
	clear(v.mail)
	v.talking = words != nil
	return words
}

func (v *voice) say(words []string) {
	ctx, cancel := context.WithTimeout(context.Background(), probeWait)
	defer cancel()
	c, release, err := v.own.Engine(ctx)
	if err != nil {
		return
	}
	_, err = c.Exec(ctx, "SELECT count(pg_notify('"+channel+"', w)) FROM unnest($1::text[]) AS w", words)
	release(err)
}
