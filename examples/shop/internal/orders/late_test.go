package orders

import (
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/examples/shop/internal/books"
	pb "github.com/backstay-go/backstay/examples/shop/internal/shoppb"
	"github.com/backstay-go/backstay/examples/shop/internal/store"
	"github.com/backstay-go/backstay/outbox/outboxsql"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/guard"
	"github.com/backstay-go/backstay/saga/sagasql"
)

// overtaken is an inventory as the orders see it when the client's first attempt at a reservation hangs in the network and the second, which overtakes it, is
// answered with a no.
type overtaken struct {
	pb.InventoryClient
	guard              guard.Memory
	arrive             func() error // the first attempt does, at last
	reserved, released int
}

func (o *overtaken) Reserve(ctx context.Context, _ *pb.ReserveRequest, _ ...grpc.CallOption) (*emptypb.Empty, error) {
	op, err := backstay.TakeOperation(ctx)
	if err != nil {
		return nil, err
	}
	o.arrive = func() error {
		_, err := o.guard.Run(context.Background(), guard.Call{Key: op.Key, Op: guard.OpAction}, func(context.Context, []byte) ([]byte, error) { o.reserved++; return nil, nil })
		return err
	}
	return nil, status.Error(codes.FailedPrecondition, "not enough")
}

func (o *overtaken) Release(ctx context.Context, _ *pb.ReleaseRequest, _ ...grpc.CallOption) (*emptypb.Empty, error) {
	op, err := backstay.TakeOperation(ctx)
	if err != nil {
		return nil, err
	}
	_, err = o.guard.Run(ctx, guard.Call{Key: op.Key, Op: guard.OpCompensate}, func(context.Context, []byte) ([]byte, error) { o.released++; return nil, nil })
	return &emptypb.Empty{}, err
}

// A no says nothing of an attempt that it has overtaken: the step is undone all the same, and the attempt refused when it arrives.
func TestLateReservation(t *testing.T) {
	db, err := store.Open(t.Context(), "orders", t.TempDir(), "", schema)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	inventory := &overtaken{}
	s := &shop{db: db, store: sagasql.New(db.DB, db.Dialect), box: outboxsql.New(db.Dialect, outboxsql.Config{}), inventory: inventory}
	defer s.store.Close()
	defer s.box.Close()
	if err := errors.Join(sagasql.Migrate(t.Context(), db.DB, db.Dialect), s.box.Migrate(t.Context(), db.DB)); err != nil {
		t.Fatal(err)
	}
	s.place = s.placeOrder()
	s.engine = saga.New(s.store, saga.Register(s.place), saga.Config{Writers: 1})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.engine.Run(ctx) }()
	id, err := s.accept(t.Context(), Order{ID: "o-1", SKU: "anchor", Quantity: 1, Cents: 100})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.engine.Wait(t.Context(), id); status.Code(errors.Unwrap(err)) != codes.FailedPrecondition {
		t.Errorf("the saga ended with %v, want the inventory's no", err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := inventory.arrive(); !errors.Is(err, guard.ErrPoisoned) {
		t.Errorf("the late attempt got %v, want ErrPoisoned", err)
	}
	var state string
	if err := db.QueryRowContext(t.Context(), "SELECT state FROM orders WHERE id = 'o-1'").Scan(&state); err != nil || state != books.Cancelled {
		t.Errorf("the order is %q, %v, want it cancelled", state, err)
	}
	lines, err := s.history(t.Context(), "o-1")
	if log := strings.Join(lines, "\n"); err != nil || !strings.Contains(log, "compensated") || !strings.Contains(log, "done reserve compensate") || !strings.Contains(log, "not enough") {
		t.Errorf("the saga's log, for who looks into it: got %v\n%s", err, log)
	}
	if inventory.reserved != inventory.released {
		t.Errorf("got %d reservations and %d releases", inventory.reserved, inventory.released)
	}
}
