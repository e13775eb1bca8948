-- Sagas. Times are microseconds since 1970 by the database's clock; an
-- infinite wake_at is 9223372036854775807. Names are bytes, so that they are
-- compared as such.

-- One row for each instance, live or ended. While it is live, state is null
-- and the run's state counts.
CREATE TABLE IF NOT EXISTS saga_instance (
	id           varbinary(255) NOT NULL PRIMARY KEY,
	def          varbinary(255) NOT NULL,
	ver          int NOT NULL,
	tenant       varbinary(255) NOT NULL,
	business_key varbinary(255) NOT NULL,
	input_hash   varbinary(255) NOT NULL,
	codec        varbinary(255) NOT NULL,
	input        longblob,
	prio         int NOT NULL,
	created_at   bigint NOT NULL,
	deadline_at  bigint,
	state        varbinary(16),
	step         blob,
	pivot        smallint NOT NULL DEFAULT 0,
	ended_at     bigint,
	UNIQUE KEY saga_instance_key (tenant, def, business_key),
	KEY saga_instance_ended (ended_at)
) ENGINE=InnoDB;

-- One narrow row for each live instance; it is what every step updates.
CREATE TABLE IF NOT EXISTS saga_run (
	id      varbinary(255) NOT NULL PRIMARY KEY,
	def     varbinary(255) NOT NULL,
	ver     int NOT NULL,
	prio    int NOT NULL,
	epoch   bigint NOT NULL,
	owner   varbinary(255),
	wake_at bigint NOT NULL,
	seq     bigint NOT NULL,
	state   varbinary(16) NOT NULL,
	step    blob NOT NULL,
	pivot   smallint NOT NULL,
	mail    bigint NOT NULL,
	seen    bigint NOT NULL,
	KEY saga_run_due (owner, def, ver, wake_at),
	KEY saga_run_state (state, id)
) ENGINE=InnoDB;

-- The leases: one row for each life of an engine. dead is for ever.
CREATE TABLE IF NOT EXISTS saga_node (
	node  varbinary(255) NOT NULL PRIMARY KEY,
	until bigint NOT NULL,
	beats bigint NOT NULL,
	dead  smallint NOT NULL
) ENGINE=InnoDB;

-- The log: append only.
CREATE TABLE IF NOT EXISTS saga_log (
	id      varbinary(255) NOT NULL,
	seq     bigint NOT NULL,
	epoch   bigint NOT NULL,
	event   varbinary(32) NOT NULL,
	step    blob,
	op      varbinary(32),
	verb    varbinary(255),
	attempt int NOT NULL,
	data    longblob,
	note    longblob,
	actor   varbinary(255),
	delay   bigint NOT NULL,
	next    longblob,
	at      bigint NOT NULL,
	PRIMARY KEY (id, seq)
) ENGINE=InnoDB;

-- Signals and requests to instances; n is the order of arrival.
CREATE TABLE IF NOT EXISTS saga_mail (
	id       varbinary(255) NOT NULL,
	kind     varbinary(16) NOT NULL,
	name     varbinary(255) NOT NULL,
	mail_id  varbinary(255) NOT NULL,
	n        bigint NOT NULL,
	actor    varbinary(255) NOT NULL,
	data     longblob,
	consumed bigint,
	at       bigint NOT NULL,
	PRIMARY KEY (id, kind, name, mail_id)
) ENGINE=InnoDB;

-- Semantic locks that live instances hold.
CREATE TABLE IF NOT EXISTS saga_lock (
	resource varbinary(255) NOT NULL PRIMARY KEY,
	id       varbinary(255) NOT NULL,
	KEY saga_lock_id (id)
) ENGINE=InnoDB;

-- The shapes of the definitions.
CREATE TABLE IF NOT EXISTS saga_def (
	def   varbinary(255) NOT NULL,
	ver   int NOT NULL,
	hash  varbinary(255) NOT NULL,
	shape longblob,
	at    bigint NOT NULL,
	PRIMARY KEY (def, ver)
) ENGINE=InnoDB;
