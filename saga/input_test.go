package saga_test

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"testing"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagamem"
)

// counting is JSON that counts what it decodes.
type counting struct {
	saga.JSON
	n *atomic.Int64
}

func (c counting) Decode(data []byte, v any) error {
	c.n.Add(1)
	return json.Unmarshal(data, v)
}

// TestInputOfItsOwn: a body that changes the input it got changes nothing for the next; an input that cannot be changed
// is decoded once.
func TestInputOfItsOwn(t *testing.T) {
	type cart struct {
		Lines []string
		By    map[string]int
	}
	type plain struct {
		Name string
		At   [2]int
	}
	var cartReads, plainReads atomic.Int64
	carts := saga.Must(saga.Define("carts", 1, func(b *saga.Builder[cart]) {
		for _, name := range []string{"a", "b", "c"} {
			saga.Step(b, name, func(_ *saga.Ctx, in cart) (struct{}, error) {
				if in.Lines[0] != "x" || in.By["x"] != 1 {
					t.Errorf("step %s got %v, which the step before has changed", name, in)
				}
				in.Lines[0], in.By["x"] = "y", 2
				return struct{}{}, nil
			}).NothingToUndo("a test")
		}
	}, saga.WithCodec(counting{n: &cartReads})))
	plains := saga.Must(saga.Define("plains", 1, func(b *saga.Builder[plain]) {
		for _, name := range []string{"a", "b", "c"} {
			saga.Step(b, name, func(_ *saga.Ctx, in plain) (struct{}, error) {
				if in != (plain{"x", [2]int{1, 2}}) {
					t.Errorf("step %s got %v, which the step before has changed", name, in)
				}
				in.Name, in.At[0] = "y", 3
				return struct{}{}, nil
			}).NothingToUndo("a test")
		}
	}, saga.WithCodec(counting{n: &plainReads})))
	e := saga.New(sagamem.New(), saga.Register(carts, plains))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	h1, err1 := carts.Start(ctx, e, "k", cart{[]string{"x"}, map[string]int{"x": 1}})
	h2, err2 := plains.Start(ctx, e, "k", plain{"x", [2]int{1, 2}})
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	for _, h := range []saga.Handle{h1, h2} {
		if err := e.Wait(ctx, h.ID); err != nil {
			t.Fatal(err)
		}
	}
	if got := cartReads.Load(); got != 3 {
		t.Errorf("the cart was decoded %d times, want once for each of 3 bodies", got)
	}
	if got := plainReads.Load(); got != 1 {
		t.Errorf("the plain input was decoded %d times, want once", got)
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}
