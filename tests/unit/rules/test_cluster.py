"""What events say of the cluster: out of order, late, twice, and from strangers."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from celeriac.rules.cluster import Cluster, Task, Worker


class Scene:
    def __init__(self, **limits: int) -> None:
        self.time = 1000.0
        self.cluster = Cluster(lambda: self.time, **limits)

    def tell(self, kind: str, uuid: str = "t1", at: float | None = None, **fields: Any) -> Any:
        event = {"type": kind, "hostname": "w1@h", "timestamp": self.time if at is None else at, "clock": 1, **fields}
        if kind.startswith("task-"):
            event["uuid"] = uuid
        return self.cluster.event(event)[0]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_worker_lives_as_long_as_its_heart_beats(scene: Scene) -> None:
    joined: list[str] = []
    left: list[str] = []
    scene.cluster.on_node_join = lambda worker: joined.append(worker.hostname)
    scene.cluster.on_node_leave = lambda worker: left.append(worker.hostname)
    worker = scene.tell("worker-online", freq=2.0, active=0, processed=0, loadavg=[1, 2.5, 3], pid=7, sw_ident="x")
    assert isinstance(worker, Worker)
    assert (worker.pid, worker.loadavg, worker.sw_ident, worker.id) == (7, [1.0, 2.5, 3.0], "x", "w1@h.7")
    scene.time += 3.9
    assert worker.alive
    assert scene.cluster.alive_workers() == [worker]
    scene.tell("worker-heartbeat", freq=2.0, active=3, processed=9)
    scene.time += 3.9
    assert (worker.alive, worker.active, worker.processed, worker.status_string) == (True, 3, 9, "ONLINE")
    scene.time += 0.2
    assert (worker.alive, worker.status_string, scene.cluster.alive_workers()) == (False, "OFFLINE", [])
    scene.tell("worker-heartbeat", freq=2.0)
    assert joined == ["w1@h", "w1@h"]
    scene.tell("worker-offline")
    assert left == ["w1@h"]
    assert not worker.alive


def test_a_clock_that_is_off_kills_nobody(scene: Scene) -> None:
    worker = scene.tell("worker-heartbeat", at=5.0, freq=2.0)
    assert worker.alive


LIFE: list[tuple[str, dict[str, Any]]] = [
    ("task-sent", {"name": "add", "queue": "celery"}),
    ("task-received", {"name": "add", "args": "(1,)", "retries": 0}),
    ("task-started", {}),
    ("task-succeeded", {"result": "3", "runtime": 0.5}),
]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_in_whatever_order_events_come_the_picture_is_the_same(order: tuple[int, ...]) -> None:
    scene = Scene()
    for place in order:
        kind, fields = LIFE[place]
        scene.tell(kind, at=1000.0 + place, **fields)
    [task] = scene.cluster.tasks.values()
    assert (task.state, task.name, task.args, task.result, task.runtime) == ("SUCCESS", "add", "(1,)", "3", 0.5)
    assert (task.sent, task.received, task.started, task.succeeded) == (1000.0, 1001.0, 1002.0, 1003.0)
    assert task.ready
    assert task.timestamp == 1003.0


def test_a_retry_begins_anew(scene: Scene) -> None:
    for kind in ("task-received", "task-started", "task-retried", "task-received", "task-started"):
        scene.tell(kind, exception="KeyError()" if kind == "task-retried" else None)
    task = scene.cluster.tasks["t1"]
    assert (task.state, task.exception, task.ready) == ("STARTED", "KeyError()", False)
    assert scene.tell("task-failed", exception="ValueError()", traceback="…").state == "FAILURE"


def test_states_of_users_own(scene: Scene) -> None:
    assert scene.tell("task-progress", percent=20).state == "PROGRESS"


def test_the_oldest_are_forgotten() -> None:
    scene = Scene(max_workers=2, max_tasks=3)
    for number in range(5):
        scene.tell("task-received", f"t{number}", hostname=f"w{number}@h")
    assert list(scene.cluster.tasks) == ["t2", "t3", "t4"]
    assert list(scene.cluster.workers) == ["w3@h", "w4@h"]
    assert scene.cluster.event_count == 5
    assert scene.cluster.task_count == 5


def test_fields_of_the_wrong_type_are_not_taken(scene: Scene) -> None:
    worker = scene.tell(
        "worker-heartbeat", freq="often", active=[1], processed=None, loadavg=["x"], sw_ver=9, pid="p", clock="c"
    )
    assert (worker.freq, worker.active, worker.processed, worker.loadavg, worker.sw_ver, worker.pid) == (
        60.0, None, None, None, None, None,
    )  # fmt: skip
    task = scene.tell("task-succeeded", result={"a": 1}, runtime="long", retries="x", name="n" * 50_000)
    assert isinstance(task, Task)
    assert (task.result, task.runtime, task.retries) == ("{'a': 1}", None, None)
    assert task.name is not None
    assert len(task.name) < 25_000
    assert scene.cluster.event({"type": "task-started", "hostname": "h", "timestamp": 1})[0] is None  # whose?
    assert scene.cluster.event({"type": "odd-thing", "hostname": "h", "timestamp": 1})[0] is None


def test_as_a_mapping(scene: Scene) -> None:
    task = scene.tell("task-succeeded", result="3")
    assert task.as_dict()["result"] == "3"
    assert task.info() == {"result": "3"}
    assert task.info(("state",), ("worker",)) == {"state": "SUCCESS", "worker": "w1@h"}
