// Package backstay keeps a service standing when what it calls does not.
//
// A call goes through a [Pipeline] of policies, and each policy is a function around the next:
//
//	Do(ctx, pipeline, fn)
//	  │ Call: name, key, attempt, may it be repeated
//	  ▼
//	timeout ▸ retry ▸ limit ▸ breaker ▸ timeout ▸ fn          context and Call go in
//	timeout ◂ retry ◂ limit ◂ breaker ◂ timeout ◂ fn          an Outcome comes out
//	                                               │ value or error, what it counts as,
//	                                               ▼ may it be repeated, was it sent
//
// This package is that seam: [Handler], [Policy], [Outcome], [Call], [Chain], [Do]. It imports only the standard library. Each policy is
// a package of its own. Policies are not generic: one breaker serves Do[int], Do[*Item], HTTP and gRPC.
//
// # A function
//
//	pipeline := backstay.Chain(
//		timeout.New(30*time.Second),
//		retry.New(retry.Config{}),
//		breaker.New(breaker.Config{Name: "inventory"}),
//		timeout.New(2*time.Second),
//	)
//	stock, err := backstay.Do(ctx, pipeline, func(ctx context.Context) (int, error) {
//		return service.Stock(ctx, "teapot")
//	})
//
// Build a pipeline once and keep it: the state of its policies is what protects. [Do] is for values that stand by themselves, [Run] for
// functions without one, [DoHeld] for values that live on the context of their call, such as *sql.Rows. HTTP clients use package httpclient.
//
// # Order
//
// Outermost first. [Pipeline.Lint] explains an order that will not do what its author expects.
//
//	fallback          answers for all that failed inside
//	timeout           the whole call, waits included
//	retry             draws on a budget; a wait holds no permit
//	hedge             a round of the retry is one hedged call
//	bulkhead          or adaptive limit: outside the breaker, so that a full one costs no probe
//	ratelimit
//	breaker           sees each attempt, timed-out ones included
//	timeout           each attempt
//
// Package standard is this order with numbers that can be used unread.
//
// # What an ending counts as
//
// Whoever makes the attempt classifies its ending once: the adapter, or Do by the error. [Permanent], [RetryAfter] and [Ignore] mark errors, and
// [Classify] is for verdicts that depend on the value. Every policy then reads the same [Outcome], by the context that it was handed: a cancellation by
// the caller is nobody's failure, the attempt timeout's own expiry is one. A refusal by a policy is a [*Rejected]: nothing was attempted.
//
// # State for each key
//
// [Keyed] holds an instance of a policy for each host or tenant, in bounded memory.
//
// # Watching
//
// Policies tell an [Observer] what they do, outside all locks. Nothing is logged unless [NewSlogObserver] or another observer is given.
//
// # Packages
//
//	breaker retry budget timeout bulkhead adaptive hedge ratelimit fallback chaos    policies
//	standard                  the default pipeline
//	httpclient grpcclient     clients; grpcclient is a module of its own
//	saga outbox               changes across two systems, in your own database
//
// # Concurrency
//
// Pipelines and policies are safe for concurrent use. No policy starts a goroutine until something runs, keeps a context, runs user code under a
// lock, or has state at package level. A panic of the called function, and runtime.Goexit, pass through all policies and leave nothing taken.
package backstay
