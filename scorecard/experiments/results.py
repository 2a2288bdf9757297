"""26 and 27: the result store goes away, and callers wait for results over links that are cut."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from celeriac.testing.proxy import FaultProxy
from celeriac.testing.servers import RedisServer
from scorecard import checkers
from scorecard.experiments.catalogue import LEASE, experiment, judge
from scorecard.lab import Lab

if TYPE_CHECKING:
    from scorecard.history import History


@experiment(26, "Result store outage", brokers=("sqlite", "redis", "rabbitmq"), quick=75, full=240)
def store_outage(lab: Lab) -> None:
    """The store is down while tasks end: nothing is acknowledged before its result is stored."""
    tasks, lasts = lab.size(200, 1000), lab.size(6.0, 60.0) + lab.site.staleness
    with RedisServer() as store:
        lab.store_url = store.url(0)
        worker = lab.worker(concurrency=2)
        producers = lab.produce(tasks, kwargs={"seconds": 0.02}, limit=10.0)
        lab.until(lambda: lab.ended() > tasks // 10, 20)
        lab.strike("store")
        store.kill()
        for _ in range(int(lasts / 0.5)):
            lab.pause(0.5)
            lab.sample_depth()
        store.start()
        lab.heal("store")
        lab.finish(producers)
        lab.drain(LEASE + lab.size(20, 60))
        history = judge(lab, grace=lasts + 2)
        lab.findings.add(
            checkers.settled_after_end(history),
            checkers.holds("alive", "the worker lives", worker.status is None),
        )


@experiment(27, "get() under fire", brokers=("redis", "sqlite"), quick=60, full=180)
def get_under_fire(lab: Lab) -> None:
    """Many threads wait for results while the connections that bring the news are cut every second or two."""
    # all tasks together take 6 or 50 seconds, and ids are waited for in no order
    tasks, threads, timeout = lab.size(120, 1000), 8, lab.size(20.0, 90.0)
    with RedisServer() as store, FaultProxy("127.0.0.1", store.port, seed=lab.seed) as link:
        lab.store_url = store.url(0)
        lab.worker(concurrency=2)
        lab.send(tasks, kwargs={"seconds": lab.size(0.1, 0.1)}, limit=10.0)
        ids = sorted(lab.history().accepted)
        lab.store_url = link.url(store.url(0))
        plan = {"ids": ids, "threads": threads, "timeout": timeout}
        waiter = lab.helper("waiter", "wait_results.py", json.dumps(plan))
        lab.strike("links are cut")
        while waiter.status is None:
            lab.pause(lab.size(1.0, 2.0))
            link.reset() if lab.dice.random() < 0.5 else link.cut()
        lab.heal("links are cut")
        lab.store_url = store.url(0)
        lab.drain(LEASE)
        history = judge(lab)
        failed = [event.error for event in history.of("call") if event.error]
        late = _lateness(history)
        lab.findings.add(
            checkers.holds("all", "every wait had an end", len(history.of("call")) == tasks),
            checkers.holds("answers", "every wait had its answer", not failed, "; ".join(failed[:3])),
            checkers.holds("prompt", "within 2 s of the end of the task", late <= 2.0, f"latest {late:.2f} s"),
        )
        lab.findings.numbers.update(latest=late, cuts=link.counters.ended)


def _lateness(history: History) -> float:
    """How long after the task's end, or after its own begin, a wait returned at worst."""
    worst = 0.0
    for call in history.of("call"):
        ends = [run.until for run in history.runs.get(call.id, ()) if run.until is not None]
        if ends:
            worst = max(worst, call.t - max(min(ends), call.t - call.seconds))
    return worst
