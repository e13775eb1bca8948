package orders

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/backstay-go/backstay/examples/shop/internal/books"
	"github.com/backstay-go/backstay/examples/shop/internal/shipping"
	pb "github.com/backstay-go/backstay/examples/shop/internal/shoppb"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagasql"
)

// Order is what a customer wants, and the input of both sagas.
type Order struct {
	ID       string `json:"id"`
	SKU      string `json:"sku"`
	Quantity int64  `json:"quantity"`
	Cents    int64  `json:"cents"` // in all
	Card     string `json:"card"`
}

// none is the output of a step that has none.
type none struct{}

// patient is how a step before the pivot is repeated: about a minute and a half, while the customer is told "accepted, payment pending".
// decided is for the pivot: when it fails for good, nobody knows whether money moved, so it gets as many attempts as the others together.
var (
	patient = []saga.StepOption{saga.Timeout(10 * time.Second), saga.Attempts(40), saga.Backoff(100*time.Millisecond, 4*time.Second)}
	decided = []saga.StepOption{saga.Timeout(10 * time.Second), saga.Attempts(100), saga.Backoff(100*time.Millisecond, 4*time.Second)}
	forever = []saga.StepOption{saga.Timeout(10 * time.Second), saga.Backoff(100*time.Millisecond, 4*time.Second)}
	undoing = []saga.StepOption{saga.Timeout(10 * time.Second), saga.Attempts(100), saga.Backoff(100*time.Millisecond, 4*time.Second)}
)

// pendingFor is how long an order may wait for its pivot; then it is cancelled.
const pendingFor = 90 * time.Second

// The two sagas.
const (
	placing  = "place-order"
	bringing = "return-order"
)

// placeOrder is the saga of an order. Accept and confirm work in the orders' own database: their effect, the event in the outbox and the saga's record are one
// commit, so that an order closes exactly when its saga ends. All others call services, with the step's idempotency key.
func (s *shop) placeOrder() *saga.Definition[Order] {
	return saga.Must(saga.Define(placing, 1, func(b *saga.Builder[Order]) {
		sagasql.TxStep(b, "accept", func(*saga.Ctx, *sql.Tx, Order) (none, error) {
			return none{}, nil // the row came with the saga; this step is there for its undo, which comes last
		}).CompensateTx(func(c *saga.Ctx, tx *sql.Tx, o Order, _ saga.Result[none]) error {
			return s.close(c, tx, o.ID, books.Cancelled)
		}, undoing...)
		saga.Step(b, "reserve", func(c *saga.Ctx, o Order) (none, error) {
			_, err := s.inventory.Reserve(c, &pb.ReserveRequest{Order: o.ID, Sku: o.SKU, Quantity: o.Quantity})
			return none{}, verdict(err)
		}, patient...).Compensate(func(c *saga.Ctx, o Order, _ saga.Result[none]) error {
			_, err := s.inventory.Release(c, &pb.ReleaseRequest{Order: o.ID})
			return err
		}, undoing...)
		money := saga.Step(b, "authorise", func(c *saga.Ctx, o Order) (string, error) {
			reply, err := s.payments.Authorise(c, &pb.AuthoriseRequest{Order: o.ID, Cents: o.Cents, Card: o.Card})
			return reply.GetAuthorisation(), verdict(err)
		}, patient...).Compensate(func(c *saga.Ctx, o Order, _ saga.Result[string]) error {
			_, err := s.payments.Void(c, &pb.VoidRequest{Order: o.ID})
			return err
		}, undoing...)
		saga.Step(b, "capture", func(c *saga.Ctx, o Order) (none, error) {
			_, err := s.payments.Capture(c, &pb.CaptureRequest{Order: o.ID, Authorisation: money.Get(c), Cents: o.Cents})
			return none{}, verdict(err)
		}, append(decided, saga.Needs(money))...).Pivot()
		saga.Step(b, "book-shipment", s.book, forever...).Retriable()
		saga.Step(b, "hand-over", func(c *saga.Ctx, o Order) (none, error) {
			_, err := s.inventory.Commit(c, &pb.CommitRequest{Order: o.ID, Sku: o.SKU, Quantity: o.Quantity})
			return none{}, err
		}, forever...).Retriable()
		sagasql.TxStep(b, "confirm", func(c *saga.Ctx, tx *sql.Tx, o Order) (none, error) {
			return none{}, s.close(c, tx, o.ID, books.Confirmed)
		}).Retriable()
	}))
}

// returnOrder is the saga of goods that come back: a pivot at once, since the customer has been promised the money.
func (s *shop) returnOrder() *saga.Definition[Order] {
	return saga.Must(saga.Define(bringing, 1, func(b *saga.Builder[Order]) {
		sagasql.TxStep(b, "promise", func(*saga.Ctx, *sql.Tx, Order) (none, error) { return none{}, nil }).Pivot()
		saga.Step(b, "refund", func(c *saga.Ctx, o Order) (none, error) {
			_, err := s.payments.Refund(c, &pb.RefundRequest{Order: o.ID, Cents: o.Cents})
			return none{}, err
		}, forever...).Retriable()
		saga.Step(b, "restock", func(c *saga.Ctx, o Order) (none, error) {
			_, err := s.inventory.Restock(c, &pb.RestockRequest{Order: o.ID, Sku: o.SKU, Quantity: o.Quantity})
			return none{}, err
		}, forever...).Retriable()
		sagasql.TxStep(b, "close", func(c *saga.Ctx, tx *sql.Tx, o Order) (none, error) {
			return none{}, s.close(c, tx, o.ID, books.Returned)
		}).Retriable()
	}))
}

// verdict tells a no of the business from a failure. It does not promise that nothing happened: the no rolled back what it did itself, but it may have overtaken
// an earlier attempt of the same call, which finds more in stock when it arrives. The undo takes back what there is, and refuses what comes late.
func verdict(err error) error {
	if status.Code(err) == codes.FailedPrecondition {
		return saga.Fail(err)
	}
	return err
}

// book asks the carrier to fetch the parcel.
func (s *shop) book(c *saga.Ctx, o Order) (string, error) {
	body, err := json.Marshal(shipping.Booking{Order: o.ID, SKU: o.SKU, Quantity: o.Quantity})
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(c, http.MethodPost, "http://"+s.host.Peers["shipping"]+"/parcels", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.carrier.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the carrier says %s", resp.Status)
	}
	var p shipping.Parcel
	return p.Number, json.NewDecoder(resp.Body).Decode(&p)
}

// close ends an order in the transaction in which its saga ends, gives the closing the next number and writes the event.
func (s *shop) close(ctx context.Context, tx *sql.Tx, id, state string) error {
	var no int64
	if err := tx.QueryRowContext(ctx, "UPDATE tally SET closings = closings + 1 WHERE id = 1 RETURNING closings").Scan(&no); err != nil {
		return err // the row stays locked until the commit, so that numbers have no gaps and the order of the commits
	}
	if _, err := tx.ExecContext(ctx, s.db.Q("INSERT INTO closing (no, order_id, state) VALUES (?, ?, ?)"), no, id, state); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, s.db.Q("UPDATE orders SET state = ? WHERE id = ?"), state, id); err != nil {
		return err
	}
	return s.publish(ctx, tx, id, state)
}
