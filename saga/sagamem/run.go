package sagamem

import (
	"context"

	"github.com/backstay-go/backstay/saga"
)

// Run runs one saga to its end on a store of its own: nil when it completed, else *saga.Error. When ctx ends first,
// running bodies get saga.Config.Grace to end and nothing is undone.
func Run[I any](ctx context.Context, d *saga.Definition[I], in I, opts ...saga.Option) error {
	engine := saga.New(New(), append([]saga.Option{saga.Register(d)}, opts...)...)
	run, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- engine.Run(run) }()
	h, err := d.Start(ctx, engine, "run", in)
	if err == nil {
		err = engine.Wait(ctx, h.ID)
	}
	stop()
	if runErr := <-ended; runErr != nil {
		return runErr
	}
	return err
}
