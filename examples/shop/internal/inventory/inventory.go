// Package inventory is the service that holds the goods. Beside what is on the shelf it writes down every movement; as in package payments, nothing
// but the guard keeps one from being made twice.
package inventory

import (
	"context"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/backstay-go/backstay/examples/shop/internal/books"
	"github.com/backstay-go/backstay/examples/shop/internal/service"
	pb "github.com/backstay-go/backstay/examples/shop/internal/shoppb"
	"github.com/backstay-go/backstay/examples/shop/internal/store"
	"github.com/backstay-go/backstay/saga/guard"
)

// Goods are what the shop sells, with the price in cents and how many there are at first.
var Goods = []struct {
	SKU   string
	Cents int64
	Count int64
}{
	{"anchor", 2100, 200_000},
	{"shackle", 350, 200_000},
	{"halyard", 1290, 200_000},
	{"winch", 8990, 200_000},
	{"backstay", 4200, 200_000},
}

const schema = `
CREATE TABLE IF NOT EXISTS stock (sku TEXT PRIMARY KEY, at_first BIGINT NOT NULL, on_hand BIGINT NOT NULL, reserved BIGINT NOT NULL, shipped BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS movement (order_id TEXT NOT NULL, sku TEXT NOT NULL, kind TEXT NOT NULL, quantity BIGINT NOT NULL);
CREATE INDEX IF NOT EXISTS movement_order ON movement (order_id)`

// Main runs the service.
func Main(ctx context.Context, h *service.Host) error {
	db, err := store.Open(ctx, h.Name, h.Data, h.Postgres, schema)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := guard.Migrate(ctx, db.DB, db.Dialect); err != nil {
		return err
	}
	for _, g := range Goods {
		const fill = "INSERT INTO stock (sku, at_first, on_hand, reserved, shipped) VALUES (?, ?, ?, 0, 0) ON CONFLICT DO NOTHING"
		if _, err := db.ExecContext(ctx, db.Q(fill), g.SKU, g.Count, g.Count); err != nil {
			return err
		}
	}
	srv := h.GRPCServer(db, service.NewWorkers(16, 2*time.Millisecond, 6*time.Millisecond))
	s := &server{db: db, ctx: ctx, changed: make(chan struct{})}
	pb.RegisterInventoryServer(srv, s)
	books.Serve(h, db, "movement", "quantity")
	h.Control.HandleFunc("GET /shelf", func(w http.ResponseWriter, r *http.Request) {
		var shelf books.Shelf
		const sum = "SELECT COALESCE(SUM(at_first), 0), COALESCE(SUM(on_hand), 0), COALESCE(SUM(reserved), 0), COALESCE(SUM(shipped), 0), COALESCE(MIN(on_hand), 0) FROM stock"
		err := db.QueryRowContext(r.Context(), sum).Scan(&shelf.AtFirst, &shelf.OnHand, &shelf.Reserved, &shelf.Shipped, &shelf.Least)
		service.Answer(w, shelf, err)
	})
	h.Ready()
	return h.ServeGRPC(ctx, srv)
}

type server struct {
	pb.UnimplementedInventoryServer
	db  *store.DB
	ctx context.Context // ends the streams when the service stops

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change; guarded by mu
}

// move changes the shelf and writes the movement down, in the transaction of the guarded call. The three numbers say how what is on
// hand, reserved and shipped changes for each piece.
func (s *server) move(ctx context.Context, order, sku, kind string, quantity int64, onHand, reserved, shipped int64) error {
	tx := guard.TxFrom(ctx)
	res, err := tx.ExecContext(ctx, s.db.Q("UPDATE stock SET on_hand = on_hand + ?, reserved = reserved + ?, shipped = shipped + ? WHERE sku = ? AND on_hand + ? >= 0"),
		onHand*quantity, reserved*quantity, shipped*quantity, sku, onHand*quantity)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil {
		return err
	} else if n == 0 {
		return status.Errorf(codes.FailedPrecondition, "not enough of %q", sku)
	}
	if _, err := tx.ExecContext(ctx, s.db.Q("INSERT INTO movement (order_id, sku, kind, quantity) VALUES (?, ?, ?, ?)"), order, sku, kind, quantity); err != nil {
		return err
	}
	s.mu.Lock()
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	return nil
}

// Reserve implements pb.InventoryServer.
func (s *server) Reserve(ctx context.Context, r *pb.ReserveRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.move(ctx, r.GetOrder(), r.GetSku(), "reserve", r.GetQuantity(), -1, +1, 0)
}

// Release implements pb.InventoryServer. It is called only when there is a reservation: the guard knows.
func (s *server) Release(ctx context.Context, r *pb.ReleaseRequest) (*emptypb.Empty, error) {
	var sku string
	var quantity int64
	err := guard.TxFrom(ctx).QueryRowContext(ctx, s.db.Q("SELECT sku, quantity FROM movement WHERE order_id = ? AND kind = 'reserve'"), r.GetOrder()).Scan(&sku, &quantity)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, s.move(ctx, r.GetOrder(), sku, "release", quantity, +1, -1, 0)
}

// Commit implements pb.InventoryServer.
func (s *server) Commit(ctx context.Context, r *pb.CommitRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.move(ctx, r.GetOrder(), r.GetSku(), "ship", r.GetQuantity(), 0, -1, +1)
}

// Restock implements pb.InventoryServer.
func (s *server) Restock(ctx context.Context, r *pb.RestockRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.move(ctx, r.GetOrder(), r.GetSku(), "restock", r.GetQuantity(), +1, 0, -1)
}

// watchEvery is the shortest time between two messages of Watch.
const watchEvery = 500 * time.Millisecond

// Watch implements pb.InventoryServer.
func (s *server) Watch(_ *pb.WatchRequest, out grpc.ServerStreamingServer[pb.Stock]) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		stock, err := s.shelf(out.Context())
		if err != nil {
			return err
		}
		if err := out.Send(stock); err != nil {
			return err
		}
		if err := await(out.Context(), s.ctx, changed); err != nil {
			return err
		}
		if err := await(out.Context(), s.ctx, tick.C); err != nil { // so that many changes make one message
			return err
		}
	}
}

// await waits for c, the end of the stream or that of the service.
func await[T any](ctx, service context.Context, c <-chan T) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-service.Done():
		return status.Error(codes.Unavailable, "the service stops")
	}
}

func (s *server) shelf(ctx context.Context) (*pb.Stock, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT sku, on_hand FROM stock ORDER BY sku")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	stock := &pb.Stock{}
	for rows.Next() {
		item := &pb.Item{}
		if err := rows.Scan(&item.Sku, &item.OnHand); err != nil {
			return nil, err
		}
		stock.Items = append(stock.Items, item)
	}
	return stock, rows.Err()
}
