DROP TABLE outbox;
DROP TABLE outbox_lease;
DROP TABLE outbox_relay;
DROP TABLE outbox_retry;
DROP TABLE outbox_dead;
DROP TABLE outbox_scheduled;
DROP TABLE outbox_meta;
DROP TABLE inbox;
