"""The measurements themselves: one run of one product at one place, within a time limit, as plain figures."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps import tally
from processes import Workers, cpu_seconds, family_of, memory_mib, workers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from contenders import Product
    from places import Far, Place, Site

HERE = Path(__file__).resolve().parent
#: seconds after which a product that is still sending or draining is cut off
LIMIT = 25.0
#: seconds that a worker may take until its first tasks have run
START = 15.0


class CutOff(Exception):
    """A product took longer than it may."""


def client(product: Product, site: Site, action: str, amount: float, *, results: bool, **more: str) -> dict[str, float]:
    """Run ``client.py`` in the product's interpreter; what it measured."""
    command = [str(product.python), str(HERE / "client.py"), product.module, action, str(amount)]
    try:
        done = subprocess.run(
            command, env=product.variables(site, results=results, **more), cwd=HERE / "apps", capture_output=True,
            text=True, timeout=LIMIT + 15,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise CutOff(f"{action} was not done after {LIMIT + 15:.0f} s") from None
    if done.returncode:
        raise RuntimeError(f"{action} failed: {done.stderr.strip()[-1500:]}")
    answer: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


@contextmanager
def serving(product: Product, site: Site, *, results: bool, **more: str) -> Iterator[Workers]:
    environment = product.variables(site, results=results, **more)
    commands = [[part.format(broker=site.broker) for part in command] for command in product.commands]
    with workers(commands, environment, site.folder, HERE / "apps") as started:
        yield started


class Meter:
    """CPU time of a product's processes and of the broker's, between two moments."""

    def __init__(self, product: Product, site: Site, started: Workers) -> None:
        self._roots = started.roots
        self._has_parent = product.has_parent
        self._family = family_of(started.roots)
        self._servers = family_of(site.server_pids)
        self._began = self._now()

    def _now(self) -> tuple[float, float, float, float]:
        roots = self._roots if self._has_parent else ()
        return (
            cpu_seconds(self._family), cpu_seconds(self._servers), cpu_seconds(roots),
            cpu_seconds(roots, main_thread=True),
        )  # fmt: skip

    def per_task(self, count: int) -> dict[str, float]:
        """µs per task since the start."""
        spent = [(end - begin) / count * 1e6 for begin, end in zip(self._began, self._now(), strict=True)]
        figures = {"worker_us": spent[0]}
        if self._servers:
            figures["server_us"] = spent[1]
        if self._has_parent:
            figures.update(parent_us=spent[2], loop_us=spent[3])
        return figures


def drain(product: Product, place: Place | Far, count: int, *, results: bool) -> dict[str, Any]:
    """Rate over the last 90 % of the tasks, so that the worker's start is not in it."""
    site = place.fresh()
    client(product, site, "fill", count, results=results, BENCH_CONFIRMS="0")
    with serving(product, site, results=results) as started:
        began, first = reach(site, started, max(1, count // 10), START)
        if first == 0:
            raise CutOff(f"no task ran within {START:.0f} s: {started.last_words()}")
        meter = Meter(product, site, started)
        ended, last = reach(site, started, count - count // 50, LIMIT)
        ran = max(1, last - first)
        figures: dict[str, Any] = {"rate": ran / (ended - began), "count": count, **meter.per_task(ran)}
        if last < count - count // 50:
            figures["note"] = f"cut off after {last:,} of {count:,}"
            return figures
        figures.update(_checked(product, place, site, started, count, results=results))
        return figures


def reach(site: Site, started: Workers, goal: int, seconds: float) -> tuple[float, int]:
    """When the goal was reached, or the time over; how many tasks had run then."""
    ends = time.perf_counter() + seconds
    while True:
        count, now = tally.done(site.tally), time.perf_counter()
        if count >= goal or now > ends:
            return now, count
        started.check()
        time.sleep(0.01)


def _checked(
    product: Product, place: Place | Far, site: Site, started: Workers, count: int, *, results: bool
) -> dict[str, str]:
    """A word on what is missing, a while after the measurement."""
    _, ran = reach(site, started, count, 5.0)
    if ran < count:
        return {"note": f"{count - ran:,} of {count:,} tasks never ran"}
    if results:
        ends = time.monotonic() + 5.0
        while (stored := place.stored(site, product.results)) < count and time.monotonic() < ends:
            time.sleep(0.1)
        if stored < count:
            return {"note": f"{count - stored:,} of {count:,} results are missing"}
    return {}


def send(product: Product, place: Place | Far, action: str, amount: float, *, confirms: bool = True) -> dict[str, Any]:
    """``delay``, ``bulk`` or ``concurrent`` of ``client.py``, with nobody at the other end."""
    return client(product, place.fresh(), action, amount, results=False, BENCH_CONFIRMS="1" if confirms else "0")


def round_trip(product: Product, place: Place | Far, seconds: float, warm_up: int = 20) -> dict[str, Any]:
    """``delay().get()``, in milliseconds. Publishing is confirmed where that is the product's default."""
    site = place.fresh()
    more = {"BENCH_WAITS": "1", "BENCH_CONFIRMS": "1" if product.confirms else "0"}
    with serving(product, site, results=True, **more) as started:
        try:
            figures = client(product, site, "roundtrip", seconds, results=True, BENCH_WARM_UP=str(warm_up), **more)
        except RuntimeError as error:
            raise RuntimeError(f"{error} {started.last_words()}") from None
    return {"p50": figures["p50"] * 1e3, "p99": figures["p99"] * 1e3, "count": figures["count"]}


def idle_memory(product: Product, place: Place) -> float:
    """MiB of the worker's first process, a second after it has run two tasks."""
    site = place.fresh()
    client(product, site, "fill", 2, results=True)
    with serving(product, site, results=True) as started:
        reach(site, started, 2, START)
        time.sleep(1)
        return memory_mib(started.roots[0])
