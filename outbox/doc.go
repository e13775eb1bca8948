// Package outbox delivers a message for every row committed: a transactional outbox, the relay that publishes it, and the inbox that makes a consumer's
// effect happen once. The tables are in your own database ([github.com/backstay-go/backstay/outbox/outboxsql], and outboxpgx for pgx) or in memory
// ([github.com/backstay-go/backstay/outbox/outboxmem]); publishers for brokers are packages of their own (natspub, kafkapub, amqppub, redispub,
// watermillpub, webhookpub).
//
//	box := outboxsql.New(outboxsql.Postgres)
//	err := box.InTx(ctx, db, func(tx *sql.Tx) error {
//		…                                        // the business rows
//		return box.Enqueue(ctx, tx, outbox.Message{Topic: "orders", Key: o.ID, Payload: body})
//	})
//	relay := outbox.NewRelay(box.Source(db), natspub.New(js), outbox.RelayConfig{})
//	err = relay.Run(ctx)
//	err = box.Inbox("billing").Handle(ctx, db, msg.ID, func(tx *sql.Tx) error { … })
//
// # Promises
//
// A message whose transaction commits is published at least once; one that is rolled back never. First deliveries of one key are in the order of
// their numbers, whatever relays die. A message is deleted when the broker has confirmed it, and moved to the dead letters when the broker
// will never take it: nothing is dropped but what has expired. docs/guides/outbox.md says what is not promised.
//
// # Relays
//
// Any number of relays share the partitions of an outbox by leases; each publishes only while its lease stands by its own clock, counted from before it asked. A relay reads
// without locks, publishes outside any transaction, several batches at once, and deletes by number. Of one key at most one batch is with the publisher, and nothing passes
// a message that failed. How it works: docs/decisions/030 to 034.
//
// # Defaults of RelayConfig
//
//	Lease 10s · Batch 500 · InFlight 4 · PublishTimeout 10s · backoff 100ms to 30s · MaxAttempts 20 · Poison ParkKey
//	poll 5ms to 1s · Lag 1s · Sweep 10s · DrainTimeout 30s · KeepDead never · MaxAge 5min
//
// # Metrics
//
// Through the global OpenTelemetry meter, with the attribute backstay.outbox.relay (the relay's name). Page on backstay.outbox.oldest.age: it rises whatever
// the reason. What was published, failed, parked, expired, published twice and found late is counted; what waits, is scheduled and dead, and the partitions owned
// are gauges; one call of the publisher, and one message from its enqueue to the broker's confirmation, are histograms. All names are in docs/telemetry.yaml.
//
// # When not to use it
//
// When a lost message does no harm, publish directly. When the effect is in the same database, write it in the same transaction. For jobs with priorities, unique
// keys and schedules of their own, use a job queue.
package outbox
