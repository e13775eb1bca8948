// Package retry repeats calls that failed, as often and as late as does good.
//
//	r := retry.New(retry.Config{Budget: budget.New(budget.Config{})})
//	item, err := backstay.Do(ctx, backstay.Chain(r), func(ctx context.Context) (*Item, error) { return fetch(ctx, id) })
//
// # What is repeated
//
// An attempt that its innermost handler judged a failure, unless it may not be repeated ([backstay.Permanent], a POST without a key, a
// *backoff.PermanentError of github.com/cenkalti/backoff/v4; that of v5 is another type and not known here); also an attempt that says
// that it may be (a 429). Not repeated is what a policy inside refused, since an open breaker is still open after 100 ms, nor anything once
// the context is over. To give an error fewer attempts than others, or to judge values, put a [backstay.Classify] innermost.
//
// # When it gives up
//
// Before each wait, in this order: attempts are used up; the server asks for a longer wait than MaxHint; the wait does not fit in MaxElapsed
// or before the deadline; the budget is empty. Then the call ends at once, without the wait. The last real error is always reachable through
// the [ExhaustedError], next to the reason. An attempt that is not to be repeated ends the call with its bare error.
//
// A value that comes with the last failure is kept, so an HTTP client gets its 503. A failure that is only a value, without an error,
// comes back as a value without an error.
//
// # Defaults
//
//	Attempts    3      in all
//	Delay       100 ms × 2 (Factor), full jitter, up to 5 s (MaxDelay)
//	MaxElapsed  none   the context's deadline is the limit
//	MinAttempt  10 ms
//	MaxHint     30 s   with up to 10 % on top (HintJitter)
//	Budget      none   package standard sets one for each host
//
// # Events
//
//	retry  another attempt is due: Wait; Reason schedule, hint or breaker; Err of the attempt before
//	stop   gave up: Reason attempts, hint, schedule, elapsed, deadline, budget, rejected or context; Err for the caller
//
// # Order
//
// Inside a total timeout; outside of hedge, bulkhead, breaker and attempt timeout, so that each attempt passes them, and none is held in a wait.
// A retry in a call that is itself repeated by a retry makes one attempt: three times three would be nine. [Config].Nested lifts that.
//
// # When not to use it
//
// For calls with an effect that cannot be recognised when repeated, unless the attempt provably never left. In a handler whose caller retries.
package retry
