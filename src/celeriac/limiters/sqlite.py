"""Counters in a SQLite file beside the embedded one (``<file>-limits``), for the workers of one machine.

A file of its own: counting takes its write lock many times a second and need not be durable, while the queue's file
waits for the disk. The clock is the machine's monotonic one, which all its processes share and nobody sets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from celeriac.embedded.file import LIMITS, EmbeddedFile
from celeriac.embedded.location import location_of
from celeriac.rules.counting import Answer, Demand, Lease, Permit, Permits, decide

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from celeriac.clock import Clock

#: calls between two looks for what has run out, and rows that one look removes
_TIDY, _BITE = 500, 200
#: values that one statement takes (SQLite's own bound is 999 in old versions)
_VALUES = 500


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
            needs = [need for demand in demands for need in demand.needs]
            rates = _rates(connection, {need.key for need in needs if not need.most})
            permits = _permits(connection, {need.key for need in needs if need.most}, now)
            before = dict(rates)
            answers = decide(demands, quota, now, lease, rates, permits)
            _write_rates(connection, {key: tat for key, tat in rates.items() if before.get(key) != tat})
            _write_permits(
                connection,
                [(key, holder, one) for key, held in permits.items() for holder, one in held.items() if one.since == now],
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

    def close(self) -> None:
        self._link.close()


def _tidy(connection: sqlite3.Connection, now: float) -> None:
    connection.execute(
        f"DELETE FROM rate WHERE key IN (SELECT key FROM rate WHERE tat <= ? LIMIT {_BITE})", (now,)
    )  # fmt: skip
    connection.execute(
        "DELETE FROM permit WHERE (key, holder) IN "
        f"(SELECT key, holder FROM permit WHERE until <= ? LIMIT {_BITE})", (now,)
    )  # fmt: skip


def _rates(connection: sqlite3.Connection, keys: Iterable[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for part, marks in _parts(keys):
        found.update(connection.execute(f"SELECT key, tat FROM rate WHERE key IN ({marks})", part).fetchall())
    return found


def _permits(connection: sqlite3.Connection, keys: Iterable[str], now: float) -> Permits:
    """Those that are good."""
    found: Permits = {}
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


def _write_permits(connection: sqlite3.Connection, rows: Sequence[tuple[str, str, Lease]]) -> None:
    connection.executemany(
        "INSERT INTO permit (key, holder, since, until) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (key, holder) DO UPDATE SET since = excluded.since, until = excluded.until",
        [(key, holder, one.since, one.until) for key, holder, one in rows],
    )
