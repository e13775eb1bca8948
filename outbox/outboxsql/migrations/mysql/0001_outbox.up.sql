-- Messages that wait. Never an UPDATE: attempts live in outbox_retry. Text is VARBINARY, because the collations
-- of MySQL hold "a" and "a " for the same key. Times are microseconds since 1970 by the database's clock; 0 is none.
CREATE TABLE IF NOT EXISTS outbox (
  part         SMALLINT NOT NULL,
  id           BIGINT NOT NULL AUTO_INCREMENT,
  msg_id       VARBINARY(255) NOT NULL,
  topic        VARBINARY(255) NOT NULL,
  msg_key      VARBINARY(255) NOT NULL,
  content_type VARBINARY(255) NOT NULL,
  headers      MEDIUMBLOB NOT NULL,
  payload      LONGBLOB NOT NULL,
  created_at   BIGINT NOT NULL,
  expires_at   BIGINT NOT NULL,
  PRIMARY KEY (part, id),
  UNIQUE KEY (id)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS outbox_lease (
  part     SMALLINT PRIMARY KEY,
  owner    VARBINARY(64) NOT NULL,
  epoch    BIGINT NOT NULL,
  gen      BIGINT NOT NULL,
  until_at BIGINT NOT NULL
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS outbox_relay (
  id       VARBINARY(64) PRIMARY KEY,
  until_at BIGINT NOT NULL
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS outbox_retry (
  part       SMALLINT NOT NULL,
  id         BIGINT NOT NULL,
  attempts   INT NOT NULL,
  last_error BLOB NOT NULL,
  PRIMARY KEY (part, id)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS outbox_dead (
  id           BIGINT PRIMARY KEY,
  part         SMALLINT NOT NULL,
  msg_id       VARBINARY(255) NOT NULL,
  topic        VARBINARY(255) NOT NULL,
  msg_key      VARBINARY(255) NOT NULL,
  content_type VARBINARY(255) NOT NULL,
  headers      MEDIUMBLOB NOT NULL,
  payload      LONGBLOB NOT NULL,
  created_at   BIGINT NOT NULL,
  expires_at   BIGINT NOT NULL,
  reason       BLOB NOT NULL,
  attempts     INT NOT NULL,
  holds        BOOLEAN NOT NULL,
  parked_at    BIGINT NOT NULL,
  KEY outbox_dead_key (part, msg_key)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS outbox_scheduled (
  due          BIGINT NOT NULL,
  id           BIGINT NOT NULL AUTO_INCREMENT,
  part         SMALLINT NOT NULL,
  msg_id       VARBINARY(255) NOT NULL,
  topic        VARBINARY(255) NOT NULL,
  msg_key      VARBINARY(255) NOT NULL,
  content_type VARBINARY(255) NOT NULL,
  headers      MEDIUMBLOB NOT NULL,
  payload      LONGBLOB NOT NULL,
  expires_at   BIGINT NOT NULL,
  PRIMARY KEY (due, id),
  UNIQUE KEY (id)
) ENGINE = InnoDB;

-- Facts about this outbox: the number of partitions.
CREATE TABLE IF NOT EXISTS outbox_meta (
  name  VARBINARY(64) PRIMARY KEY,
  value BIGINT NOT NULL
) ENGINE = InnoDB;

-- Rows to lock for strict keys, since MySQL has no lock that ends with its transaction.
CREATE TABLE IF NOT EXISTS outbox_strict (
  bucket SMALLINT PRIMARY KEY
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS inbox (
  consumer VARBINARY(255) NOT NULL,
  msg_id   VARBINARY(255) NOT NULL,
  seen_at  BIGINT NOT NULL,
  PRIMARY KEY (consumer, msg_id)
) ENGINE = InnoDB;
