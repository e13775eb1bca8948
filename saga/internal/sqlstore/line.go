package sqlstore

import (
	"context"
	"time"
)

// lineWait is how long a writer queues before it tries its luck with the
// others. It is not for ever, because a step's body holds its place and may
// itself use the store, which SQLite cannot grant either.
const lineWait = 10 * time.Second

// turn waits until it is the caller's turn to write. SQLite has one writer, and
// those who wait for it sleep and look again, in no order: among many writers
// the renewal of a lease might come too late. A channel serves them in the order in
// which they came. Other processes, and other users of the file in this one,
// are not in this line; they are met by the busy timeout.
func (s *Store) turn(ctx context.Context) (done func(), err error) {
	if s.line == nil {
		return func() {}, nil
	}
	leave := func() { <-s.line }
	select {
	case s.line <- struct{}{}:
		return leave, nil
	default:
	}
	t := time.NewTimer(lineWait)
	defer t.Stop()
	select {
	case s.line <- struct{}{}:
		return leave, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-t.C:
		return func() {}, nil
	}
}
