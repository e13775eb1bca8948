// Package payments is the service that holds the customers' money. It keeps a ledger: every movement is a row, and nothing in the
// table keeps a movement from being made twice. That is package guard's work, and the books would show it.
package payments

import (
	"context"
	"database/sql"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/backstay-go/backstay/examples/shop/internal/books"
	"github.com/backstay-go/backstay/examples/shop/internal/service"
	pb "github.com/backstay-go/backstay/examples/shop/internal/shoppb"
	"github.com/backstay-go/backstay/examples/shop/internal/store"
	"github.com/backstay-go/backstay/saga/guard"
)

// DeclinedCard is a card that is never good.
const DeclinedCard = "4000-0000-0000-0002"

const schema = `
CREATE TABLE IF NOT EXISTS ledger (order_id TEXT NOT NULL, kind TEXT NOT NULL, cents BIGINT NOT NULL);
CREATE INDEX IF NOT EXISTS ledger_order ON ledger (order_id)`

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
	srv := h.GRPCServer(db, service.NewWorkers(16, 5*time.Millisecond, 15*time.Millisecond))
	pb.RegisterPaymentsServer(srv, &server{db: db})
	books.Serve(h, db, "ledger", "cents")
	h.Ready()
	return h.ServeGRPC(ctx, srv)
}

type server struct {
	pb.UnimplementedPaymentsServer
	db *store.DB
}

// write adds a movement in the transaction of the guarded call.
func (s *server) write(ctx context.Context, order, kind string, cents int64) error {
	_, err := guard.TxFrom(ctx).ExecContext(ctx, s.db.Q("INSERT INTO ledger (order_id, kind, cents) VALUES (?, ?, ?)"), order, kind, cents)
	return err
}

// Authorise implements pb.PaymentsServer.
func (s *server) Authorise(ctx context.Context, r *pb.AuthoriseRequest) (*pb.AuthoriseReply, error) {
	if r.GetCard() == DeclinedCard {
		return nil, status.Error(codes.FailedPrecondition, "the card is declined")
	}
	return &pb.AuthoriseReply{Authorisation: "auth-" + r.GetOrder()}, s.write(ctx, r.GetOrder(), "authorise", r.GetCents())
}

// Void implements pb.PaymentsServer. It is called only when there is an authorisation: the guard knows.
func (s *server) Void(ctx context.Context, r *pb.VoidRequest) (*emptypb.Empty, error) {
	var cents sql.NullInt64
	err := guard.TxFrom(ctx).QueryRowContext(ctx, s.db.Q("SELECT SUM(cents) FROM ledger WHERE order_id = ? AND kind = 'authorise'"), r.GetOrder()).Scan(&cents)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, s.write(ctx, r.GetOrder(), "void", cents.Int64)
}

// Capture implements pb.PaymentsServer.
func (s *server) Capture(ctx context.Context, r *pb.CaptureRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.write(ctx, r.GetOrder(), "capture", r.GetCents())
}

// Refund implements pb.PaymentsServer.
func (s *server) Refund(ctx context.Context, r *pb.RefundRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.write(ctx, r.GetOrder(), "refund", r.GetCents())
}
