"""33: limits over all workers, while workers are killed."""

from __future__ import annotations

from scorecard import checkers
from scorecard.experiments.catalogue import experiment, judge
from scorecard.lab import Lab

#: what holds for the two queues
_MOST, _RATE, _BURST = 3, 20.0, 2


@experiment(33, "Limits over all workers", brokers=("sqlite", "redis", "rabbitmq"), quick=60, full=300, peers=())
def limits_of_the_cluster(lab: Lab) -> None:
    """One queue has a concurrency, one a rate; three workers could run four times as much, and are killed in turn."""
    lease, tasks, kills = 5.0, lab.size(120, 1500), lab.size(3, 15)
    lab.settings.update(lab.product.with_lease(lease, lab.site.name))
    lab.settings["task_queue_limits"] = {
        "celery": [{"concurrency": _MOST}],
        "paced": [{"rate": f"{_RATE:g}/s", "burst": _BURST}],
    }
    workers = [lab.worker(f"w{index}", concurrency=4, queues="celery,paced") for index in range(3)]
    producers = lab.produce(tasks, kwargs={"seconds": 0.1}, limit=10.0)
    producers += lab.produce(tasks, queue="paced", limit=10.0)
    lab.until(lambda: lab.started() > 0, 20)
    for number in range(kills):
        goal = lab.started() + tasks // kills // 2
        lab.until(lambda goal=goal: lab.started() >= goal, 30)  # type: ignore[misc]
        worker = workers[number % len(workers)]
        lab.kill_parent(worker)
        lab.start(worker)
    lab.finish(producers)
    lab.drain(lab.size(40, 220))
    history = judge(lab, lease=lease)
    paced = {id_ for id_, call in history.invoked.items() if call.queue == "paced"}
    lab.findings.add(
        checkers.never_more_at_once(history, _MOST, but=paced),
        checkers.rate_is_kept(history, _RATE, _BURST, of=paced, slack=1.0),
    )
    lab.findings.numbers["kills"] = kills
