"""What events say of the cluster: its workers, and the tasks they work on. The time comes from whoever builds it.

Events come from many machines, late, twice or not at all. A task's state only moves towards its end (by the
precedence of states), unless it is retried; a late event still fills in what was not known. Bounded: the oldest
workers and tasks are forgotten. Facts: Celery's ``events.state``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from celeriac.rules import states

#: a worker is gone when twice the time between two of its heartbeats is over
_EXPIRES = 2.0
#: what a worker promises that does not say how often it beats (Celery's number)
_SELDOM = 60.0
_HEARTBEATS_KEPT = 4
#: what an event without the fields of a task keeps of them
_TEXT_LENGTH = 20_000

#: type of event → state of the task
STATES: Mapping[str, str] = {
    "sent": states.PENDING, "received": states.RECEIVED, "started": states.STARTED, "failed": states.FAILURE,
    "retried": states.RETRY, "succeeded": states.SUCCESS, "revoked": states.REVOKED, "rejected": states.REJECTED,
}  # fmt: skip

#: what an event that comes late may still fill in
_LATE = frozenset({"name", "args", "kwargs", "parent_id", "root_id", "retries", "eta", "expires"})
#: fields that an event brings and a task has
_TASK_FIELDS = frozenset({
    "name", "args", "kwargs", "eta", "expires", "retries", "result", "exception", "runtime", "traceback", "exchange",
    "routing_key", "queue", "root_id", "parent_id",
})  # fmt: skip
_NUMBERS = frozenset({"retries", "runtime"})


class Worker(msgspec.Struct, kw_only=True):
    """One worker, as far as it has told."""

    hostname: str
    pid: int | None = None
    freq: float = _SELDOM
    heartbeats: list[float] = msgspec.field(default_factory=list)
    clock: int = 0
    active: int | None = None
    processed: int | None = None
    loadavg: list[float] | None = None
    sw_ident: str | None = None
    sw_ver: str | None = None
    sw_sys: str | None = None
    now: Callable[[], float]

    @property
    def alive(self) -> bool:
        return bool(self.heartbeats) and self.now() < self.heartbeat_expires

    @property
    def status_string(self) -> str:
        return "ONLINE" if self.alive else "OFFLINE"

    @property
    def heartbeat_expires(self) -> float:
        """When it counts as gone, seconds since the epoch, if no other sign of life comes."""
        return self.heartbeats[-1] + self.freq * _EXPIRES if self.heartbeats else 0.0

    @property
    def id(self) -> str:
        return self.hostname if self.pid is None else f"{self.hostname}.{self.pid}"


class Task(msgspec.Struct, kw_only=True):
    """One task, as far as anybody has told. Times are seconds since the epoch."""

    uuid: str
    state: str = states.PENDING
    name: str | None = None
    worker: str | None = None  #: node name
    client: str | None = None  #: who sent it
    args: str | None = None
    kwargs: str | None = None
    eta: str | None = None
    expires: Any = None
    retries: int | None = None
    result: str | None = None
    exception: str | None = None
    traceback: str | None = None
    runtime: float | None = None
    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    sent: float | None = None
    received: float | None = None
    started: float | None = None
    succeeded: float | None = None
    failed: float | None = None
    retried: float | None = None
    revoked: float | None = None
    rejected: float | None = None
    timestamp: float = 0.0  #: of the newest event
    clock: int = 0
    local_received: float = 0.0

    @property
    def ready(self) -> bool:
        return self.state in states.READY_STATES

    @property
    def id(self) -> str:
        return self.uuid

    @property
    def origin(self) -> str | None:
        """Who told first: the client, else the worker."""
        return self.client or self.worker

    def as_dict(self) -> dict[str, Any]:
        return msgspec.structs.asdict(self)

    def info(self, fields: tuple[str, ...] | None = None, extra: tuple[str, ...] = ()) -> dict[str, Any]:
        """What is known of it, for people."""
        shown = fields or ("args", "kwargs", "retries", "result", "eta", "runtime", "expires", "exception",
                           "exchange", "routing_key", "root_id", "parent_id")  # fmt: skip
        found = {name: getattr(self, name, None) for name in (*shown, *extra)}
        return {name: value for name, value in found.items() if value is not None}


class Cluster:
    """The reducer. One thread at a time."""

    def __init__(self, now: Callable[[], float], max_workers: int = 5_000, max_tasks: int = 10_000) -> None:
        """``now``: seconds since the epoch."""
        self._now = now
        self._max_workers = max_workers
        self._max_tasks = max_tasks
        self.workers: dict[str, Worker] = {}
        self.tasks: dict[str, Task] = {}
        self.event_count = 0
        self.task_count = 0
        self.on_node_join: Callable[[Worker], Any] | None = None
        self.on_node_leave: Callable[[Worker], Any] | None = None

    def event(self, found: Mapping[str, Any]) -> tuple[Worker | Task | None, str]:
        """Take in one event (checked by ``wire.event_message``); whom it is about, and its subject."""
        self.event_count += 1
        group, _, subject = str(found["type"]).partition("-")
        if group == "worker":
            return self._worker_event(found, subject), subject
        if group == "task" and found.get("uuid"):
            return self._task_event(found, subject), subject
        return None, subject

    def alive_workers(self) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.alive]

    def worker(self, hostname: str) -> Worker:
        """The worker of that name, known from now on."""
        found = self.workers.pop(hostname, None) or Worker(hostname=hostname, now=self._now)
        self.workers[hostname] = found  # the newest last
        if len(self.workers) > self._max_workers:
            del self.workers[next(iter(self.workers))]
        return found

    def task(self, uuid: str) -> Task:
        """The task of that id, known from now on."""
        found = self.tasks.pop(uuid, None)
        if found is None:
            found = Task(uuid=uuid)
            self.task_count += 1
        self.tasks[uuid] = found
        if len(self.tasks) > self._max_tasks:
            del self.tasks[next(iter(self.tasks))]
        return found

    # ── workers ──────────────────────────────────────────────────────────────────────────────────────────────

    def _worker_event(self, found: Mapping[str, Any], subject: str) -> Worker:
        worker = self.worker(found["hostname"])
        was_there = worker.alive
        self._describe(worker, found)
        if subject == "offline":
            worker.heartbeats.clear()
            if was_there and self.on_node_leave is not None:
                self.on_node_leave(worker)
            return worker
        # our own time: clocks of other machines may be off, and what counts is when we heard of it
        worker.heartbeats = [*worker.heartbeats[1 - _HEARTBEATS_KEPT :], self._now()]
        if not was_there and self.on_node_join is not None:
            self.on_node_join(worker)
        return worker

    def _describe(self, worker: Worker, found: Mapping[str, Any]) -> None:
        for name in ("active", "processed", "pid"):
            value = found.get(name)
            if type(value) is int:
                setattr(worker, name, value)
        freq: Any = found.get("freq")
        if type(freq) in (int, float) and 0 < freq < 1e6:
            worker.freq = float(freq)
        load = found.get("loadavg")
        if isinstance(load, list | tuple) and all(type(value) in (int, float) for value in load):
            worker.loadavg = [float(value) for value in load[:3]]
        for name in ("sw_ident", "sw_ver", "sw_sys"):
            value = found.get(name)
            if isinstance(value, str):
                setattr(worker, name, value[:100])
        clock = found.get("clock")
        if type(clock) is int:
            worker.clock = max(worker.clock, clock)

    # ── tasks ────────────────────────────────────────────────────────────────────────────────────────────────

    def _task_event(self, found: Mapping[str, Any], subject: str) -> Task:
        now = self._now()
        task = self.task(found["uuid"])
        is_from_client = subject == "sent"
        if is_from_client:
            task.client = found["hostname"]
        else:
            task.worker = found["hostname"]
            worker = self.worker(found["hostname"])
            if not worker.heartbeats:  # somebody works there, although we have not heard its heart
                worker.heartbeats.append(now)
        state = STATES.get(subject, subject.upper())
        at = float(found["timestamp"])
        if subject in STATES:
            setattr(task, subject, at)
        fields = {name: _kept(name, found[name]) for name in found.keys() & _TASK_FIELDS}
        is_late = (
            state != states.RETRY
            and task.state != states.RETRY
            and states.precedence(state) > states.precedence(task.state)
        )
        if is_late:
            fields = {name: value for name, value in fields.items() if name in _LATE}
        else:
            task.state = state
            task.timestamp = at
        task.local_received = now
        clock = found.get("clock")
        if type(clock) is int:
            task.clock = max(task.clock, clock)
        for name, value in fields.items():
            if value is not None:
                setattr(task, name, value)
        return task


def _kept(name: str, value: Any) -> Any:
    """A field of a stranger's event, of the type it should have or as short text."""
    if value is None:
        return None
    if name in _NUMBERS:
        return value if type(value) in (int, float) else None
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= _TEXT_LENGTH else text[:_TEXT_LENGTH] + "..."
