"""Counters in a SQLite file beside the embedded one (``<file>-limits``), for the workers of one machine.

A file of its own: counting takes its write lock many times a second and need not be durable, while the queue's file
waits for the disk. The clock is the machine's monotonic one, which all its processes share and nobody sets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celeriac.embedded.file import LIMITS, EmbeddedFile
from celeriac.embedded.location import location_of
from celeriac.rules.counting import Answer, Demand, Lease, Permit, Tables, decide

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

    from celeriac.clock import Clock

#: calls between two looks for what has run out, and rows that one look removes
_TIDY, _BITE = 500, 200
#: seconds that the number of permits given out is remembered
_REMEMBERED = 3600.0
#: values that one statement takes (SQLite's own bound is 999 in old versions)
_VALUES = 500
_CHANGES = "CREATE TABLE IF NOT EXISTS change (counter TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"


class SqliteLimiter:
    """Counts for the workers that use the same file. Construction does no I/O; thread-safe, fork-safe."""

    def __init__(self, url: str, settings: object, clock: Clock, origin: str = "task_limit_store") -> None:
        location = location_of(url)
        beside = location.path.with_name(location.path.name + "-limits")
        self._link = EmbeddedFile(location._replace(path=beside), LIMITS).link(durable=False, procedures=False)
        self._clock = clock
        self._calls = 0

    def take(self, demands: Sequence[Demand], quota: int, lease: float) -> Sequence[Answer]:
        self._calls += 1
        is_tidying = self._calls % _TIDY == 0

        def work(connection: sqlite3.Connection) -> list[Answer]:
            now = self._clock.monotonic()  # under the lock, so that it never goes back from one taker to the next
            if is_tidying:
                _tidy(connection, now)
            tables = _read(connection, demands, now)
            rates, served = dict(tables.rates), dict(tables.served)
            answers = decide(demands, quota, now, lease, tables)
            _write_rates(connection, {key: tat for key, tat in tables.rates.items() if rates.get(key) != tat})
            _write_served(
                connection, {key: number for key, number in tables.served.items() if served.get(key) != number}, now
            )
            _write_permits(
                connection,
                [
                    (key, holder, one)
                    for key, held in tables.permits.items()
                    for holder, one in held.items()
                    if one.since == now
                ],
            )
            return answers

        return self._link.write(work)

    def renew(self, permits: Sequence[Permit], lease: float) -> Sequence[Permit]:
        def work(connection: sqlite3.Connection) -> list[Permit]:
            now = self._clock.monotonic()
            held = _permits(connection, {permit.key for permit in permits}, now)
            _write_permits(connection, [(one.key, one.holder, Lease(now, now + lease)) for one in permits])
            return [permit for permit in permits if permit.holder not in held.get(permit.key, ())]

        return self._link.write(work)

    def release(self, permits: Sequence[Permit]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "DELETE FROM permit WHERE key = ? AND holder = ?", [(one.key, one.holder) for one in permits]
            )

        self._link.write(work)

    def change(self, counter: str, change: bytes | None) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute(_CHANGES)  # files that were made before need no other format
            if change is None:
                connection.execute("DELETE FROM change WHERE counter = ?", (counter,))
            else:
                connection.execute("INSERT OR REPLACE INTO change (counter, value) VALUES (?, ?)", (counter, change))

        self._link.write(work)

    def changes(self) -> Mapping[str, bytes]:
        def work(connection: sqlite3.Connection) -> dict[str, bytes]:
            if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'change'").fetchone() is None:
                return {}
            return {
                str(counter): bytes(value)
                for counter, value in connection.execute("SELECT counter, value FROM change").fetchall()
            }

        return self._link.read(work)

    def close(self) -> None:
        self._link.close()


def _read(connection: sqlite3.Connection, demands: Sequence[Demand], now: float) -> Tables:
    needs = [need for demand in demands for need in demand.needs]
    turns, permits = {need.key for need in needs if not need.most}, {need.key for need in needs if need.most}
    return Tables(
        rates=_numbers(connection, "SELECT key, tat FROM rate", turns),
        permits=_permits(connection, permits, now),
        served=_numbers(connection, "SELECT key, number FROM served", permits),
    )


def _tidy(connection: sqlite3.Connection, now: float) -> None:
    for table, column in (("rate", "tat"), ("served", "until")):
        connection.execute(
            f"DELETE FROM {table} WHERE key IN (SELECT key FROM {table} WHERE {column} <= ? LIMIT {_BITE})", (now,)
        )
    connection.execute(
        "DELETE FROM permit WHERE (key, holder) IN "
        f"(SELECT key, holder FROM permit WHERE until <= ? LIMIT {_BITE})", (now,)
    )  # fmt: skip


def _numbers(connection: sqlite3.Connection, select: str, keys: Iterable[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part, marks in _parts(keys):
        found.update(connection.execute(f"{select} WHERE key IN ({marks})", part).fetchall())
    return found


def _permits(connection: sqlite3.Connection, keys: Iterable[str], now: float) -> dict[str, dict[str, Lease]]:
    """Those that are good."""
    found: dict[str, dict[str, Lease]] = {}
    for part, marks in _parts(keys):
        rows = connection.execute(
            f"SELECT key, holder, since, until FROM permit WHERE key IN ({marks}) AND since <= ? AND until > ?",
            [*part, now, now],
        )
        for key, holder, since, until in rows.fetchall():
            found.setdefault(key, {})[holder] = Lease(since, until)
    return found


def _parts(keys: Iterable[str]) -> list[tuple[list[str], str]]:
    names = list(keys)
    parts = [names[start : start + _VALUES] for start in range(0, len(names), _VALUES)]
    return [(part, ",".join("?" * len(part))) for part in parts]


def _write_rates(connection: sqlite3.Connection, rates: dict[str, float]) -> None:
    connection.executemany(
        "INSERT INTO rate (key, tat) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET tat = excluded.tat", rates.items()
    )  # fmt: skip


def _write_served(connection: sqlite3.Connection, served: dict[str, int], now: float) -> None:
    connection.executemany(
        "INSERT INTO served (key, number, until) VALUES (?, ?, ?) "
        "ON CONFLICT (key) DO UPDATE SET number = excluded.number, until = excluded.until",
        [(key, number, now + _REMEMBERED) for key, number in served.items()],
    )


def _write_permits(connection: sqlite3.Connection, rows: Sequence[tuple[str, str, Lease]]) -> None:
    connection.executemany(
        "INSERT INTO permit (key, holder, since, until) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (key, holder) DO UPDATE SET since = excluded.since, until = excluded.until",
        [(key, holder, one.since, one.until) for key, holder, one in rows],
    )
