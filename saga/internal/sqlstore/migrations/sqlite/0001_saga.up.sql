-- Sagas. Times are microseconds since 1970 by the database's clock; an
-- infinite wake_at is 9223372036854775807.

-- One row for each instance, live or ended. Wide and seldom written: at the
-- start and at the end. While the instance is live, state is null and the
-- run's state counts.
CREATE TABLE IF NOT EXISTS saga_instance (
	id           text NOT NULL PRIMARY KEY,
	def          text NOT NULL,
	ver          integer NOT NULL,
	tenant       text NOT NULL,
	business_key text NOT NULL,
	input_hash   text NOT NULL,
	codec        text NOT NULL,
	input        blob,
	prio         integer NOT NULL,
	created_at   bigint NOT NULL,
	deadline_at  bigint,
	state        text,
	step         text,
	pivot        smallint NOT NULL DEFAULT 0,
	ended_at     bigint,
	UNIQUE (tenant, def, business_key)
);
CREATE INDEX IF NOT EXISTS saga_instance_ended ON saga_instance (ended_at) WHERE ended_at IS NOT NULL;

-- One narrow row for each live instance; it is what every step updates. No
-- column that a step changes is in an index.
CREATE TABLE IF NOT EXISTS saga_run (
	id      text NOT NULL PRIMARY KEY,
	def     text NOT NULL,
	ver     integer NOT NULL,
	prio    integer NOT NULL,
	epoch   bigint NOT NULL,
	owner   text,
	wake_at bigint NOT NULL,
	seq     bigint NOT NULL,
	state   text NOT NULL,
	step    text NOT NULL,
	pivot   smallint NOT NULL,
	mail    bigint NOT NULL,
	seen    bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS saga_run_due ON saga_run (def, ver, wake_at) WHERE owner IS NULL;
CREATE INDEX IF NOT EXISTS saga_run_owner ON saga_run (owner) WHERE owner IS NOT NULL;
CREATE INDEX IF NOT EXISTS saga_run_state ON saga_run (state, id) WHERE state <> 'running' AND state <> 'ready';

-- The leases: one row for each life of an engine. dead is for ever.
CREATE TABLE IF NOT EXISTS saga_node (
	node  text NOT NULL PRIMARY KEY,
	until bigint NOT NULL,
	beats bigint NOT NULL,
	dead  smallint NOT NULL
);
CREATE INDEX IF NOT EXISTS saga_node_live ON saga_node (node) WHERE dead = 0;
CREATE INDEX IF NOT EXISTS saga_node_dead ON saga_node (node) WHERE dead = 1;

-- The log: append only.
CREATE TABLE IF NOT EXISTS saga_log (
	id      text NOT NULL,
	seq     bigint NOT NULL,
	epoch   bigint NOT NULL,
	event   text NOT NULL,
	step    text,
	op      text,
	verb    text,
	attempt integer NOT NULL,
	data    blob,
	note    blob,
	actor   text,
	delay   bigint NOT NULL,
	next    text,
	at      bigint NOT NULL,
	PRIMARY KEY (id, seq)
);

-- Signals and requests to instances; n is the order of arrival.
CREATE TABLE IF NOT EXISTS saga_mail (
	id       text NOT NULL,
	kind     text NOT NULL,
	name     text NOT NULL,
	mail_id  text NOT NULL,
	n        bigint NOT NULL,
	actor    text NOT NULL,
	data     blob,
	consumed bigint,
	at       bigint NOT NULL,
	PRIMARY KEY (id, kind, name, mail_id)
);

-- Semantic locks that live instances hold.
CREATE TABLE IF NOT EXISTS saga_lock (
	resource text NOT NULL PRIMARY KEY,
	id       text NOT NULL
);
CREATE INDEX IF NOT EXISTS saga_lock_id ON saga_lock (id);

-- The shapes of the definitions.
CREATE TABLE IF NOT EXISTS saga_def (
	def   text NOT NULL,
	ver   integer NOT NULL,
	hash  text NOT NULL,
	shape blob,
	at    bigint NOT NULL,
	PRIMARY KEY (def, ver)
);
