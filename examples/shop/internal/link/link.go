// Package link is how one service calls another: through Backstay, or, with protection off, through the client that people write who have
// not met a retry storm yet. Both carry the idempotency key of the saga's step, so that the books balance either way: protection is about how much
// of the shop stays up, not about whether it is right.
package link

import (
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/adaptive"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/examples/shop/internal/meter"
	"github.com/backstay-go/backstay/grpcclient"
	"github.com/backstay-go/backstay/standard"
)

// Protection switches all links of a process. The zero value is off.
type Protection struct{ on atomic.Bool }

// Set switches.
func (p *Protection) Set(on bool) { p.on.Store(on) }

// On reports whether the links are protected.
func (p *Protection) On() bool { return p.on.Load() }

// Link leads from one service to another.
type Link struct {
	From, To string

	protection *Protection
	stack      *standard.Stack
	meter      *meter.Meter
}

// Limits are the numbers of a link.
type Limits struct {
	Total   time.Duration // for a call
	Attempt time.Duration // for each of up to three attempts
	// AtOnce is how many calls may be under way, for a service whose answers take long on purpose: the adaptive limit, which takes slowness for a
	// queue, would refuse them. 0: adaptive.
	AtOnce int
}

// New returns a link, whose events observers hear. What limits does not say are the defaults of package standard, but for the breaker's window: ten seconds instead of thirty, so that a
// visitor sees it act.
func New(from, to string, protection *Protection, limits Limits, observers ...backstay.Observer) *Link {
	l := &Link{From: from, To: to, protection: protection, meter: &meter.Meter{}}
	l.stack = standard.Build(standard.Config{
		Total:    limits.Total,
		Attempt:  limits.Attempt,
		Limit:    adaptive.Config{Min: limits.AtOnce, Max: limits.AtOnce},
		Breaker:  breaker.Config{Window: 10 * time.Second},
		Observer: backstay.Observers(append(observers, l.meter)...),
	})
	return l
}

// Reading is what is known of a link.
type Reading struct {
	From    string `json:"from"`
	To      string `json:"to"`
	Breaker string `json:"breaker"` // "" without protection
	Limit   int    `json:"limit"`   // of calls at once; 0 without protection
	meter.Reading
}

// Read returns what is known now.
func (l *Link) Read() Reading {
	r := Reading{From: l.From, To: l.To, Reading: l.meter.Read()}
	if !l.protection.On() {
		r.Why = ""
		return r
	}
	r.Breaker = breaker.Closed.String()
	for _, b := range l.stack.Breakers.All() { // one: the key is the address
		s := b.Snapshot()
		r.Breaker = s.State.String()
		if s.State == breaker.Due {
			r.Breaker = breaker.Open.String()
		}
	}
	for _, limit := range l.stack.Limits.All() {
		s := limit.Snapshot()
		r.Limit, r.InFlight = s.Limit, s.InFlight
	}
	if r.Breaker == breaker.Closed.String() {
		r.Why = ""
	}
	return r
}

// Dial returns a connection to a gRPC service that honours idempotency keys. Close it with the function beside it.
func (l *Link) Dial(addr string) (conn grpc.ClientConnInterface, closeConn func(), err error) {
	creds := grpc.WithTransportCredentials(insecure.NewCredentials())
	safe, err := grpc.NewClient(addr, append(grpcclient.DialOptions(l.stack.Pipeline(), grpcclient.TrustKeys()), creds)...)
	if err != nil {
		return nil, nil, err
	}
	bare, err := grpc.NewClient(addr, creds, grpc.WithDisableRetry(), grpc.WithUnaryInterceptor(l.blindly))
	if err != nil {
		safe.Close()
		return nil, nil, err
	}
	return &switched{l.protection, safe, bare}, func() { safe.Close(); bare.Close() }, nil
}
