"""Figures that only the embedded database has: the disk's limit, a million waiting tasks, start-up."""

from __future__ import annotations

import sqlite3
import statistics
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measures
from places import Sqlite

if TYPE_CHECKING:
    from collections.abc import Callable

    from contenders import Product

HERE = Path(__file__).resolve().parent


def fsync_limit(place: Sqlite) -> float:
    """Commits per second of one row each, fsynced: what no durable one-by-one sender on this disk can beat.

    The log is filled before: commits that overwrite it are about twice as quick as those that make it longer.
    """
    file = place.fresh().folder / "limit.sqlite3"
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("pragma journal_mode=wal")
        connection.execute("create table t(id integer primary key, b blob)")
        connection.execute("pragma synchronous=off")
        connection.execute("pragma wal_autocheckpoint=5000")
        for _ in range(5000):
            connection.execute("insert into t(b) values(?)", (b"x" * 400,))
        connection.execute("pragma wal_checkpoint(restart)").fetchall()
        connection.execute("pragma synchronous=full")
        start = time.perf_counter()
        for _ in range(2000):
            connection.execute("begin immediate")
            connection.execute("insert into t(b) values(?)", (b"x" * 400,))
            connection.execute("commit")
        return 2000 / (time.perf_counter() - start)


def million(own: Product, place: Sqlite, scale: float) -> list[dict[str, Any]]:
    """Send and drain on top of a million waiting tasks, against the same on an empty file; one run."""
    full = _sent_and_drained(own, place, int(1_000_000 * scale))
    empty = _sent_and_drained(own, place, 0)
    lines = []
    for what, place_of in (("send", 0), ("drain", 1)):
        slower = (1 - full[place_of] / empty[place_of]) * 100
        lines += [
            line(f"SQLite: {what}, {int(1_000_000 * scale):,} tasks waiting", full[place_of], "/s"),
            line(f"SQLite: {what}, same size, empty", empty[place_of], "/s"),
            line(f"SQLite: {what}, slower with them", slower, "%", "≤ 20", slower <= 20),
        ]
    return lines


def _sent_and_drained(own: Product, place: Sqlite, backlog: int) -> tuple[float, float]:
    site = place.fresh()
    if backlog:
        measures.client(own, site, "fill", backlog, results=True)
    sent = measures.client(own, site, "fill", 20_000, results=True)["rate"]
    goal = 40_000 if backlog else 20_000
    if not backlog:
        measures.client(own, site, "fill", 20_000, results=True)
    with measures.serving(own, site, results=True) as started:
        first = measures.reach(site, started, 5_000, measures.START)
        last = measures.reach(site, started, goal - 500, measures.LIMIT)
        return sent, (last[1] - first[1]) / (last[0] - first[0])


def starts(contenders: list[Product], place: Sqlite) -> list[dict[str, Any]]:
    lines = []
    for product in contenders:
        took = import_ms(product, place)
        goal, is_met = ("< 60", took < 60) if product.own else ("", None)
        lines.append(line(f"import and one task: {product.name}", took, "ms", goal, is_met))
    for product in contenders:
        used = measures.idle_memory(product, place)
        goal, is_met = ("< 45", used < 45) if product.own else ("", None)
        lines.append(line(f"idle worker's parent: {product.name}", used, "MiB", goal, is_met))
    return lines


def import_ms(product: Product, place: Sqlite) -> float:
    env = product.variables(place.fresh(), results=True)

    def once(text: str) -> float:
        start = time.perf_counter()
        # with pipes to read, the end is seen at once; a bare wait with a deadline looks only every 50 ms
        subprocess.run([str(product.python), "-c", text], env=env, check=True, timeout=60, capture_output=True)
        return time.perf_counter() - start

    code = f"import {product.module}"
    once(code)  # compiles the bytecode
    pairs = [(once(code), once("pass")) for _ in range(15)]  # in turn, so that other load falls on both
    return (statistics.median(full for full, _ in pairs) - statistics.median(bare for _, bare in pairs)) * 1000


def line(what: str, value: float, unit: str, goal: str = "", is_met: bool | None = None) -> dict[str, Any]:
    verdict = "" if is_met is None else "reached" if is_met else "MISSED"
    return {"what": what, "value": value, "unit": unit, "goal": goal, "verdict": verdict}


def median_of(runs: int, measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(runs))


__all__ = ["fsync_limit", "median_of", "million", "starts"]
