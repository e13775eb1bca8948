-- One row for each call that a participant has run, or must never run.
CREATE TABLE IF NOT EXISTS saga_guard (
	guard_key text NOT NULL,
	op        text NOT NULL,
	by_op     text NOT NULL,
	epoch     integer NOT NULL,
	done      integer NOT NULL,
	result    blob,
	at        integer NOT NULL, -- microseconds since 1970
	PRIMARY KEY (guard_key, op)
);
CREATE INDEX IF NOT EXISTS saga_guard_at ON saga_guard (at);
