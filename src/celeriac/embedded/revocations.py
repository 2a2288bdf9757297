"""The registry of what is revoked, in the embedded file. Works on a :class:`~celeriac.embedded.file.Link`.

The table is made when something is revoked for the first time: files that were written before it need no other
format. Numbers grow with the clock, so that a file that replaces another one goes on above it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from celeriac.wire.revocation import PARDON, News, Standing, checked, fresh_ms

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from celeriac.embedded.file import Link
    from celeriac.wire.revocation import Revocation

_TABLE = """CREATE TABLE IF NOT EXISTS revocation (
  number     INTEGER PRIMARY KEY,  -- microseconds since the epoch, or one more than the last
  header     TEXT NOT NULL,        -- the stamped header; '': value is the id of a task
  signal     TEXT NOT NULL,        -- what ends those that run; '': nothing
  value      TEXT NOT NULL,
  expires_at INTEGER NOT NULL,
  UNIQUE (value, header, signal)
)"""
_BY_EXPIRY = "CREATE INDEX IF NOT EXISTS revocation_by_expiry ON revocation (expires_at)"
#: rows that one look for expired ones removes
_BITE = 2000


def write(link: Link, entries: Sequence[Revocation], kept_ms: int, now: int) -> None:
    """Add ``entries``, each for ``kept_ms`` from ``now`` on. What is there for about as long is left as it is."""
    enough = now + fresh_ms(kept_ms)

    def work(connection: sqlite3.Connection) -> None:
        connection.execute(_TABLE)
        connection.execute(_BY_EXPIRY)
        connection.execute(
            "DELETE FROM revocation WHERE number IN "
            f"(SELECT number FROM revocation WHERE expires_at <= ? LIMIT {_BITE})",
            (now,),
        )
        number = max(_last(connection), now * 1000 - 1)
        for entry in entries:
            key = (entry.value, entry.header, entry.signal)
            connection.execute(
                "DELETE FROM revocation WHERE (value, header) = (?, ?) AND (signal = ?) <> ?",
                (entry.value, entry.header, PARDON, entry.is_pardon),
            )
            there = connection.execute(
                "SELECT expires_at FROM revocation WHERE (value, header, signal) = (?, ?, ?)", key
            ).fetchone()
            if there is not None and there[0] >= enough:
                continue
            number += 1
            connection.execute(
                "INSERT OR REPLACE INTO revocation (number, value, header, signal, expires_at) VALUES (?, ?, ?, ?, ?)",
                (number, *key, now + kept_ms),
            )

    link.write(work)


def read(link: Link, mark: int, limit: int, now: int) -> News:
    """Up to ``limit`` entries above ``mark``, those that have not expired."""

    def work(connection: sqlite3.Connection) -> News:
        if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'revocation'").fetchone() is None:
            return News(0, [])
        last = _last(connection)
        since = mark if mark <= last else 0  # another file, or the newest has expired
        if since == last:
            return News(last, [])
        rows = connection.execute(
            "SELECT number, header, signal, value, expires_at FROM revocation WHERE number > ? ORDER BY number LIMIT ?",
            (since, limit),
        ).fetchall()
        standing = [
            Standing(entry, (expires_at - now) / 1000)
            for _, header, signal, value, expires_at in rows
            if expires_at > now and (entry := checked(header, signal, value)) is not None
        ]
        more = len(rows) == limit
        return News(rows[-1][0] if more else last, standing, more)

    return link.read(work)


def _last(connection: sqlite3.Connection) -> int:
    found: int | None = connection.execute("SELECT max(number) FROM revocation").fetchone()[0]
    return found or 0
