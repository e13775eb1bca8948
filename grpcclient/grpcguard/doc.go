// Package grpcguard makes the unary methods of a gRPC server run at most once for each key and op, as saga/guard does for the steps of sagas: it reads the metadata
// that grpcclient sends from a step (idempotency-key, saga-op, saga-epoch), and answers a call that came before with the answer of then.
//
//	srv := grpc.NewServer(grpc.ChainUnaryInterceptor(grpcguard.Unary(guard.New(db, guard.Postgres), grpcguard.Config{})))
//
// The handler finds its transaction by guard.TxFrom, and does its work in it. What a caller gets:
//
//	call                                             code                 saga-guard (trailer)
//	the first with its key                           the handler's        ran
//	one after it, when that was committed            the stored one       replayed
//	one while it is running                          ABORTED              running; RetryInfo of one second
//	an undo (saga-op: compensate) of nothing         OK, an empty reply   nothing
//	an action after its undo                         FAILED_PRECONDITION  poisoned
//	the key of a call of another method              INVALID_ARGUMENT     –
//	no key, two keys, a malformed one                INVALID_ARGUMENT     –
//	an answer that is too large to be stored         INTERNAL             –
//	the database fails, so the outcome is unknown    UNAVAILABLE          –; RetryInfo of one second
//
// ABORTED is what HTTP's 409 maps to: it is repeated by who knows what it means, such as a saga, and is no sign of a server that fails, so that breakers and gRPC's own retry leave
// it alone.
//
// OK commits and is stored. An error of the handler's rolls back and is not, so that a no may become a yes later, but no effect is ever kept without its
// answer; [Config.Final] names codes that are answers for good. The handler may run again in a new transaction when the first fell to a deadlock: it must leave its request as it is.
//
// Metadata that the handler sets goes with the first answer alone. Streams are not guarded.
package grpcguard
