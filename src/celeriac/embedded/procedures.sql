-- The broker's moves as temporary triggers on empty views: each runs as one statement, in one transaction of its own,
-- with one release of the interpreter lock. Python's sqlite3 releases it at every step; a claim of 64 written as
-- separate statements lost it some thirty times to a busy event loop, at up to 5 ms each.
-- They live in the connection, not in the file, so they change with the code and not with the data.
-- OR IGNORE: a file that others have written to may have two places for one message; that must not stop its queue.

CREATE TEMP TABLE lost (token INTEGER NOT NULL, id INTEGER NOT NULL);

-- One row per message. until NULL: deliver now.
CREATE TEMP VIEW sending AS SELECT '' queue, 0 rank, 0 position, 0 until, x'' meta, x'' body WHERE 0;
CREATE TEMP TRIGGER send INSTEAD OF INSERT ON sending WHEN NEW.queue IS NOT NULL BEGIN
  INSERT INTO message (meta, body) VALUES (NEW.meta, NEW.body);
  INSERT OR IGNORE INTO ready
    SELECT NEW.queue, NEW.rank, NEW.position, last_insert_rowid(), 0, 0 WHERE NEW.until IS NULL;
  INSERT OR IGNORE INTO delayed
    SELECT NEW.until, last_insert_rowid(), NEW.queue, NEW.rank, 0, 0 WHERE NEW.until IS NOT NULL;
END;

-- The first room messages of a queue, in order, whatever their priorities.
CREATE TEMP VIEW claiming AS SELECT '' queue, 0 token, 0 until, 0 room WHERE 0;
CREATE TEMP TRIGGER claim INSTEAD OF INSERT ON claiming BEGIN
  INSERT OR IGNORE INTO held
    SELECT NEW.token, id, NEW.until, queue, rank, position, attempts, redelivered FROM ready
    WHERE queue = NEW.queue ORDER BY rank, position, id LIMIT NEW.room;
  DELETE FROM ready
    WHERE (queue, rank, position, id) IN (SELECT queue, rank, position, id FROM held WHERE token = NEW.token);
  INSERT OR IGNORE INTO lease SELECT NEW.until, NEW.token WHERE changes() > 0;
END;

-- Brings back what is due and what its holder did not renew, a bounded bite at a time.
CREATE TEMP VIEW sweeping AS SELECT 0 now WHERE 0;
CREATE TEMP TRIGGER sweep INSTEAD OF INSERT ON sweeping BEGIN
  INSERT OR IGNORE INTO ready
    SELECT queue, rank, until, id, attempts, redelivered FROM delayed
    WHERE until <= NEW.now ORDER BY until, id LIMIT 1000;
  DELETE FROM delayed
    WHERE (until, id) IN (SELECT until, id FROM delayed WHERE until <= NEW.now ORDER BY until, id LIMIT 1000);
  INSERT OR IGNORE INTO ready
    SELECT queue, rank, position, id, attempts + 1, redelivered + 1 FROM held
    WHERE token IN (SELECT token FROM lease WHERE until <= NEW.now ORDER BY until, token LIMIT 16)
      AND until <= NEW.now;
  DELETE FROM held
    WHERE token IN (SELECT token FROM lease WHERE until <= NEW.now ORDER BY until, token LIMIT 16)
      AND until <= NEW.now;
  -- what was renewed in the meantime is looked at again when it would expire
  INSERT OR IGNORE INTO lease
    SELECT min(until), token FROM held
    WHERE token IN (SELECT token FROM lease WHERE until <= NEW.now ORDER BY until, token LIMIT 16)
    GROUP BY token;
  DELETE FROM lease
    WHERE (until, token) IN (SELECT until, token FROM lease WHERE until <= NEW.now ORDER BY until, token LIMIT 16);
END;

-- One row: a record to store, a message to acknowledge, or both (they need not belong together).
CREATE TEMP VIEW finishing AS
  SELECT 0 token, 0 id, '' task_id, '' status, '' content_type, '' content_encoding, '' group_id, 0 expires_at,
         x'' payload WHERE 0;
CREATE TEMP TRIGGER finish_record INSTEAD OF INSERT ON finishing WHEN NEW.task_id IS NOT NULL BEGIN
  INSERT INTO result (task_id, status, content_type, content_encoding, group_id, expires_at, payload)
    VALUES (NEW.task_id, NEW.status, NEW.content_type, NEW.content_encoding, NEW.group_id, NEW.expires_at, NEW.payload)
    ON CONFLICT (task_id) DO UPDATE SET
      status = excluded.status, content_type = excluded.content_type, content_encoding = excluded.content_encoding,
      group_id = excluded.group_id, expires_at = excluded.expires_at, payload = excluded.payload
    WHERE result.status <> 'SUCCESS';
END;
CREATE TEMP TRIGGER finish_message INSTEAD OF INSERT ON finishing WHEN NEW.id IS NOT NULL BEGIN
  DELETE FROM held WHERE token = NEW.token AND id = NEW.id;
  DELETE FROM message WHERE id = NEW.id AND changes() = 1;
  INSERT INTO lost SELECT NEW.token, NEW.id WHERE changes() = 0;
END;

-- Give a held message back: until NULL to its old place in the queue, else not before that time.
CREATE TEMP VIEW returning_held AS SELECT 0 token, 0 id, 0 until, 0 counted WHERE 0;
CREATE TEMP TRIGGER return_held INSTEAD OF INSERT ON returning_held WHEN NEW.id IS NOT NULL BEGIN
  INSERT INTO lost
    SELECT NEW.token, NEW.id WHERE NOT EXISTS (SELECT 1 FROM held WHERE token = NEW.token AND id = NEW.id);
  INSERT OR IGNORE INTO ready
    SELECT queue, rank, position, id, attempts + NEW.counted, max(redelivered, 1) FROM held
    WHERE NEW.until IS NULL AND token = NEW.token AND id = NEW.id;
  INSERT OR IGNORE INTO delayed
    SELECT NEW.until, id, queue, rank, attempts + NEW.counted, max(redelivered, 1) FROM held
    WHERE NEW.until IS NOT NULL AND token = NEW.token AND id = NEW.id;
  DELETE FROM held WHERE token = NEW.token AND id = NEW.id;
END;

CREATE TEMP VIEW burying AS
  SELECT 0 token, 0 id, '' kind, '' reason, '' worker, 0 now, 0 expires_at WHERE 0;
CREATE TEMP TRIGGER bury INSTEAD OF INSERT ON burying WHEN NEW.id IS NOT NULL BEGIN
  INSERT INTO lost
    SELECT NEW.token, NEW.id WHERE NOT EXISTS (SELECT 1 FROM held WHERE token = NEW.token AND id = NEW.id);
  INSERT INTO buried (kind, queue, rank, attempts, reason, worker, buried_at, expires_at, meta, body)
    SELECT NEW.kind, h.queue, h.rank, h.attempts, NEW.reason, NEW.worker, NEW.now, NEW.expires_at, m.meta, m.body
    FROM held h JOIN message m ON m.id = h.id WHERE h.token = NEW.token AND h.id = NEW.id;
  DELETE FROM message
    WHERE id = NEW.id AND EXISTS (SELECT 1 FROM held WHERE token = NEW.token AND id = NEW.id);
  DELETE FROM held WHERE token = NEW.token AND id = NEW.id;
END;

-- A consumer that leaves gives back everything of its range of tokens, but for the pairs [token, id] in kept.
CREATE TEMP VIEW leaving AS SELECT 0 first, 0 last, '' kept WHERE 0;
CREATE TEMP TRIGGER leave INSTEAD OF INSERT ON leaving BEGIN
  INSERT OR IGNORE INTO ready
    SELECT queue, rank, position, id, attempts, max(redelivered, 1) FROM held
    WHERE token BETWEEN NEW.first AND NEW.last
      AND (token, id) NOT IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(NEW.kept));
  DELETE FROM held
    WHERE token BETWEEN NEW.first AND NEW.last
      AND (token, id) NOT IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(NEW.kept));
  DELETE FROM holder
    WHERE first_token = NEW.first AND NOT EXISTS (SELECT 1 FROM held WHERE token BETWEEN NEW.first AND NEW.last);
END;

-- The same for a consumer that was found dead. Which of its messages had been started died with it, and most were
-- only waiting: a message is not blamed (attempts) before it has seen ten consumers die.
CREATE TEMP VIEW forsaking AS SELECT 0 first, 0 last WHERE 0;
CREATE TEMP TRIGGER forsake INSTEAD OF INSERT ON forsaking BEGIN
  INSERT OR IGNORE INTO ready
    SELECT queue, rank, position, id, attempts + (redelivered >= 10), redelivered + 1 FROM held
    WHERE token BETWEEN NEW.first AND NEW.last;
  DELETE FROM held WHERE token BETWEEN NEW.first AND NEW.last;
  DELETE FROM holder WHERE first_token = NEW.first;
END;
