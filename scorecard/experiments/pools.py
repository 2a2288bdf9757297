"""20 and 34: code that lets nobody else run, and time limits, in every pool."""

from __future__ import annotations

import contextlib
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from scorecard import checkers
from scorecard.experiments.catalogue import experiment, judge
from scorecard.fleet import children_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from scorecard.fleet import Worker
    from scorecard.history import History
    from scorecard.lab import Lab

_POOLS = ("prefork", "threads", "asyncio", "gevent", "eventlet")


def _pools() -> list[str]:
    return [pool for pool in _POOLS if pool not in ("gevent", "eventlet") or find_spec(pool) is not None]


# ── 20 ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@experiment(20, "GIL hog", brokers=("sqlite", "redis", "rabbitmq"), quick=120, full=400, peers=())
def gil_hog(lab: Lab) -> None:
    """C code keeps the interpreter's lock for three leases. Beside each worker another one waits for what it loses.

    Not beside solo's: it is the one pool whose tasks can hold up the worker itself, as its documentation says. What it
    loses comes back to it, and must not start again.
    """
    lease = lab.size(3.0, 6.0)
    fleet = {
        pool: [
            lab.worker(
                f"{pool}-{name}", pool=pool, concurrency=1 if pool == "solo" else 2, queues=pool,
                broker_lease=lease, broker_heartbeat=lease,
            )
            for name in ("a" if pool == "solo" else "ab")
        ]
        for pool in [*_pools(), "solo"]
    }  # fmt: skip
    producers = [
        producer
        for pool in fleet
        for how in (["call", "regex"] if pool == "threads" and not lab.quick else ["call"])
        for producer in lab.produce(
            1, task="lab.hold", queue=pool, limit=10.0, kwargs={"seconds": 3 * lease, "how": how}
        )
    ]
    lab.finish(producers)
    lab.drain(lab.size(40, 200))
    history = judge(lab, at_most=0, lease=lease)
    broken = [
        f"{worker.name}: {line.strip()[:120]}"
        for pool, workers in fleet.items()
        for worker in workers
        if pool != "solo"
        for line in worker.words().splitlines()
        if "broker lost" in line or "no longer held here" in line
    ]
    lab.findings.add(
        checkers.holds("heartbeat", "no lease and no connection is lost", not broken, "; ".join(broken[:3])),
        checkers.holds("status", "the workers live", all(w.status is None for ws in fleet.values() for w in ws)),
        _held_for(history, 3 * lease),
    )


def _held_for(history: History, seconds: float) -> checkers.Check:
    """The experiment is worth nothing if the lock was held for a shorter time."""
    lengths = [
        run.until - run.start.t for runs in history.runs.values() for run in runs if run.until is not None
    ]  # fmt: skip
    short = [length for length in lengths if length < seconds]
    return checkers.holds("held", f"each held the lock for {seconds:g} s", bool(lengths) and not short, f"{short}")


# ── 34 ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Ordeal(NamedTuple):
    """One task that outlasts its limit, and its documented end in each pool: docs/reference/time-limits.md."""

    task: str
    how: str
    limit: str
    #: where it ends otherwise than by its limit: it can't be reached, or is reached only when it returns
    unheeded: tuple[str, ...] = ()
    #: how long it would last; where greenlets share a process, that is killed 3 s after the one was asked to end
    seconds: float = 2.0


_ORDEALS = [
    *(Ordeal("lab.endure", how, limit) for limit in ("soft", "hard") for how in ("sleep", "cpu", "call")),
    Ordeal("lab.aendure", "sleep", "soft"),
    Ordeal("lab.aendure", "sleep", "hard"),
    # a coroutine that never waits is reached only by a signal
    Ordeal("lab.aendure", "cpu", "soft", unheeded=("threads", "asyncio", "gevent", "eventlet", "solo")),
    Ordeal("lab.aendure", "cpu", "hard", unheeded=("solo",), seconds=8.0),
]
_LIMIT = 0.4
_ERROR = {"soft": "SoftTimeLimitExceeded", "hard": "TimeLimitExceeded"}
#: what may be opened once, after the baseline was taken: a connection for an answer, say. Fewer than there are kills
_SPARE = {"processes": 0, "files": 3, "threads": 1}
#: the first number of what is sent to a pool
_BLOCK = 1_000_000


@experiment(34, "Time limits everywhere", brokers=("sqlite", "redis", "rabbitmq"), quick=180, full=600, peers=())
def time_limits(lab: Lab) -> None:
    """Tasks that outlast their limits in every way, then many hard kills; afterwards everything is as it was before."""
    kills = lab.size(4, 60)
    fleet = {
        pool: lab.worker(pool, pool=pool, concurrency=_slots(pool), queues=pool) for pool in [*_pools(), "solo"]
    }  # fmt: skip
    hard = {"task": "lab.endure", "kwargs": {"seconds": 60.0}, "options": {"time_limit": 0.2}}
    killable = [pool for pool in fleet if pool != "solo"]
    # what is opened or started once, at the first kill, the first coroutine
    _send(lab, killable, 800_000, [hard] * 2)
    _send(lab, fleet, 850_000, [{"task": "lab.aendure", "kwargs": {"seconds": 0.0}}])
    before = {pool: _belongings(worker) for pool, worker in fleet.items()}
    ordeals = [
        {"task": one.task, "kwargs": {"how": one.how, "seconds": one.seconds}, "options": {_OPTION[one.limit]: _LIMIT}}
        for one in _ORDEALS
    ]
    _send(lab, fleet, 0, ordeals)
    _send(lab, killable, 100_000, [hard] * kills)
    lab.until(lambda: not _more(fleet, before), lab.left(20.0))
    more = _more(fleet, before)
    for pool in fleet:
        _send(lab, [pool], 900_000, [{"task": "lab.mark", "kwargs": {"seconds": 0.7}}] * _slots(pool))
    status = {pool: worker.stop(lab.left(30.0)) for pool, worker in fleet.items()}
    history = lab.history()
    outcomes = list(_unlike_documented(history, list(fleet)))
    starts = sum(map(len, history.runs.values()))
    lab.findings.numbers.update({"tasks": len(history.accepted), "starts": starts, "hard kills": kills * len(killable)})
    lab.findings.add(
        checkers.no_loss(history),
        checkers.no_ghosts(history),
        checkers.one_end(history),
        checkers.calls_end_in_time(history),
        checkers.holds("outcomes", "each limit ends as documented", not outcomes, "; ".join(outcomes[:6])),
        checkers.holds("baseline", "processes, files and threads are back", not more, "; ".join(more)),
        checkers.Check(name="slots", title="all slots work afterwards", found=list(_idle_slots(history, list(fleet)))),
        checkers.holds("status", "every worker stops well", not any(status.values()), f"{status}"),
        checkers.holds("refused", "solo refuses hard limits, and says so", *_solo_refuses(lab)),
    )


_OPTION = {"soft": "soft_time_limit", "hard": "time_limit"}


def _slots(pool: str) -> int:
    return 1 if pool == "solo" else 2


def _send(lab: Lab, pools: Iterable[str], first: int, calls: list[dict[str, Any]]) -> None:
    """The same calls to each pool; returns when all have an end."""
    lab.finish(
        producer
        for pool in pools
        for producer in lab.produce(
            len(calls), queue=pool, first=[*_POOLS, "solo"].index(pool) * _BLOCK + first, calls=calls, limit=10.0
        )
    )
    lab.drain(lab.size(40, 120))


def _belongings(worker: Worker) -> dict[str, int]:
    """What a worker has of the machine."""
    folder = Path(f"/proc/{worker.pid}")
    return {
        "processes": len(children_of(worker.pid)),
        "files": len(os.listdir(folder / "fd")),
        "threads": len(os.listdir(folder / "task")),
    }


def _more(fleet: dict[str, Worker], before: dict[str, dict[str, int]]) -> list[str]:
    """What they have more than before, and the processes that are missing."""
    found = []
    for pool, worker in fleet.items():
        now: dict[str, int] = {}
        with contextlib.suppress(OSError):
            now = _belongings(worker)
        found += [
            f"{pool}: {now.get(what)} {what}, {count} before"
            for what, count in before[pool].items()
            if now.get(what, 0) > count + _SPARE[what] or (what == "processes" and now.get(what) != count)
        ]
    return found


def _unlike_documented(history: History, pools: list[str]) -> Iterator[str]:
    for id_, call in history.invoked.items():
        pool, number = [*_POOLS, "solo"][call.n // _BLOCK], call.n % _BLOCK
        one = _ORDEALS[number] if number < len(_ORDEALS) else Ordeal("", "", "hard")
        if number >= 850_000 or pool not in pools:
            continue
        last = history.results[id_][-1] if id_ in history.results else None
        text = f"{last.state} {last.value}" if last else "nothing"
        wanted = "SUCCESS" if pool in one.unheeded else f"FAILURE {_ERROR[one.limit]}"
        if not text.startswith(wanted) or len(history.runs.get(id_, ())) != 1:
            yield f"{pool}, {one.limit} limit, {one.task} {one.how}: {text}, {len(history.runs.get(id_, ()))} starts"


def _idle_slots(history: History, pools: list[str]) -> Iterator[str]:
    """The last tasks of a pool fill all of its slots at one time."""
    for index, pool in enumerate([*_POOLS, "solo"]):
        numbers = range(index * _BLOCK + 900_000, index * _BLOCK + 900_000 + _slots(pool))
        runs = [run for id_, call in history.invoked.items() if call.n in numbers for run in history.runs.get(id_, ())]
        ends = [run.until for run in runs if run.until is not None]
        if pool in pools and (len(ends) < _slots(pool) or max(run.start.t for run in runs) >= min(ends)):
            yield f"{pool}: its {_slots(pool)} tasks did not run at one time"


def _solo_refuses(lab: Lab) -> tuple[bool, str]:
    said = []
    asked: list[tuple[str, tuple[str, ...], float | None]] = [
        ("by-setting", (), 5.0),
        ("by-option", ("--time-limit", "5"), None),
    ]
    for name, more, limit in asked:
        worker = lab.worker(name, pool="solo", concurrency=1, wait=0.0, more=more, task_time_limit=limit)
        status = worker.wait(lab.left(20.0))
        said.append(status not in (0, None) and "solo cannot enforce hard time limits" in worker.words())
        if status is None:
            worker.end()
    return all(said), f"by setting: {said[0]}, by option: {said[1]}"
