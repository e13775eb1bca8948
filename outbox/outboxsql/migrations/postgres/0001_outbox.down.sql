DROP TABLE outbox, outbox_lease, outbox_relay, outbox_retry, outbox_dead, outbox_scheduled, outbox_meta, inbox;
