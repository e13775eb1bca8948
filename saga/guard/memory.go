package guard

import (
	"context"
	"slices"
	"sync"
)

// Memory is a Runner that keeps its rows in memory, for tests. What it forgets
// when the process ends is what the guard is for. The zero value is ready; it
// may be used by many goroutines.
type Memory struct {
	mu   sync.Mutex
	rows map[rowKey]Row  // guarded by mu
	busy map[string]bool // keys with a call running; guarded by mu
}

type rowKey struct {
	key string
	op  Op
}

// Run makes the call; a second one with the same key, while the first runs,
// gets ErrRunning.
func (m *Memory) Run(ctx context.Context, c Call, fn Func) (Answer, error) {
	if err := c.Validate(); err != nil {
		return Answer{}, err
	}
	m.mu.Lock()
	if m.busy[c.Key] {
		m.mu.Unlock()
		return Answer{}, ErrRunning
	}
	if m.rows == nil {
		m.rows, m.busy = map[rowKey]Row{}, map[string]bool{}
	}
	m.busy[c.Key] = true
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.busy, c.Key)
		m.mu.Unlock()
	}()
	return Run(ctx, memoryLog{m}, c, fn)
}

// memoryLog is the Log of one call. It needs no transaction: the key is busy
// for as long as the call runs, and Run forgets what a failing call claimed.
type memoryLog struct{ m *Memory }

func (l memoryLog) Claim(_ context.Context, r Row) (Row, bool, error) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	k := rowKey{r.Key, r.Op}
	if have, ok := l.m.rows[k]; ok {
		return have, false, nil
	}
	l.m.rows[k] = r
	return r, true, nil
}

func (l memoryLog) Finish(_ context.Context, key string, op Op, result []byte) error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	k := rowKey{key, op}
	r := l.m.rows[k]
	r.Done, r.Result = true, slices.Clone(result)
	l.m.rows[k] = r
	return nil
}

func (l memoryLog) Forget(_ context.Context, key string, op Op) error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	delete(l.m.rows, rowKey{key, op})
	return nil
}
