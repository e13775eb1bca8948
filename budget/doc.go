// Package budget bounds how much a client adds to the load of what it calls: retries and hedges take a token each, and calls bring a
// fraction of one.
//
// Without a budget three attempts triple the load of a server exactly when it fails. With one, extra attempts stay at a tenth of the
// calls, whatever the failure rate and the number of attempts. First attempts never ask.
//
//	b := budget.New(budget.Config{})
//	r := retry.New(retry.Config{Budget: b})
//	h := hedge.New(hedge.Config{Budget: b}) // retries and hedges together stay below 10 %
//
// Where one policy serves many hosts, [PerKey] keeps a budget for each of them.
//
// # Arithmetic
//
// A budget counts calls, not calls in flight: against a server that fails fast hardly any call is in flight, and a limit on their
// share then limits nothing. Tokens come from two places.
//
//   - Each call deposits Ratio of a token. Deposits age: after TTL they are gone, so that a busy hour does not pay for a
//     burst of retries in a quiet one.
//   - A small reserve begins with Start tokens and grows by one each Floor, but not beyond Start. It lets a client with little traffic retry
//     at all. It is small because every process has one: a thousand idle clients with ten tokens each would be a burst of ten thousand.
//
// Together they never exceed Cap. Over any span of time, extra attempts ≤ Ratio × (calls in it and in the TTL before it) + Start + span ÷ Floor.
//
// # Defaults
//
//	Ratio  0.1   10 % of the calls; the SRE book's per-client retry ratio
//	TTL    10 s  Finagle's RetryBudget
//	Start  2     enough for one call of three attempts
//	Cap    10    the burst that a busy client may save up
//	Floor  10 s  one token
//
// # When not to use it
//
// A job queue that must get through in the end and whose rate is bounded elsewhere needs patience, not a budget.
package budget
