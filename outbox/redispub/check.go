package redispub

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/redis/go-redis/v9"
)

// Check implements [outbox.Checker]. It reports, joined: [ErrVersion] when Producer is set and the server is older than 8.6;
// [ErrNoStream] for each of [Config].Streams that does not exist, if Existing; a key that is not a stream; and, marked
// [outbox.ErrUnavailable], [ErrWindow] for a stream that forgets the ids of a producer within horizon, a server that does not keep what it is
// told (maxmemory-policy other than noeviction evicts whole streams), and one that does not answer.
//
// The error is marked as a whole only when all of its parts are.
func (p *Publisher) Check(ctx context.Context, horizon time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, p.config.Wait)
	defer cancel()
	info, err := p.client.Info(ctx, "server", "memory").Result()
	if err != nil {
		return outbox.Unavailable(fmt.Errorf("redispub: asking the server: %w", err))
	}
	var faults, warnings []error
	if version := infoField(info, "redis_version"); p.config.Producer != "" && !atLeast(version, 8, 6) {
		faults = append(faults, fmt.Errorf("%w: %s, Producer wants 8.6", ErrVersion, version))
	}
	if policy := infoField(info, "maxmemory_policy"); policy != "" && policy != "noeviction" {
		warnings = append(warnings, fmt.Errorf("redispub: maxmemory-policy is %s, want noeviction", policy))
	}
	for _, stream := range p.config.Streams {
		fault, warning := p.checkStream(ctx, stream, horizon)
		if fault != nil {
			faults = append(faults, fault)
		}
		if warning != nil {
			warnings = append(warnings, warning)
		}
	}
	if faults == nil {
		return outbox.Unavailable(errors.Join(warnings...))
	}
	return errors.Join(append(faults, warnings...)...)
}

func (p *Publisher) checkStream(ctx context.Context, stream string, horizon time.Duration) (fault, warning error) {
	kind, err := p.client.Type(ctx, stream).Result()
	switch {
	case err != nil:
		return nil, fmt.Errorf("redispub: asking for %q: %w", stream, err)
	case kind == "none" && p.config.Existing:
		return fmt.Errorf("%w: %q", ErrNoStream, stream), nil
	case kind == "none":
		return nil, nil
	case kind != "stream":
		return fmt.Errorf("redispub: %q is a %s, not a stream", stream, kind), nil
	case p.config.Producer == "":
		return nil, nil
	}
	info, err := p.client.XInfoStream(ctx, stream).Result()
	if err != nil {
		return nil, fmt.Errorf("redispub: asking for %q: %w", stream, err)
	}
	return nil, window(stream, info, horizon)
}

func window(stream string, info *redis.XInfoStream, horizon time.Duration) error {
	if d := time.Duration(info.IDMPDuration) * time.Second; d < horizon {
		return fmt.Errorf("%w: %q has %v, messages may be repeated for %v (XCFGSET)", ErrWindow, stream, d, horizon)
	}
	return nil
}

// infoField reads one line of the answer to INFO.
func infoField(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func atLeast(version string, major, minor int) bool {
	a, rest, _ := strings.Cut(version, ".")
	b, _, _ := strings.Cut(rest, ".")
	x, err1 := strconv.Atoi(a)
	y, err2 := strconv.Atoi(b)
	return err1 == nil && err2 == nil && (x > major || x == major && y >= minor)
}
