package saga

import (
	"context"
	"fmt"
)

// By says who does something to an instance, and why. Both are kept in its history: Actor as it
// is, Reason through the definition's codec. Actor must not be empty.
type By struct {
	Actor  string // at most 255 bytes
	Reason string
}

func (b By) check() error {
	if b.Actor == "" {
		return fmt.Errorf("saga: By.Actor is empty")
	}
	return validText("actor", b.Actor)
}

// Signal sends a payload to the instance's Wait of that name. The sender's signalID makes it safe to
// repeat: a signal seen before is taken once, and nil is returned. One that comes before the wait
// is kept for it. ErrNotFound, ErrTerminal; ErrSignalUnknown when the definition has no such wait;
// ErrCodec when the payload does not fit the wait's type; ErrUnclaimable when the definition is not registered here. After another error it may have
// arrived; send it again with the same id.
func (e *Engine) Signal(ctx context.Context, id, name string, payload any, signalID string) error {
	if signalID == "" {
		return fmt.Errorf("saga: the signal's id is empty")
	}
	if err := validText("signal's id", signalID); err != nil {
		return err
	}
	inst, err := e.Get(ctx, id)
	if err != nil {
		return err
	}
	if inst.State.Terminal() {
		return ErrTerminal
	}
	d := e.defs[inst.Ref]
	if d == nil {
		return fmt.Errorf("%w: %s %d", ErrUnclaimable, inst.Ref.Def, inst.Ref.Ver)
	}
	if !d.signals[name] {
		return fmt.Errorf("%w: %q of %s %d", ErrSignalUnknown, name, inst.Ref.Def, inst.Ref.Ver)
	}
	data, err := d.encode("signal "+name, payload)
	if err != nil {
		return err
	}
	if err := d.fits(name, data); err != nil {
		return err
	}
	_, err = e.deliver(ctx, Mail{ID: id, MailKey: MailKey{MailSignal, name, signalID}, Data: data})
	return err
}

// Cancel asks the instance to compensate. Before the pivot, running bodies are cancelled and every intended step is undone;
// while the pivot runs, its answer decides; after it ErrAfterPivot, and the refusal is recorded.
// nil means that the request is recorded, not that it was granted: the history and Wait tell.
// A parked instance takes it up once an operator lets it go on. ErrNotFound, ErrTerminal.
func (e *Engine) Cancel(ctx context.Context, id string, by By) error {
	if err := by.check(); err != nil {
		return err
	}
	inst, err := e.Get(ctx, id)
	if err != nil {
		return err
	}
	m := Mail{ID: id, MailKey: MailKey{MailCancel, "", newID()}, Actor: by.Actor}
	if d := e.defs[inst.Ref]; d != nil {
		m.Data = d.note(by.Reason)
	}
	found, err := e.deliver(ctx, m)
	if err == nil && found.Pivot {
		err = ErrAfterPivot
	}
	return err
}

// fits reports whether some Wait for the signal can read the payload.
func (d *definition) fits(signal string, data []byte) error {
	var err error
	for _, n := range d.nodes {
		if n.signal != signal {
			continue
		}
		if err = n.typed(d, data); err == nil {
			return nil
		}
	}
	return err
}

func (e *Engine) deliver(ctx context.Context, m Mail) (Delivered, error) {
	mb, ok := e.store.(Mailbox)
	if !ok {
		return Delivered{}, fmt.Errorf("%w: mail", ErrUnsupported)
	}
	found, err := mb.Deliver(ctx, m)
	if err == nil {
		e.nudge(m.ID)
		e.Wake() // it may be leaving just now
	}
	return found, err
}
