package outboxpgx

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// probeEvery is how long a listener may be silent before it sends itself a notification, so that a connection that is dead without having
	// been closed is noticed.
	probeEvery = 15 * time.Second
	// probeWait is how long that notification may take.
	probeWait = 5 * time.Second
	probe     = "p"
)

// ErrDeaf is why Listen ends when notifications do not arrive: a pooler that shares connections out by transaction swallows them, or the
// connection is dead. The relay polls meanwhile.
var ErrDeaf = errors.New("outboxpgx: notifications do not arrive")

// Listen implements [outbox.Listener]: hints of this process directly, those of others by NOTIFY on a connection of its own.
func (s *Source) Listen(ctx context.Context, ready func(), hint func(committed bool)) error {
	defer s.box.SQL.Subscribe(hint)()
	connect, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	conn, err := pgx.ConnectConfig(connect, s.pool.Config().ConnConfig)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		conn.Close(closing)
	}()
	channel := s.box.SQL.Channel()
	if _, err := conn.Exec(connect, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
		return err
	}
	for first := true; ; first = false {
		if err := s.ring(ctx, conn, channel, hint); err != nil {
			return err
		}
		if first {
			ready()
		}
		silent, cancel := context.WithTimeout(ctx, probeEvery)
		err := hear(silent, conn, hint, "")
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && silent.Err() == nil {
			return err
		}
	}
}

// ring sends a notification to itself and hears until it comes.
func (s *Source) ring(ctx context.Context, conn *pgx.Conn, channel string, hint func(bool)) error {
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	own := fmt.Sprintf("%s%d", probe, conn.PgConn().PID())
	if _, err := conn.Exec(ctx, "SELECT pg_notify($1, $2)", channel, own); err != nil {
		return err
	}
	if err := hear(ctx, conn, hint, own); err != nil {
		return fmt.Errorf("%w: %w", ErrDeaf, err)
	}
	return nil
}

// hear hands notifications on until ctx is over or the payload stop comes.
func hear(ctx context.Context, conn *pgx.Conn, hint func(bool), stop string) error {
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		switch {
		case n.Payload == "c":
			hint(true)
		case n.Payload == "e":
			hint(false)
		case n.Payload == stop:
			return nil
		}
	}
}
