"""1, 8 and 25: what goes wrong between a worker and a broker that are both well."""

from __future__ import annotations

import itertools

from celeriac.testing.proxy import CutAt, Hold
from scorecard import checkers
from scorecard.experiments.catalogue import LEASE, experiment, judge
from scorecard.lab import Lab


@experiment(1, "Cut-wire claim", brokers=("redis", "rabbitmq"), quick=75, full=300)
def cut_wire_claim(lab: Lab) -> None:
    """The connection is cut within replies that deliver tasks: the only copy on the way is lost with it."""
    tasks, cuts = lab.size(400, 2000), lab.size(8, 50)
    lab.worker(concurrency=2, through=lab.proxy)
    nth = frozenset(lab.dice.sample(range(2, tasks), cuts))
    placed = lab.proxy.to_client.add(CutAt(b"lab.mark", nth=nth))
    lab.strike("cut deliveries")
    lab.send(tasks, kwargs={"seconds": 0.005}, limit=10.0)
    lab.drain(LEASE + lab.size(10, 60))
    lab.heal("cut deliveries")
    history = judge(lab, at_most=cuts * 2)
    starts = sorted(run.start.t for runs in history.runs.values() for run in runs)
    longest = max((later - earlier for earlier, later in itertools.pairwise(starts)), default=0.0)
    lab.findings.add(
        checkers.holds("cuts", "connections were cut", placed.strikes > 0, f"{placed.strikes} cut"),
        checkers.holds("healed", "healed within the lease + 5 s", longest <= LEASE + 5, f"{longest:.1f} s of silence"),
    )
    lab.findings.numbers.update(cuts=placed.strikes, longest_silence=longest)


@experiment(8, "Black hole and half-open", brokers=("redis", "rabbitmq"), quick=75, full=240)
def black_hole(lab: Lab) -> None:
    """Nothing passes for a while: first both ways, then from the broker alone. Then everything does again."""
    lasts, limit = lab.size(6.0, 45.0), 3.0
    lab.settings.update(lab.product.with_publish_limit(limit))
    worker = lab.worker(concurrency=2, through=lab.proxy)
    producers = lab.produce(
        lab.size(300, 2000), producers=2, rate=lab.size(10, 8), limit=limit, through=lab.proxy, resolve=True,
        kwargs={"seconds": 0.01},
    )  # fmt: skip
    lab.until(lambda: lab.ended() > 10, 20)
    for what in ("black hole", "half-open"):
        lab.strike(what)
        holds = [lab.proxy.to_client.add(Hold())]
        if what == "black hole":
            holds.append(lab.proxy.to_server.add(Hold()))
        lab.pause(lasts)
        for hold in holds:
            hold.remove()
        lab.heal(what)
        lab.pause(lab.size(6.0, 10.0))
    lab.finish(producers)
    lab.drain(LEASE + 15)
    history = judge(lab, grace=lasts + 2)
    lab.findings.add(
        checkers.work_resumes(history, within=5),
        checkers.holds("alive", "the worker lives", worker.status is None),
    )
    said = [word for word in lab.product.lost_words if word in worker.words()]
    if not lab.quick:
        lab.findings.add(checkers.holds("noticed", "the worker noticed", bool(said)))
    lab.findings.numbers.update(noticed=bool(said))


@experiment(25, "Retry hand-over fails", brokers=("redis", "rabbitmq"), quick=75, full=180)
def retry_hand_over(lab: Lab) -> None:
    """What the worker writes does not arrive while its tasks ask for retries."""
    tasks, times = lab.size(60, 300), 2
    lasts = lab.size(5.0, 20.0)
    worker = lab.worker(concurrency=2, through=lab.proxy)
    lab.send(tasks, task="lab.flaky", kwargs={"times": times, "countdown": 0.2, "seconds": 0.02}, limit=10.0)
    lab.until(lambda: lab.started() > tasks // 6, 20)
    lab.strike("writes are held")
    hold = lab.proxy.to_server.add(Hold())
    lab.pause(lasts)
    hold.remove()
    lab.heal("writes are held")
    lab.drain(LEASE + lab.size(15, 60))
    history = judge(lab, grace=lasts + 2)
    lab.findings.add(
        checkers.values_are(history, dict.fromkeys(history.accepted, times)),
        checkers.holds("alive", "the worker lives", worker.status is None),
    )
