-- The file beside the embedded file in which limits are counted, version 1. Times are seconds on the machine's
-- monotonic clock, which all its processes share; a clock that has started anew (a reboot) is told by times ahead of it.

CREATE TABLE rate (
  key TEXT PRIMARY KEY,
  tat REAL NOT NULL  -- theoretical arrival time of the next start (GCRA)
) WITHOUT ROWID;
CREATE INDEX rate_by_time ON rate (tat);

CREATE TABLE permit (
  key    TEXT NOT NULL,
  holder TEXT NOT NULL,
  since  REAL NOT NULL,
  until  REAL NOT NULL,
  PRIMARY KEY (key, holder)
) WITHOUT ROWID;
CREATE INDEX permit_by_time ON permit (until);

-- How many permits of a counter were ever given out.
CREATE TABLE served (
  key    TEXT PRIMARY KEY,
  number INTEGER NOT NULL,
  until  REAL NOT NULL  -- when nobody will ask any more
) WITHOUT ROWID;
CREATE INDEX served_by_time ON served (until);
