"""2 and 3: kill -9 of a worker's parent, and of the processes that run its tasks."""

from __future__ import annotations

import contextlib
import os
import signal

from scorecard import checkers
from scorecard.experiments.catalogue import experiment, judge
from scorecard.fleet import is_alive, until
from scorecard.lab import Lab


@experiment(2, "kill -9 worker parent", brokers=("sqlite", "redis", "rabbitmq"), quick=60, full=480)
def kill_worker_parent(lab: Lab) -> None:
    """Kills at random while two workers drain; a supervisor starts the next one at once."""
    tasks, kills = lab.size(240, 3000), lab.size(4, 60)
    workers = [lab.worker(f"w{index}", concurrency=2) for index in range(2)]
    producers = lab.produce(tasks, kwargs={"seconds": 0.05}, limit=10.0)
    orphans = 0
    lab.until(lambda: lab.started() > 0, 20)
    for _ in range(kills):
        goal = lab.started() + lab.dice.randint(tasks // kills // 4, tasks // kills // 2)
        lab.until(lambda goal=goal: lab.started() >= goal, 30)  # type: ignore[misc]
        worker = lab.dice.choice(workers)
        family = lab.kill_parent(worker)
        orphans += not until(lambda family=family: not any(map(is_alive, family)), lab.left(20))  # type: ignore[misc]
        for pid in filter(is_alive, family):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        lab.start(worker, wait=0 if lab.dice.random() < 0.5 else 20)
    lab.finish(producers)
    lab.drain(lab.size(35, 90))
    history = judge(lab, at_most=2 * 2 * kills)
    lab.findings.add(
        checkers.victims_restart(history, within=20),
        checkers.holds("orphans", "children end with their parent", not orphans, f"{orphans} families left"),
    )
    lab.findings.numbers["kills"] = kills


@experiment(3, "kill -9 pool child", brokers=("sqlite", "redis", "rabbitmq"), quick=45, full=240)
def kill_pool_child(lab: Lab) -> None:
    """Children die under their tasks; one kind of task always kills its own."""
    tasks, kills = lab.size(80, 1000), lab.size(8, 100)
    worker = lab.worker(concurrency=4)
    pid = worker.pid
    producers = lab.produce(tasks, kwargs={"seconds": 0.2}, limit=10.0)
    producers += lab.produce(2, task="lab.die", limit=10.0)
    lab.until(lambda: lab.started() > 4, 20)
    for _ in range(kills):
        goal = lab.started() + lab.dice.randint(1, max(1, tasks // kills // 2))
        lab.until(lambda goal=goal: lab.started() >= goal, 20)  # type: ignore[misc]
        victims = _running(lab)
        if victims:
            victim = lab.dice.choice(victims)
            lab.strike("kill -9 child", pids=[victim])
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
    lab.finish(producers)
    lab.drain(lab.size(25, 90))
    history = judge(lab)
    starts = [len(runs) for id_, runs in history.runs.items() if history.invoked[id_].task == "lab.die"]
    killers = {id_ for id_, call in history.invoked.items() if call.task == "lab.die"}
    failed = [id_ for id_, read in history.results.items() if read[-1].state != "SUCCESS" and id_ not in killers]
    lab.findings.add(
        checkers.holds("parent", "the parent lives", worker.status is None and worker.pid == pid),
        checkers.holds("budget", "a killer starts 3 times at most", max(starts, default=0) <= 3, f"{starts}"),
        checkers.holds("neighbours", "victims succeed in the end", not failed, f"{len(failed)} failed"),
    )
    lab.findings.numbers["kills"] = kills


def _running(lab: Lab) -> list[int]:
    """Processes in the middle of a task that would live, and has not been a victim so often that it is set aside."""
    history = lab.history()
    return sorted(
        {
            run.start.pid
            for id_, runs in history.runs.items()
            for run in runs
            if len(runs) <= 2 and not run.is_done and run.start.pid not in history.deaths and is_alive(run.start.pid)
            and id_ in history.invoked and history.invoked[id_].task != "lab.die"
        }
    )  # fmt: skip
