// Package page is the shop's web page: what it shows (Snapshot), what can be done on it (Actions), and the handler that serves
// both. It knows nothing of how the shop works.
package page

import (
	"context"
	"time"
)

// Snapshot is everything that the page shows, at one moment. The shop makes one; the page serves it as HTML, as JSON and as a
// stream of server-sent events.
type Snapshot struct {
	At         time.Time     `json:"at"`
	Uptime     time.Duration `json:"uptime"` // in nanoseconds, as all durations here
	Seed       uint64        `json:"seed"`
	Database   string        `json:"database"`  // "SQLite" or "PostgreSQL"
	Processes  bool          `json:"processes"` // every service in a process of its own
	Protection bool          `json:"protection"`
	Load       float64       `json:"load"` // orders offered a second
	Traffic    []Point       `json:"traffic"`
	Services   []Service     `json:"services"`
	Edges      []Edge        `json:"edges"`
	Books      Books         `json:"books"`
	Orders     []Order       `json:"orders"` // at most 50: up to 15 open ones older than a second, up to 15 lately undone or parked, then the newest
	States     []Count       `json:"states"` // orders by state, all of them
	Outbox     Outbox        `json:"outbox"`
	Presets    []Preset      `json:"presets"`
	Events     []Event       `json:"events"` // newest first, at most 100
}

// Point is one second of the shop's traffic; Snapshot.Traffic holds the last 120 of them, oldest first.
type Point struct {
	At      time.Time     `json:"at"`
	Offered int           `json:"offered"`
	Good    int           `json:"good"`   // answered in time: confirmed, or accepted to be finished later
	Failed  int           `json:"failed"` // refused, wrong or late
	P50     time.Duration `json:"p50"`
	P99     time.Duration `json:"p99"`

	OutboxAge   time.Duration `json:"outboxAge"` // Outbox.Oldest and Depth at that second
	OutboxDepth int           `json:"outboxDepth"`
}

// Service is one of the shop's services.
type Service struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"` // "HTTP" or "gRPC"
	Address  string `json:"address"`
	PID      int    `json:"pid"`
	Health   Health `json:"health"`
	Why      string `json:"why"` // in words, when not healthy
	Chaos    Chaos  `json:"chaos"`
	CanKill  bool   `json:"canKill"` // it is a process of its own
	Spared   bool   `json:"spared"`  // it cannot be broken: it serves this page
	Restarts int    `json:"restarts"`
}

// Health is a service's or an edge's: "ok", "degraded" or "down".
type Health string

// The three states of health.
const (
	OK       Health = "ok"
	Degraded Health = "degraded"
	Down     Health = "down"
)

// Chaos is what is wrong on purpose with a service. The zero Chaos is nothing.
type Chaos struct {
	Down      bool          `json:"down"`      // refuses connections
	Hang      bool          `json:"hang"`      // accepts, and never answers
	Errors    float64       `json:"errors"`    // share of calls that fail, from 0 to 1
	Latency   time.Duration `json:"latency"`   // added to every call
	LoseReply float64       `json:"loseReply"` // share of calls whose effect happens and whose answer is lost
	Flap      bool          `json:"flap"`      // down and up, two seconds each
}

// Edge is one service calling another.
type Edge struct {
	From     string        `json:"from"`
	To       string        `json:"to"`
	Health   Health        `json:"health"`
	Why      string        `json:"why"`      // why the breaker is open, in words
	Calls    float64       `json:"calls"`    // a second
	Attempts float64       `json:"attempts"` // for each call
	Failures float64       `json:"failures"` // share of calls
	P99      time.Duration `json:"p99"`
	Breaker  string        `json:"breaker"` // "closed", "open", "half-open", or "" without one
	InFlight int           `json:"inFlight"`
	Limit    int           `json:"limit"`
}

// Events reports whether events travel on the edge, by outbox and broker, rather than calls.
func (e Edge) Events() bool { return e.To == "notifications" || e.From == "broker" || e.To == "broker" }

// Books says whether the shop's books balance.
type Books struct {
	Balanced   bool      `json:"balanced"`
	Checks     []Check   `json:"checks"`
	Violations int       `json:"violations"` // since the start
	Passed     int       `json:"passed"`     // rounds that found nothing
	At         time.Time `json:"at"`
}

// Check is one equation of the books: Left = Right.
type Check struct {
	Name  string `json:"name"` // "stock", "money", "orders", "events"
	Left  string `json:"left"` // "in stock 812 + reserved 6 + shipped 182"
	Right string `json:"right"`
	OK    bool   `json:"ok"`
	Note  string `json:"note"`
}

// Order is one order and the timeline of its saga.
type Order struct {
	ID      string    `json:"id"`
	What    string    `json:"what"`  // "2 × anchor"
	Total   string    `json:"total"` // "42.00 €"
	State   string    `json:"state"` // "open", "confirmed", "cancelled", "returning", "returned", "needs a human"
	Saga    string    `json:"saga"`  // the saga's own state
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"` // zero while open
	Steps   []Step    `json:"steps"`
}

// Step is one bar in an order's timeline.
type Step struct {
	Name     string    `json:"name"`
	Undo     bool      `json:"undo"`  // the compensation of the step of this name
	Pivot    bool      `json:"pivot"` // no way back after it
	State    string    `json:"state"` // "running", "waiting", "done", "failed", "in doubt"
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended"`
	Attempts int       `json:"attempts"`
	Error    string    `json:"error"`
}

// Count is how many of a kind there are.
type Count struct {
	Name string `json:"name"`
	N    int    `json:"n"`
}

// Outbox is the state of the outbox and of what reads it.
type Outbox struct {
	Oldest     time.Duration `json:"oldest"` // age of the oldest message that is not published
	Depth      int           `json:"depth"`
	Stored     int           `json:"stored"`     // messages enqueued since the start
	Published  int           `json:"published"`  // of them, acknowledged by the broker
	Handled    int           `json:"handled"`    // of them, whose effect happened in notifications
	Duplicates int           `json:"duplicates"` // suppressed by the inbox
	Parked     int           `json:"parked"`     // dead letters
	BrokerUp   bool          `json:"brokerUp"`
	Paused     bool          `json:"paused"` // the relay, by hand
}

// Preset is a fault, or several, behind one button.
type Preset struct {
	Name   string `json:"name"`  // "payments-brown-out"
	Title  string `json:"title"` // "Payments brown-out"
	Watch  string `json:"watch"` // what to look at, in a sentence
	Active bool   `json:"active"`
	Off    bool   `json:"off"` // it cannot be used now
	Why    string `json:"why"` // and why not
}

// Event is something that happened: a breaker opened, a saga parked, a process was killed.
type Event struct {
	At      time.Time `json:"at"`
	Service string    `json:"service"`
	Level   string    `json:"level"` // "info", "warn" or "bad"
	Text    string    `json:"text"`
}

// Actions is what a visitor may do. Every method returns when it has taken effect, with an error that can be shown.
type Actions interface {
	// Preset switches a preset on or off; an empty name switches all of them off, and all chaos with them.
	Preset(ctx context.Context, name string, on bool) error
	// Chaos replaces what is wrong with a service.
	Chaos(ctx context.Context, service string, chaos Chaos) error
	// Set changes one of the shop's switches: "protection", "broker", "relay" (each "on" or "off") or "load" (orders a second).
	Set(ctx context.Context, what, value string) error
	// Kill ends a service's process at once, as kill -9 does. It is started again.
	Kill(ctx context.Context, service string) error
}
