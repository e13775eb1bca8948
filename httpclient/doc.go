// Package httpclient puts policies around an http.Client.
//
//	client := &http.Client{Transport: httpclient.New(nil)}
//
// That is the whole default: http.DefaultTransport, and the pipeline of package standard with a breaker, a bulkhead and a retry budget for each
// host. [New] takes policies of your own in its place, and options.
//
// What it does:
//
//   - It repeats a request only if that is safe: the method is idempotent, or the request carries an idempotency key that the client is configured to
//     trust, or the caller says so ([Idempotent]), or it provably was never sent; and if its body can be sent again (GetBody, or a body that
//     fits the buffer).
//   - It classifies answers once, for all policies: see the table at [New]'s policies in docs. A 404 is a success, a 429 is repeated but no
//     breaker's failure, a POST's 503 is a failure and not repeated.
//   - It obeys Retry-After in both forms, up to the retry's cap, and X-Should-Retry: false, by which a server says that nothing comes of repeating ([Relay]).
//   - It drains dropped responses within bounds before it waits, so that connections serve again.
//   - When attempts run out it returns the last response with a nil error, as a client without retries would.
//   - Timeouts end at the headers; from there a progress timeout runs, only while Read blocks. A body that comes is never cut.
//   - Permits are held until the body is read to its end or closed, or the caller's context ends.
//   - Upgraded connections and event streams pass untouched.
//
// What it does not: it never changes the caller's request, reads a body ahead, follows redirects (each hop is a call of its own), or logs. net/http itself
// sends an idempotent request again when a kept connection turns out to be closed; such attempts are not seen here.
package httpclient
