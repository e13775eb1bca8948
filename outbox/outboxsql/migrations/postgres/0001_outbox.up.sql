-- Messages that wait. One index only and never an UPDATE: attempts live in outbox_retry.
-- Times are microseconds since 1970 by the database's clock; 0 is none.
CREATE TABLE outbox (
  part         smallint NOT NULL,
  id           bigint GENERATED ALWAYS AS IDENTITY,
  msg_id       text NOT NULL,
  topic        text NOT NULL,
  msg_key      text NOT NULL,
  content_type text NOT NULL,
  headers      text NOT NULL,
  payload      bytea NOT NULL,
  created_at   bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
  expires_at   bigint NOT NULL,
  PRIMARY KEY (part, id)
) WITH (fillfactor = 100, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0, toast_tuple_target = 4080);

CREATE TABLE outbox_lease (
  part     smallint PRIMARY KEY,
  owner    text NOT NULL,
  epoch    bigint NOT NULL,
  gen      bigint NOT NULL,
  until_at bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE outbox_relay (
  id       text PRIMARY KEY,
  until_at bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE outbox_retry (
  part       smallint NOT NULL,
  id         bigint NOT NULL,
  attempts   integer NOT NULL,
  last_error text NOT NULL,
  PRIMARY KEY (part, id)
) WITH (fillfactor = 70);

CREATE TABLE outbox_dead (
  id           bigint PRIMARY KEY,
  part         smallint NOT NULL,
  msg_id       text NOT NULL,
  topic        text NOT NULL,
  msg_key      text NOT NULL,
  content_type text NOT NULL,
  headers      text NOT NULL,
  payload      bytea NOT NULL,
  created_at   bigint NOT NULL,
  expires_at   bigint NOT NULL,
  reason       text NOT NULL,
  attempts     integer NOT NULL,
  holds        boolean NOT NULL,
  parked_at    bigint NOT NULL
);
CREATE INDEX outbox_dead_key ON outbox_dead (part, msg_key);

CREATE TABLE outbox_scheduled (
  due          bigint NOT NULL,
  id           bigint GENERATED ALWAYS AS IDENTITY,
  part         smallint NOT NULL,
  msg_id       text NOT NULL,
  topic        text NOT NULL,
  msg_key      text NOT NULL,
  content_type text NOT NULL,
  headers      text NOT NULL,
  payload      bytea NOT NULL,
  expires_at   bigint NOT NULL,
  PRIMARY KEY (due, id)
);

-- Facts about this outbox: the number of partitions.
CREATE TABLE outbox_meta (
  name  text PRIMARY KEY,
  value bigint NOT NULL
);

CREATE TABLE inbox (
  consumer text NOT NULL,
  msg_id   text NOT NULL,
  seen_at  bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
  PRIMARY KEY (consumer, msg_id)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05);
