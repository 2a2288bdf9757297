"""37: everything at once and for long, while the link is cut again and again: nothing is left behind, nothing grows."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING

from scorecard import baseline, checkers
from scorecard.experiments.catalogue import LEASE, experiment, judge
from scorecard.experiments.control import say_quit, tell_here
from scorecard.fleet import figures_of, until
from scorecard.lab import Lab
from scorecard.sites import SqliteSite

if TYPE_CHECKING:
    from collections.abc import Callable

    from scorecard.fleet import Helper, Worker

#: KiB that a process may have more than at its baseline: of the short form, which ends while it still warms up
_LOOSE, _STRICT = 24 * 1024, 8 * 1024
#: idle connections are as many as calls met: a leak shows with every fault
_IDLE = {"fds": 3.0, "clients": 3.0, "connections": 1.0, "channels": 1.0}
#: KiB an hour
_SLOPE = 1024
#: workers and their pools
_POOLS = {"w1": ("prefork", 2), "w2": ("threads", 4), "w3": ("asyncio", 4)}


@experiment(37, "Soak with reconnects", brokers=("sqlite", "redis", "rabbitmq"), quick=110, full=1500, peers=())
def soak(lab: Lab) -> None:
    """Mixed load, results read, revocations, inspection, events, and a fault a minute; then a look at what is left."""
    warm, lasts, pause = lab.size(6.0, 240.0), lab.size(12.0, 660.0), lab.size(4.0, 60.0)
    lab.settings["task_revoke_expires"] = 60  # so that what is remembered for its time is in balance soon
    disturb = _disturbance(lab)
    through = lab.proxy if lab.site.port is not None else None
    if through is not None and lab.site.name == "redis":
        lab.store_url = through.url(lab.store_url)
    workers = [
        lab.worker(name, pool=pool, concurrency=slots, queues="celery,other", through=through, more=("-E",))
        for name, (pool, slots) in list(_POOLS.items())[: lab.size(2, 3)]
    ]
    watcher = lab.helper("monitor", "watch.py", through=through)
    lab.until(lambda: tell_here(lab) and "here" in watcher.words(), 20)
    plan = {"seed": lab.seed, "threads": 3, "rate": lab.size(60, 25), "warm": lab.size(1, 4)}
    client = lab.helper("client", "live.py", json.dumps(plan), through=through)
    lab.until(lambda: "ready" in client.words(), 20)
    _load(lab, warm, pause, disturb, lambda: None)
    is_at_rest = _rest(lab, client)
    _measure(lab, "before", workers, client)
    client.signal(signal.SIGUSR1)
    _load(lab, lasts, pause, disturb, lambda: _measure(lab, "steady", workers, client, whole=False))
    is_at_rest = _rest(lab, client) and is_at_rest
    # what is to be given back may take its time: idle connections, expired keys
    until(lambda: _is_back(lab, workers, client), lab.left(lab.size(20, 120)), pause=1.0)
    client.signal(signal.SIGTERM)
    say_quit(lab)
    ended = (client.wait(lab.left(20)), watcher.wait(lab.left(20)))
    history = judge(lab, grace=LEASE)
    lab.findings.add(
        checkers.revoked_do_not_start(history, grace=6.0),
        baseline.back_to_baseline(history, {"rss_kib": lab.size(_LOOSE, _STRICT), **_IDLE}),
        checkers.holds("rest", "the client has read everything", is_at_rest),
        checkers.holds("alive", "no restart of ours", all(worker.status is None for worker in workers)),
        checkers.holds("ended", "client and monitor end well", ended == (0, 0), f"status {ended}"),
        checkers.holds("inspect", "inspections are answered by all workers", _answered(lab, len(workers)) > 0.5,
                       f"{_answered(lab, len(workers)):.0%}"),
    )  # fmt: skip
    slope = baseline.does_not_grow(history, "rss_kib", per_hour=_SLOPE)
    if not lab.quick:
        lab.findings.add(slope)
    rates = baseline.slopes(history, "rss_kib")
    lab.findings.numbers.update(faults=len(history.faults), kib_an_hour=round(max(rates.values(), default=0)))


def _disturbance(lab: Lab) -> Callable[[], object]:
    """What happens to the link now and then."""
    if lab.site.port is not None:
        return lab.proxy.cut
    site = lab.site
    assert isinstance(site, SqliteSite)
    # a file has no link: somebody else writes into it for a while
    return lambda: site.hold(lab.left(2.0))


def _load(lab: Lab, seconds: float, pause: float, disturb: Callable[[], object], look: Callable[[], None]) -> None:
    """Let the client work for so long."""
    ends = time.monotonic() + seconds
    due = time.monotonic() + pause / 2
    while time.monotonic() < ends:
        if time.monotonic() >= due:
            lab.strike("cut")
            disturb()
            lab.heal("cut")
            due += pause
        look()
        lab.pause(1.0)


def _rest(lab: Lab, client: Helper) -> bool:
    """Whether the client has read everything that it had sent, and the broker has nothing left."""
    before = client.words().count("resting")
    client.signal(signal.SIGUSR1)
    is_at_rest = lab.until(lambda: client.words().count("resting") > before, lab.size(40, 120))
    return lab.until(lambda: lab.site.outstanding() == 0, lab.size(20, 60)) and is_at_rest


def _measure(lab: Lab, state: str, workers: list[Worker], client: Helper, *, whole: bool = True) -> None:
    """Write down what everybody holds; ``whole``: and what the broker has."""
    for name, value in _figures(lab, workers, client, whole=whole).items():
        lab.sample(name, state, value)


def _figures(lab: Lab, workers: list[Worker], client: Helper, *, whole: bool) -> dict[str, dict[str, float]]:
    found = {"client": figures_of(client.pid)}
    for worker in workers:
        found[worker.name] = figures_of(worker.pid)
        for index, pid in enumerate(sorted(worker.children())):
            found[f"{worker.name}/{index}"] = figures_of(pid)
    if whole:
        found["broker"] = lab.site.holdings()
    return found


def _is_back(lab: Lab, workers: list[Worker], client: Helper) -> bool:
    """Measure once more; whether all is as it was."""
    _measure(lab, "after", workers, client)
    return baseline.back_to_baseline(lab.history_of("sample"), {"rss_kib": _LOOSE, **_IDLE}).ok


def _answered(lab: Lab, workers: int) -> float:
    calls = [event for event in lab.history_of("call").events if event.what.startswith("inspect")]
    return sum(event.count == workers for event in calls) / max(1, len(calls))
