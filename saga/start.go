package saga

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// StartOption changes one Start.
type StartOption func(*NewInstance) error

// Tenant sets whose instance it is; business keys are unique within a tenant. At most 255 bytes.
func Tenant(name string) StartOption {
	return func(n *NewInstance) error { n.Tenant = name; return validText("tenant", name) }
}

// Priority lets instances with a higher number go first when many are due. Default 0.
func Priority(p int) StartOption { return func(n *NewInstance) error { n.Priority = p; return nil } }

// Deadline limits the whole saga: when d has passed before the pivot is done, it compensates.
// Default: none.
func Deadline(d time.Duration) StartOption {
	return func(n *NewInstance) error {
		if d <= 0 {
			return fmt.Errorf("saga: Deadline(%v) is not positive", d)
		}
		n.Deadline = d
		return nil
	}
}

// Handle names an instance that exists, or will when the caller's transaction commits.
type Handle struct {
	ID       string
	Existing bool // it existed before this Start
}

// Start makes an instance with a business key, such as "order-42" (1 to 255 bytes), at to: an Engine,
// a store, or a store bound to the caller's transaction. Starting the same key with the same input again
// returns the same handle; with another input it returns ErrConflict and changes nothing. Other errors are
// the store's, or ErrUnknown when the engine stopped or lost its lease meanwhile; then the instance may exist or not, and calling again finds out.
func (d *Definition[I]) Start(ctx context.Context, to Starter, key string, in I, opts ...StartOption) (Handle, error) {
	n, err := d.make(key, in, opts)
	if err != nil {
		return Handle{}, err
	}
	ctx, span := d.d.starting(ctx, &n)
	got, err := to.Start(ctx, []NewInstance{n})
	d.d.begun(ctx, span, got, err)
	if err != nil {
		return Handle{}, fmt.Errorf("saga: start %s %q: %w", n.Ref.Def, key, err)
	}
	if len(got) != 1 {
		return Handle{}, fmt.Errorf("saga: start %s %q: the store answered %d times", n.Ref.Def, key, len(got))
	}
	if got[0].Existing && got[0].Hash != n.Hash {
		return Handle{}, fmt.Errorf("%w: %s %q", ErrConflict, n.Ref.Def, key)
	}
	return Handle{got[0].ID, got[0].Existing}, nil
}

func (d *Definition[I]) make(key string, in I, opts []StartOption) (NewInstance, error) {
	n := NewInstance{ID: newID(), Ref: d.d.ref, Key: key, Codec: d.d.codec.Name()}
	if key == "" {
		return n, errors.New("saga: the business key is empty")
	}
	if err := validText("business key", key); err != nil {
		return n, err
	}
	for _, o := range opts {
		if err := o(&n); err != nil {
			return n, err
		}
	}
	var err error
	if n.Input, err = d.d.encode("input of "+d.d.ref.Def, in); err != nil {
		return n, err
	}
	if n.Hash, err = hashInput(d.d.codec, in, n.Input); err != nil {
		return n, &codecError{"hash of the input of " + d.d.ref.Def, err}
	}
	n.Log = []Entry{{Seq: 1, Event: EventStart, Next: d.d.first}}
	return n, nil
}

func validText(what, s string) error {
	if len(s) > 255 || !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		return fmt.Errorf("saga: the %s is over 255 bytes, not UTF-8 or has a NUL", what)
	}
	return nil
}

// newID returns a UUIDv7: ids of one time lie together in an index, and lists in order of creation.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	ms := time.Now().UnixMilli()
	for i := range 6 {
		b[i] = byte(ms >> (40 - 8*i))
	}
	b[6], b[8] = b[6]&0x0f|0x70, b[8]&0x3f|0x80
	var s [36]byte
	hex.Encode(s[0:], b[0:4])
	hex.Encode(s[9:], b[4:6])
	hex.Encode(s[14:], b[6:8])
	hex.Encode(s[19:], b[8:10])
	hex.Encode(s[24:], b[10:16])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	return string(s[:])
}

// start is a batch of starts on its way to the store.
type start struct {
	batch []NewInstance
	done  chan started // capacity 1
}

type started struct {
	all []Started
	err error
}

// Start makes instances that run here at once, while Run runs and there is room; otherwise they wait for a claim. Starts
// of concurrent callers share a transaction. When ctx ends first, the instances may exist or not.
func (e *Engine) Start(ctx context.Context, batch []NewInstance) ([]Started, error) {
	e.mu.Lock()
	node, life, running := e.node, e.life, e.running.Load()
	mine := running && node != "" && len(e.live)+e.pending+len(batch) <= e.cfg.InFlight
	if mine {
		e.pending += len(batch)
	}
	e.short = e.short || running && !mine
	e.mu.Unlock()
	if !running {
		return e.store.Start(ctx, batch)
	}
	batch = slices.Clone(batch)
	for i := range batch {
		if mine && e.defs[batch[i].Ref] != nil {
			batch[i].Node = node
		}
	}
	if e.starters.try() { // nobody to share a transaction with
		made, err := e.startBatch(life, batch)
		e.starters.leave()
		if err != nil && life.Err() != nil {
			err = cutOff(life)
		}
		e.begin(life, batch, made, mine)
		runtime.Gosched() // the drivers first: it wakes no other thread, and the caller goes on while they wait for the database
		return made, err
	}
	s := &start{batch: batch, done: make(chan started, 1)}
	e.starters.queue()
	select {
	case e.starts <- s:
	case <-ctx.Done():
		e.starters.unqueue(1)
		e.begin(life, batch, nil, mine)
		return nil, context.Cause(ctx)
	case <-life.Done():
		e.starters.unqueue(1)
		e.begin(life, batch, nil, mine)
		return nil, cutOff(life)
	}
	select {
	case res := <-s.done:
		e.begin(life, batch, res.all, mine)
		return res.all, res.err
	case <-life.Done():
		e.begin(life, batch, nil, mine)
		return nil, cutOff(life)
	}
}

// cutOff is what a start hears whose engine lost its lease, or stopped, while it was on its way.
func cutOff(life context.Context) error {
	if errors.Is(context.Cause(life), ErrStopped) {
		return fmt.Errorf("%w: the engine stopped during the start", ErrUnknown)
	}
	return fmt.Errorf("%w: the engine's lease was lost during the start", ErrUnknown)
}

// begin turns instances that were made under this node into tasks.
func (e *Engine) begin(life context.Context, batch []NewInstance, made []Started, counted bool) {
	if counted {
		e.mu.Lock()
		e.pending -= len(batch)
		e.mu.Unlock()
	}
	wake := false
	for i, s := range made {
		e.setClock(s.Now)
		n := &batch[i]
		if !s.Owned {
			wake = wake || !s.Existing
			continue
		}
		inst := Instance{ID: n.ID, Ref: n.Ref, Tenant: n.Tenant, Key: n.Key, State: Ready, Created: s.Now}
		if n.Deadline > 0 {
			inst.Deadline = s.Now.Add(n.Deadline)
		}
		if t := e.newTask(life, inst, 1); t != nil {
			e.crew.do(func() { t.first(e.defs[n.Ref], n) })
		}
	}
	if wake {
		e.Wake()
	}
}

// startAll starts whatever batches it finds waiting, in one transaction.
func (e *Engine) startAll(hard context.Context) {
	for {
		var got []*start
		var all []NewInstance
		select {
		case <-hard.Done():
			return
		case s := <-e.starts:
			got, all = append(got, s), append(all, s.batch...)
		}
		if !e.starters.enter(hard) {
			return
		}
		for full := false; !full && len(all) < e.cfg.Batch; {
			select {
			case s := <-e.starts:
				got, all = append(got, s), append(all, s.batch...)
			default:
				full = true
			}
		}
		e.starters.unqueue(len(got))
		made, err := e.startBatch(hard, all)
		e.starters.leave()
		for _, s := range got {
			switch {
			case err != nil && len(got) > 1: // one caller's trouble must not be another's
				one, err := e.startBatch(hard, s.batch)
				s.done <- started{one, err}
			case err != nil:
				s.done <- started{err: err}
			default:
				s.done <- started{all: made[:len(s.batch):len(s.batch)]}
				made = made[len(s.batch):]
			}
		}
	}
}

func (e *Engine) startBatch(ctx context.Context, batch []NewInstance) ([]Started, error) {
	call := e.patient(ctx)
	defer call.Cancel()
	made, err := e.store.Start(call, batch)
	if err == nil && len(made) != len(batch) {
		err = errors.New("saga: the store answered another number of starts")
	}
	return made, err
}
