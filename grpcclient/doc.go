// Package grpcclient puts policies around the calls of a gRPC connection.
//
//	conn, err := grpc.NewClient(target, append(grpcclient.DialOptions(), grpc.WithTransportCredentials(creds))...)
//
// That is the whole default: the pipeline of package standard, with a breaker, a bulkhead and a retry budget for each target. [DialOptions] takes policies of
// your own in its place, and settings.
//
// What it does:
//
//   - It repeats a call only if that is safe: its .proto says so (option idempotency_level), or the [Methods] table, or a call option ([Idempotent]); or if
//     the call provably was never sent, as when a connection was refused, which makes every method safe.
//   - It classifies statuses once, for all policies; see the table below.
//   - It obeys the server: grpc-retry-pushback-ms to the letter, google.rpc.RetryInfo as a least wait.
//   - It sends grpc-previous-rpc-attempts, so that servers can tell repetitions.
//   - Each attempt of a hedged call ([Hedge]) has its own reply, header, trailer and peer; the winner's are copied once.
//   - A stream of the server's is opened again only until its headers or its first message have come: nothing is delivered twice. Streams
//     with messages of the client's pass through, with breaker, limits and budgets, and are never repeated once they stand.
//   - Timeouts bound a unary call to its end, and a stream until it stands on a connection: a stream that comes is never cut.
//   - Permits are held until the stream ends, however it ends.
//   - Every error is a status: a refusal by a breaker is Unavailable, by a full bulkhead ResourceExhausted, our timeouts are DeadlineExceeded; and
//     errors.Is and errors.As find what stands behind it (breaker.ErrOpen, *retry.ExhaustedError).
//
// What an ending counts as:
//
//	status                                                   breaker    repeated (if the call may be)
//	OK                                                       success    –
//	Unavailable                                              failure    yes
//	DeadlineExceeded, by the attempt timeout                 failure    yes
//	DeadlineExceeded by the server, Internal, Unknown,
//	DataLoss                                                 failure    no
//	ResourceExhausted                                        neutral    if the server says when; an overload
//	Canceled                                                 neutral    no
//	the rest: NotFound, InvalidArgument, …                   success    no
//	a fault of this side, before anything was sent           neutral    no
//
// RetryOn and FailOn of [Method] change that.
//
// gRPC's own retry (service config) is switched off by [DialOptions], since attempts would multiply. Its transparent retry, of calls that a server did not
// process, stays; such attempts are not seen here.
//
// When not to use it: where a service mesh repeats already. See docs/guides/mesh-and-grpc.md.
package grpcclient
