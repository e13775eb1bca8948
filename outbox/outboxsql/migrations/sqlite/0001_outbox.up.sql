-- Messages that wait. Never an UPDATE: attempts live in outbox_retry.
-- Times are microseconds since 1970 by the database's clock; 0 is none.
CREATE TABLE outbox (
  part         integer NOT NULL,
  id           integer PRIMARY KEY AUTOINCREMENT,
  msg_id       text NOT NULL,
  topic        text NOT NULL,
  msg_key      text NOT NULL,
  content_type text NOT NULL,
  headers      text NOT NULL,
  payload      blob NOT NULL,
  created_at   integer NOT NULL,
  expires_at   integer NOT NULL
);
CREATE INDEX outbox_part ON outbox (part, id);

CREATE TABLE outbox_lease (
  part     integer PRIMARY KEY,
  owner    text NOT NULL,
  epoch    integer NOT NULL,
  gen      integer NOT NULL,
  until_at integer NOT NULL
);

CREATE TABLE outbox_relay (
  id       text PRIMARY KEY,
  until_at integer NOT NULL
);

CREATE TABLE outbox_retry (
  part       integer NOT NULL,
  id         integer NOT NULL,
  attempts   integer NOT NULL,
  last_error text NOT NULL,
  PRIMARY KEY (part, id)
);

CREATE TABLE outbox_dead (
  id           integer PRIMARY KEY,
  part         integer NOT NULL,
  msg_id       text NOT NULL,
  topic        text NOT NULL,
  msg_key      text NOT NULL,
  content_type text NOT NULL,
  headers      text NOT NULL,
  payload      blob NOT NULL,
  created_at   integer NOT NULL,
  expires_at   integer NOT NULL,
  reason       text NOT NULL,
  attempts     integer NOT NULL,
  holds        integer NOT NULL,
  parked_at    integer NOT NULL
);
CREATE INDEX outbox_dead_key ON outbox_dead (part, msg_key);

CREATE TABLE outbox_scheduled (
  due          integer NOT NULL,
  id           integer PRIMARY KEY AUTOINCREMENT,
  part         integer NOT NULL,
  msg_id       text NOT NULL,
  topic        text NOT NULL,
  msg_key      text NOT NULL,
  content_type text NOT NULL,
  headers      text NOT NULL,
  payload      blob NOT NULL,
  expires_at   integer NOT NULL
);
CREATE INDEX outbox_scheduled_due ON outbox_scheduled (due, id);

-- Facts about this outbox: the number of partitions.
CREATE TABLE outbox_meta (
  name  text PRIMARY KEY,
  value integer NOT NULL
);

CREATE TABLE inbox (
  consumer text NOT NULL,
  msg_id   text NOT NULL,
  seen_at  integer NOT NULL,
  PRIMARY KEY (consumer, msg_id)
) WITHOUT ROWID;
