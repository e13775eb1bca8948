package natspub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/nats-io/nats.go/jetstream"
)

// Check implements [outbox.Checker]. It asks the server for the stream of each of [Config].Topics and reports, joined:
// [ErrNoStream] for a topic that no stream takes; and, marked [outbox.ErrUnavailable], [ErrWindow] for a stream whose duplicate
// window is shorter than horizon, a connection that gives up reconnecting, and a server that does not answer.
//
// The error is marked as a whole only when all of its parts are.
func (p *Publisher) Check(ctx context.Context, horizon time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, checkWait)
	defer cancel()
	var faults, warnings []error
	if n := p.js.Conn().Opts.MaxReconnect; n >= 0 {
		warnings = append(warnings, fmt.Errorf("natspub: the connection gives up for ever after %d attempts, want nats.MaxReconnects(-1)", n))
	}
	if _, err := p.js.AccountInfo(ctx); err != nil {
		warnings = append(warnings, fmt.Errorf("natspub: asking for JetStream: %w", err))
		return outbox.Unavailable(errors.Join(warnings...))
	}
	for _, topic := range p.config.Topics {
		subject := topic
		if p.config.Subject != nil {
			subject = p.config.Subject(&outbox.Message{Topic: topic})
		}
		window, err := p.window(ctx, subject)
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			faults = append(faults, fmt.Errorf("%w: %q", ErrNoStream, subject))
		case err != nil:
			warnings = append(warnings, fmt.Errorf("natspub: asking for the stream of %q: %w", subject, err))
		case window < horizon:
			warnings = append(warnings, fmt.Errorf("%w: %q has %v, messages may be repeated for %v", ErrWindow, subject, window, horizon))
		}
	}
	if faults == nil {
		return outbox.Unavailable(errors.Join(warnings...))
	}
	return errors.Join(append(faults, warnings...)...)
}

const checkWait = 10 * time.Second

func (p *Publisher) window(ctx context.Context, subject string) (time.Duration, error) {
	name, err := p.js.StreamNameBySubject(ctx, subject)
	if err != nil {
		return 0, err
	}
	stream, err := p.js.Stream(ctx, name)
	if err != nil {
		return 0, err
	}
	return stream.CachedInfo().Config.Duplicates, nil
}
