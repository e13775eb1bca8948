-- One row for each call that a participant has run, or must never run.
CREATE TABLE IF NOT EXISTS saga_guard (
	guard_key varbinary(255) NOT NULL,
	op        varchar(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
	by_op     varchar(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
	epoch     bigint NOT NULL,
	done      smallint NOT NULL,
	result    longblob,
	at        bigint NOT NULL, -- microseconds since 1970, the database's clock
	PRIMARY KEY (guard_key, op),
	KEY saga_guard_at (at)
) ENGINE=InnoDB;
