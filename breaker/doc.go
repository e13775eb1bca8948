// Package breaker stops calls to a dependency that does not work, and finds out quickly when it works again.
//
//	inventory := breaker.New(breaker.Config{Name: "inventory"})
//	pipeline := backstay.Chain(retry.New(retry.Config{}), inventory, timeout.New(2*time.Second))
//	item, err := backstay.Do(ctx, pipeline, func(ctx context.Context) (*Item, error) { return fetch(ctx, id) })
//
// A [Breaker] is closed while all is well, and counts how calls end. When too many fail it opens: for about a second calls are refused at once, with an
// error that is [ErrOpen] and says how long. Then a few calls are let through as probes. If they succeed it closes, and for another second lets a
// growing share of calls through; if they fail it opens again, for longer.
//
//	            a rule says so                 its period is over
//	closed ─────────────────────────> open ──────────────────────────> half-open
//	   ^                                ^      (the next call probes)    │    │
//	   │                                └──── too many probes fail ──────┘    │
//	   └──────────────── Successes probes succeed (then a ramp) ──────────────┘
//
// # What counts
//
// Endings, when they come: a call that hangs for longer than the window counts when it ends, and until then dilutes nothing. How an ending counts
// says [backstay.Outcome.Judge] with the context that the breaker was handed. In short: an answer is a success, unless its
// adapter says otherwise (HTTP's 5xx); errors and the attempt timeout are failures; the caller's cancellation, and another policy's refusal, are neutral and count for nothing. An error like "not found" is
// an answer: return it as a value, or classify it as a success, since only successes close a half-open breaker.
//
// Results of calls that began in an earlier state change nothing; they are counted as stale. A probe that never reports loses its place after
// ProbeTimeout, so no state refuses for ever.
//
// # Defaults
//
//	opens on        50 % failures of at least 20 calls in 30s; or 10 failures in a row, at least 1s apart
//	                slow calls: off
//	stays open      1s, doubling up to 5s as probes fail, each shortened at random by up to a half
//	probes          2 at a time with no gap between them, 2 must succeed, none may fail; each is given up after 15s
//	after closing   a ramp of 1s
//
// # Events
//
//	EventState    From, To, Reason; Wait: how long it will stay open; Err: the last failure
//	EventReject   Reason ("open", "half-open", "ramping up", "forced open"), Wait
//	EventShadow   the same, for what was not refused in Shadow mode
//	EventStale    Class: what the dropped result would have counted as
//
// State changes reach observers in the order in which they happened, each once, outside all locks: an observer may call the breaker.
//
// # Order
//
// Inside retry, so that it sees every attempt; outside the attempt timeout, so that it sees that fire. One breaker for each dependency,
// or for each host: [backstay.Keyed]. Never one for several that fail apart.
//
// # When not to use it
//
// Where there is nothing to do but to wait for the dependency, a limit on calls in flight protects as well and refuses less. Where one key mixes
// replicas of which some are broken, a breaker also cuts off those that work; the load balancer knows better.
package breaker
