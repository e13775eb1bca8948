// Package saga runs durable operations of several steps which, when one fails, are undone in reverse: in the
// database that you have, without a server.
//
// A saga is a graph, typed and checked when the program starts. Each step says what becomes of it when the saga fails
// later: it has an undo (Compensate), leaves nothing behind (NothingToUndo), is the point of no return (Pivot), or
// comes after that and is repeated until it succeeds (Retriable).
//
//	var PlaceOrder = saga.Must(saga.Define("place-order", 3, func(b *saga.Builder[Order]) {
//		hold := saga.Step(b, "reserve", reserve).Compensate(release)
//		saga.Step(b, "charge", func(c *saga.Ctx, o Order) (Charge, error) {
//			return card.Charge(c, o.Card, o.Total, hold.Get(c).ID) // c carries the step's idempotency key
//		}, saga.Needs(hold)).Compensate(refund)
//		parcel := saga.Step(b, "book-carrier", bookCarrier).Pivot()
//		sagasql.TxStep(b, "confirm", confirm, saga.Needs(parcel)).Retriable() // effect and record in one transaction
//	}))
//
//	engine := saga.New(store, saga.Register(PlaceOrder))
//	err = engine.Run(ctx)                                          // blocks; hands its instances back when ctx ends
//	h, err := PlaceOrder.Start(ctx, store.Tx(tx), "order-42", o)    // in the transaction that inserts the order
//	h, err := PlaceOrder.Start(ctx, engine, "order-42", o)          // or by itself, beginning at once
//	err = engine.Wait(ctx, h.ID)
//
// Further nodes: [Builder.Parallel], [Builder.If], [Each], [Child], [Wait] for a signal, [Builder.Delay].
//
// # What holds, and what does not
//
// Before a body begins, the store has its intent; so after a crash it is known what may have happened. A step whose outcome is
// not known is repeated under the same idempotency key, or undone by it. An owner that was taken for dead writes nothing any
// more (fencing by epoch, leases on the store's clock). Bodies may therefore run more than once, and a late one may overlap its
// undo: the other side needs to be idempotent by key, as saga/guard makes it, or the effect has to be in the store's own
// database (sagasql.TxStep: exactly once). A saga does not isolate: others see its intermediate states; see [Ctx.Lock] and the guide
// in docs/guides/sagas.md.
//
// # How a body ends
//
//	nil                      done; the output is kept
//	an error                 repeated after a backoff, up to Attempts; then, before the pivot, the saga compensates
//	Fail(err)                a no: compensates at once; of the pivot too; after the pivot, parks
//	NoEffect(err)            nothing happened: this step needs no undo; also inferred, see below
//	Park(err)                an operator has to look
//	RetryAfter(d, err)       repeated, not before d
//	a timeout of the pivot   its outcome is in doubt: when attempts run out the saga parks, and an operator says done or not done
//	a panic                  as an error; when attempts run out the saga parks
//	a payload that cannot be encoded or decoded, or is too large: the saga parks
//
// A refusal by a policy of this module (breaker open, bulkhead full, rate limited), a failed dial and a call through grpcclient of
// which nothing was sent (its error's NeverSent says so) count as NoEffect, unless an attempt of
// any request of the body may have had effect (see backstay.Effects) or the body has taken a second key: then say NoEffect yourself, or split the step. What is done without our clients is
// not seen: a body that had an effect by other means must not return such an error as it is.
//
// # Defaults
//
//	attempts        3; undo 12; retriable without limit     Attempts
//	backoff         full jitter, 200 ms doubling to 30 s; undo to 1 min     Backoff
//	attempt         30 s     Timeout
//	payload         1 MiB each; 1,000 elements of Each     MaxPayload
//	lease           30 s, renewed every 10     Config.Lease
//	poll            1 s     Config.Poll
//	in flight       1,000 instances an engine     Config.InFlight
//	grace           10 s     Config.Grace
//
// # Events
//
// Config.Observer gets backstay.Events with Policy "saga", Name the definition, Key the instance:
//
//	EventState      one for each change of state: From, To, Err why; To "parked-fwd" and "parked-undo" are the ones to alert on
//	EventAttempt    one for each end of a body: Call the step, Reason "action" or "compensate", Attempt, Class, Err
//	EventReject     Reason "store": the store would not take a checkpoint, which is tried again
//
// # When not to use it
//
// For steps in one database use a transaction. For one message that has to leave with a transaction use outbox. For work that is
// data-dependent beyond If and Each, or runs for months through many versions, use an engine that replays code.
package saga
