package saga

// Draft is a step whose kind has not been said. Exactly one of Compensate, NothingToUndo, Pivot
// and Retriable (for transactional steps also CompensateTx) completes it; Define refuses it otherwise.
type Draft[I, O any] struct{ n *node }

// Step adds a step: fn has an effect somewhere and returns what later steps need of it. fn may be
// called several times, always with the same Ctx.Key, until it succeeds; so its effect must be
// idempotent under that key, by a guard or by the other side. Its context ends with the step's
// timeout, with a cancel, or when the instance is fenced.
func Step[I, O any](b *Builder[I], name string, fn func(c *Ctx, in I) (O, error), opts ...StepOption) *Draft[I, O] {
	n := b.s.add(kindStep, name, opts)
	n.typed = typed[O](n)
	read := inputOf[I]()
	n.action = func(c *Ctx) ([]byte, error) {
		in, err := read(c)
		if err != nil {
			return nil, err
		}
		out, err := fn(c, in)
		if err != nil {
			return nil, err
		}
		return c.def.encode("output of "+n.static, out)
	}
	return &Draft[I, O]{n}
}

func typed[O any](n *node) func(*definition, []byte) error {
	return func(d *definition, data []byte) error { return d.decode("value for "+n.static, data, new(O)) }
}

// BindTx adds a step whose body runs in a transaction of the store, together with its record. It is
// meant for store packages, which give it a name and a type of their own (sagasql.TxStep): fn gets
// Tx.Handle, of the type that kind stands for, and the engine refuses the definition on a store
// whose TxKind is another. Such a step takes effect exactly once, and a failed attempt left nothing.
func BindTx[I, O any](b *Builder[I], kind, name string, fn func(c *Ctx, tx any, in I) (O, error), opts ...StepOption) *Draft[I, O] {
	d := Step(b, name, func(c *Ctx, in I) (O, error) { return fn(c, c.tx.Handle, in) }, opts...)
	d.n.txKind = kind
	return d
}

// Compensate gives the step an undo. It runs when the saga fails later, and also when this step
// itself failed or its outcome is in doubt (then res has no value), except after NoEffect. It must
// be idempotent and must win against a late action with the same key; see saga/guard. Its context
// is free of the saga's cancel and deadline. The options are the undo's own.
func (d *Draft[I, O]) Compensate(fn func(c *Ctx, in I, res Result[O]) error, opts ...StepOption) *StepRef[O] {
	n := d.n
	d.end(modeCompensate)
	n.back = undoDefaults
	for _, o := range opts {
		o(n, &n.back)
	}
	read := inputOf[I]()
	n.undo = func(c *Ctx) error {
		in, err := read(c)
		if err != nil {
			return err
		}
		var res Result[O]
		if c.result.known {
			if err := c.def.decode("output of "+n.static, c.result.data, &res.value); err != nil {
				return err
			}
			res.known = true
		}
		return fn(c, in, res)
	}
	return &StepRef[O]{n}
}

// CompensateTx is Compensate for a step of BindTx: fn runs in a transaction of the store too.
func (d *Draft[I, O]) CompensateTx(fn func(c *Ctx, tx any, in I, res Result[O]) error, opts ...StepOption) *StepRef[O] {
	if d.n.txKind == "" {
		d.n.in.def.fault(d.n.static, "CompensateTx on a step without a transaction")
	}
	r := d.Compensate(func(c *Ctx, in I, res Result[O]) error { return fn(c, c.tx.Handle, in, res) }, opts...)
	d.n.txUndo = true
	return r
}

// NothingToUndo says that the step leaves nothing behind that matters, and why: a read, a check.
func (d *Draft[I, O]) NothingToUndo(reason string) *StepRef[O] {
	d.end(modeNothing)
	d.n.reason = reason
	if reason == "" {
		d.n.in.def.fault(d.n.static, "NothingToUndo without a reason")
	}
	return &StepRef[O]{d.n}
}

// Pivot makes the step the point of no return: before it the saga can only go back as a whole, after
// it only on to its end. A definite no (Fail) compensates; an outcome in doubt parks, until an
// operator says what happened.
func (d *Draft[I, O]) Pivot() *StepRef[O] {
	d.end(modePivot)
	return &StepRef[O]{d.n}
}

// Retriable says that the step, after the pivot, succeeds in the end if it is repeated: it has no
// undo and by default no limit of attempts. One that fails for good parks.
func (d *Draft[I, O]) Retriable() *StepRef[O] {
	d.end(modeRetriable)
	if !d.n.act.attempted {
		d.n.act.Attempts = retriableAttempts
	}
	return &StepRef[O]{d.n}
}

func (d *Draft[I, O]) end(m mode) {
	if d.n.mode != modeNone {
		d.n.in.def.fault(d.n.static, "%s after %s: a step has one kind", m, d.n.mode)
		return
	}
	d.n.mode = m
}
