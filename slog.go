package backstay

import (
	"context"
	"log/slog"
)

// NewSlogObserver returns an observer that logs to l. Refusals, state changes, give-ups and forgotten calls are logged at
// Warn, every other event at Debug. Nothing is logged unless such an observer is given. A nil l logs nothing.
//
// Error texts are logged as they are: they are the caller's own.
func NewSlogObserver(l *slog.Logger) Observer {
	if l == nil {
		return ObserverFunc(func(context.Context, Event) {})
	}
	return &slogObserver{l}
}

type slogObserver struct{ log *slog.Logger }

func (s *slogObserver) Observe(ctx context.Context, e Event) {
	level := slog.LevelDebug
	switch e.Kind {
	case EventReject, EventState, EventStop, EventAbandon, EventUnkeyed:
		level = slog.LevelWarn
	}
	if !s.log.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 12)
	text := func(key, v string) {
		if v != "" {
			attrs = append(attrs, slog.String(key, v))
		}
	}
	text("policy", e.Policy)
	text("name", e.Name)
	text("call", e.Call)
	text("key", e.Key)
	text("from", e.From)
	text("to", e.To)
	text("reason", e.Reason)
	if e.Attempt != 0 {
		attrs = append(attrs, slog.Int("attempt", e.Attempt))
	}
	if e.Elapsed != 0 {
		attrs = append(attrs, slog.Duration("elapsed", e.Elapsed))
	}
	if e.Wait != 0 {
		attrs = append(attrs, slog.Duration("wait", e.Wait))
	}
	if e.Class != Unclassified {
		text("class", e.Class.String())
	}
	if e.Err != nil {
		attrs = append(attrs, slog.Any("err", e.Err))
	}
	s.log.LogAttrs(ctx, level, "backstay "+e.Kind.String(), attrs...)
}
