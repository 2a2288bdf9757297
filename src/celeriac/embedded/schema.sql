-- The embedded file, version 1: a broker and a result store. Times are integer milliseconds since the epoch.
-- A message is in exactly one of ready, delayed and held. Those rows are narrow and change often; the bytes in
-- message are written once and removed once, so that moving a message never rewrites its body.

CREATE TABLE message (
  id   INTEGER PRIMARY KEY,
  meta BLOB NOT NULL,  -- msgpack: headers, properties, route
  body BLOB NOT NULL
);

-- What may be given out now, in the order in which it is given out. rank is the negated priority; position is the
-- time at which the message became due; redelivered counts how often it came back. No condition on the time: a clock
-- that is set back hides nothing.
CREATE TABLE ready (
  queue       TEXT    NOT NULL,
  rank        INTEGER NOT NULL,
  position    INTEGER NOT NULL,
  id          INTEGER NOT NULL,
  attempts    INTEGER NOT NULL,
  redelivered INTEGER NOT NULL,
  PRIMARY KEY (queue, rank, position, id)
) WITHOUT ROWID;

-- What waits for its time; moved to ready by whoever claims next.
CREATE TABLE delayed (
  until       INTEGER NOT NULL,
  id          INTEGER NOT NULL,
  queue       TEXT    NOT NULL,
  rank        INTEGER NOT NULL,
  attempts    INTEGER NOT NULL,
  redelivered INTEGER NOT NULL,
  PRIMARY KEY (until, id)
) WITHOUT ROWID;

-- What a consumer holds. token is new for every claim, so (token, id) fences off whoever lost the message.
CREATE TABLE held (
  token       INTEGER NOT NULL,
  id          INTEGER NOT NULL,
  until       INTEGER NOT NULL,
  queue       TEXT    NOT NULL,
  rank        INTEGER NOT NULL,
  position    INTEGER NOT NULL,
  attempts    INTEGER NOT NULL,
  redelivered INTEGER NOT NULL,
  PRIMARY KEY (token, id)
) WITHOUT ROWID;

-- When to look at the rows of a claim again: one row per claim instead of an index on held.until (which cost 4 µs
-- per message). Renewing only touches held.until; the look then finds nothing expired and moves this row on.
CREATE TABLE lease (
  until INTEGER NOT NULL,
  token INTEGER NOT NULL,
  PRIMARY KEY (until, token)
) WITHOUT ROWID;

-- The consumers there are, by their range of tokens. Each locks a file of its own while it lives (holders.py), so that
-- whoever looks can tell at once who has vanished and need not wait for the leases.
CREATE TABLE holder (
  first_token INTEGER PRIMARY KEY,
  last_token  INTEGER NOT NULL
);

-- Set aside with unchanged bytes: dead letters and quarantine.
CREATE TABLE buried (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  kind       TEXT    NOT NULL,  -- dead, quarantine
  queue      TEXT    NOT NULL,
  rank       INTEGER NOT NULL,
  attempts   INTEGER NOT NULL,
  reason     TEXT    NOT NULL,
  worker     TEXT    NOT NULL,
  buried_at  INTEGER NOT NULL,
  expires_at INTEGER,
  meta       BLOB    NOT NULL,
  body       BLOB    NOT NULL
);
CREATE INDEX buried_by_expiry ON buried (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE queue (
  name TEXT PRIMARY KEY,
  spec BLOB NOT NULL  -- msgpack of QueueSpec
) WITHOUT ROWID;

CREATE TABLE binding (
  exchange      TEXT NOT NULL,
  queue         TEXT NOT NULL,
  routing_key   TEXT NOT NULL,
  exchange_type TEXT NOT NULL,
  PRIMARY KEY (exchange, queue, routing_key)
) WITHOUT ROWID;

-- A short memory for fan-out: subscribers read what is newer than what they saw.
CREATE TABLE broadcast (
  id       INTEGER PRIMARY KEY AUTOINCREMENT,
  topic    TEXT    NOT NULL,
  sent_at  INTEGER NOT NULL,
  envelope BLOB    NOT NULL
);

-- A rowid table: random task ids as the clustering key doubled the cost of a write at 500,000 records.
CREATE TABLE result (
  number           INTEGER PRIMARY KEY,
  task_id          TEXT NOT NULL UNIQUE,
  status           TEXT NOT NULL,
  content_type     TEXT NOT NULL,
  content_encoding TEXT NOT NULL,
  group_id         TEXT,
  expires_at       INTEGER,
  payload          BLOB NOT NULL
);
CREATE INDEX result_by_expiry ON result (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE saved_group (
  id         TEXT PRIMARY KEY,
  expires_at INTEGER,
  payload    BLOB NOT NULL
) WITHOUT ROWID;
