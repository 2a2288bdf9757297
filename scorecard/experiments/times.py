"""10, 18 and 19: long tasks, short leases, and tasks that wait for their time."""

from __future__ import annotations

from scorecard import checkers
from scorecard.experiments.catalogue import LEASE, experiment, judge
from scorecard.fleet import resident_kib
from scorecard.lab import Lab

#: messages that a worker with two slots may hold unstarted
_FETCHED = 2 * 4 + 64


@experiment(
    10, "Ack timeout", brokers=("rabbitmq",), quick=None, full=480, rabbit_configuration="consumer_timeout = 60000\n"
)
def ack_timeout(lab: Lab) -> None:
    """Tasks longer than the broker is willing to wait for their acknowledgement, and tasks that wait for their time."""
    worker = lab.worker(concurrency=2)
    pid = worker.pid
    lab.send(2, kwargs={"seconds": 150.0}, limit=10.0)
    lab.send(4, eta=[300.0, 301.0], limit=10.0)
    lab.send(20, limit=10.0)
    lab.drain(400)
    history = judge(lab, at_most=0)
    lab.findings.add(
        checkers.started_on_time(history, late=5.0),
        checkers.holds("alive", "the worker never ends", worker.status is None and worker.pid == pid),
        checkers.holds("warned", "the log names the setting", "consumer_timeout" in worker.words()),
    )


@experiment(18, "ETA store", brokers=("sqlite", "redis", "rabbitmq"), quick=75, full=900)
def eta_store(lab: Lab) -> None:
    """Many tasks for later: the worker does not hold them, and they start in time, also when it is killed meanwhile."""
    tasks = lab.size(1000, 100_000)
    spread = lab.size((6.0, 16.0), (150.0, 300.0))
    lab.send(20, limit=10.0)
    worker = lab.worker(concurrency=2)
    lab.until(lambda: lab.ended() >= 20, 20)
    before = resident_kib(worker.pid)
    producers = lab.produce(tasks, producers=2, eta=list(spread), limit=10.0)
    lab.until(lambda: lab.accepted() >= tasks or lab.ended() > 20, lab.size(15, 140))
    grown = (resident_kib(worker.pid) - before) / 1024
    lab.until(lambda: lab.ended() >= tasks // 5, spread[1])
    lab.strike("kill -9 worker", pids=[worker.pid, *worker.children()])
    worker.kill()
    lab.start(worker)
    lab.heal("kill -9 worker")
    lab.finish(producers)
    lab.drain(spread[1] + LEASE)
    history = judge(lab)
    resolution = 1.0 if lab.site.name == "rabbitmq" else 0.2
    lags = sorted(checkers.lags(history).values())
    late = sum(lag > 1.0 + resolution for lag in lags)
    lab.findings.add(
        # what the dead worker had fetched waits until its death is seen
        checkers.started_on_time(history, late=20.0),
        checkers.holds("late", "only what the dead one had fetched is late", late <= _FETCHED, f"{late} late"),
        checkers.holds("memory", "the worker grows by 20 MiB at most", grown <= 20, f"{grown:.1f} MiB"),
    )
    lab.findings.numbers.update(p50_ms=round(1000 * lags[len(lags) // 2]) if lags else "–", late=late,
                                grown_mib=round(grown, 1))  # fmt: skip


@experiment(19, "Long task, short lease", brokers=("sqlite", "redis", "rabbitmq"), quick=60, full=180)
def long_task(lab: Lab) -> None:
    """A task of 20 leases while other workers have nothing to do."""
    lease = lab.size(1, 2)
    lab.settings.update(lab.product.with_lease(lease, lab.site.name))
    for index in range(3):
        lab.worker(f"w{index}", concurrency=2)
    lab.send(3, kwargs={"seconds": lease * 12.0}, limit=10.0)
    lab.send(3, kwargs={"spin": lease * lab.size(12.0, 20.0)}, limit=10.0)
    lab.drain(lease * 60)
    judge(lab, lease=lease, at_most=0)
