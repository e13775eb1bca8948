-- One row for each call that a participant has run, or must never run.
-- guard_key is compared byte by byte, so that all rows of one saga
-- ("<instance id>/…") are a range of the primary key.
CREATE TABLE IF NOT EXISTS saga_guard (
	guard_key text COLLATE "C" NOT NULL,
	op        text NOT NULL,
	by_op     text NOT NULL,
	epoch     bigint NOT NULL,
	done      smallint NOT NULL,
	result    bytea,
	at        bigint NOT NULL, -- microseconds since 1970, the database's clock
	PRIMARY KEY (guard_key, op)
) WITH (fillfactor = 85);
CREATE INDEX IF NOT EXISTS saga_guard_at ON saga_guard (at);
