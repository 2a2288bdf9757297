"""51 to 56: workers of each pool are stopped at random under load, in every way there is, and others take their place.

Warm stops, soft ones and restarts must lose nothing and double nothing; a cold stop may make what it cut run again.
"""

from __future__ import annotations

import signal
from collections import Counter
from importlib.util import find_spec
from typing import TYPE_CHECKING

from scorecard import checkers
from scorecard.experiments.catalogue import experiment, judge
from scorecard.sites import Unsupported

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scorecard.fleet import Worker
    from scorecard.lab import Lab

POOLS = ("prefork", "threads", "asyncio", "gevent", "eventlet", "solo")
_WAYS = ("warm", "restart", "QUIT")
#: seconds in which a stop must be over: the tasks take 0.3 s at most
_PATIENCE = 30.0
#: seconds that the worker whose stops are soft gives to what runs
_SOFT = 10.0


def stop_at_random(lab: Lab, pool: str) -> None:
    """Two workers: a QUIT ends one of them softly and the other one cold."""
    workers = [("soft", _SOFT), ("cold", 0.0)]
    stop_and_judge(lab, pool, workers, [lab.dice.choice(_WAYS) for _ in range(lab.size(5, 50))])


def stop_and_judge(lab: Lab, pool: str, workers: Sequence[tuple[str, float]], stops: Sequence[str]) -> None:
    """``workers``: names, and what a QUIT gives to what runs. ``stops``: what is done to one of them, in turn."""
    if pool in ("gevent", "eventlet") and find_spec(pool) is None:
        raise Unsupported(f"{pool} is not installed")
    slots = 1 if pool == "solo" else 2
    fleet = [
        lab.worker(name, pool=pool, concurrency=slots, worker_soft_shutdown_timeout=seconds)
        for name, seconds in workers
    ]
    # so that there is always something to do, and never much
    pace = 20.0 * slots
    producers = [
        producer
        for seconds, share in lab.size([(0.02, 1.0)], [(0.0, 0.7), (0.05, 0.2), (0.3, 0.1)])
        for producer in lab.produce(100_000, kwargs={"seconds": seconds}, limit=10.0, rate=pace * share)
    ]
    wrong: list[str] = []
    done: Counter[str] = Counter()
    for stop in stops:
        goal = lab.started() + 1
        lab.until(lambda goal=goal: lab.started() >= goal, 20)  # type: ignore[misc]
        lab.pause(lab.dice.uniform(0.0, 0.3))
        worker = lab.dice.choice(fleet)
        how = worker.name if stop == "QUIT" else stop
        done[how] += 1
        wrong += _restart(lab, worker) if how == "restart" else _stop(lab, worker, how)
    for producer in producers:
        producer.signal(signal.SIGTERM)
    lab.finish(producers)
    drained = lab.drain(_PATIENCE + 15)
    judge(lab, at_most=done["cold"] * slots)
    for worker in fleet:
        wrong += _stop(lab, worker, "warm", again=False)
    lab.findings.add(
        checkers.holds("stops", "every stop ends as it should", not wrong, "; ".join(wrong) or f"{dict(done)}"),
        checkers.holds("drained", "everything is done in the end", drained),
    )
    lab.findings.numbers["stops"] = len(stops)


def _stop(lab: Lab, worker: Worker, how: str, again: bool = True) -> list[str]:
    """Stop it in this way, and start another in its place; what was wrong with that."""
    if how == "cold":
        lab.strike("cold stop", pids=[worker.pid, *worker.children()])
    else:
        lab.say(f"{how} stop")
    before, pid = worker.started(), worker.pid
    worker.signal(signal.SIGTERM if how == "warm" else signal.SIGQUIT)
    status = worker.wait(lab.left(_PATIENCE))
    if status is None:
        worker.end()
    if again and lab.dice.random() < 0.2:  # one that is told to end while it starts
        lab.start(worker, wait=0.0)
        lab.pause(lab.dice.uniform(0.0, 1.0))
        if worker.started() == before:
            worker.signal(signal.SIGTERM)
            if worker.wait(lab.left(_PATIENCE)) not in (0, -signal.SIGTERM):
                return [f"stop at the start of process {worker.pid}: status {worker.status}"]
    if again and worker.status is not None:
        lab.start(worker)
    wanted = (0,) if how != "cold" else (0, 1)  # nothing may have run
    return [] if status in wanted else [f"{how} stop of process {pid}: status {status}"]


def _restart(lab: Lab, worker: Worker) -> list[str]:
    """SIGHUP: the same process, with the code loaded anew."""
    lab.say("restart")
    before = worker.started()
    worker.signal(signal.SIGHUP)
    if lab.until(lambda: worker.started() > before or worker.status is not None, _PATIENCE) and worker.status is None:
        return []
    status = worker.status
    worker.end()
    lab.start(worker)
    return [f"restart: {'not done in time' if status is None else f'it ended with status {status}'}"]


for _number, _pool in enumerate(POOLS, 51):

    def _run(lab: Lab, pool: str = _pool) -> None:
        stop_at_random(lab, pool)

    experiment(
        _number, f"stops at random, {_pool}", brokers=("sqlite", "redis", "rabbitmq"), quick=60, full=420, peers=()
    )(_run)  # fmt: skip
