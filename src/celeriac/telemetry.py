"""What happens, as typed events: one fact, one call.

``emit(TaskStarted(...))`` does no I/O of its own and never raises; sinks translate events into log lines, Celery
events, metrics. An event type nobody listens to costs one dictionary look-up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

Sink = "Callable[[Event], None]"


class Event(msgspec.Struct, kw_only=True, gc=False):
    """Root of the events. ``at``: seconds since the epoch, 0 when the sink should take its own time."""

    at: float = 0.0


class TaskReceived(Event):
    id: str
    name: str
    queue: str
    request: Any = None  #: ``executors.base.Request``, for sinks that show the message


class TaskStarted(Event):
    id: str
    name: str


class TaskSucceeded(Event):
    id: str
    name: str
    runtime: float
    result: str


class TaskFailed(Event):
    id: str
    name: str
    runtime: float
    error: str
    traceback: str
    expected: bool = False


class TaskRetried(Event):
    id: str
    name: str
    error: str
    when: str


class TaskIgnored(Event):
    id: str
    name: str


class TaskRejected(Event):
    id: str
    name: str
    requeue: bool
    reason: str


class TaskRevoked(Event):
    id: str
    name: str
    expired: bool
    terminated: bool = False
    signum: int | None = None
    request: Any = None


class TaskLost(Event):
    """The process running the task is gone. ``outcome``: retried, dead, failed."""

    id: str
    name: str
    detail: str
    outcome: str


class MessageQuarantined(Event):
    queue: str
    id: str
    reason: str
    unknown: str = ""  #: the task's name, if that is all that is wrong
    request: Any = None


class MessageDead(Event):
    queue: str
    id: str
    name: str
    reason: str


class LeaseWasLost(Event):
    id: str
    name: str


class WorkerStarting(Event):
    hostname: str


class WorkerReady(Event):
    hostname: str


class WorkerStopping(Event):
    hostname: str
    how: str  #: warm, soft, cold
    grace: float
    sig: str = ""  #: the signal that asked for it
    restart: bool = False  #: to begin again; what runs is given the time that it needs


class WorkerStopped(Event):
    hostname: str
    handed_back: int


class ChildStarted(Event):
    pid: int


class ChildExited(Event):
    pid: int
    reason: str
    expected: bool


class ServiceFailed(Event):
    service: str
    error: str
    retry_in: float


class BrokerLost(Event):
    error: str
    retry_in: float


class BrokerBack(Event):
    after: float


class SettleDelayed(Event):
    """A batch could not be written and will be tried again; nothing is lost."""

    count: int
    error: str
    retry_in: float


class TasksLimited(Event):
    """Tasks of one key wait for a limit of the cluster; told once a minute."""

    key: str  #: the counter that is full
    name: str  #: one of the tasks
    count: int  #: how often one was turned away since the last word
    wait: float  #: seconds that the next one will probably wait


class LimitsUnavailable(Event):
    """The store of the limits does not answer: no limited task starts; told once a minute."""

    error: str
    retry_in: float


_sinks: dict[type[Event], list[Callable[[Any], None]]] = {}


def subscribe(kinds: type[Event] | tuple[type[Event], ...], sink: Callable[[Any], None]) -> Callable[[], None]:
    """Call ``sink`` for every event of these kinds, on the emitting thread. Returns what ends the subscription."""
    chosen = kinds if isinstance(kinds, tuple) else (kinds,)
    for kind in chosen:
        _sinks.setdefault(kind, []).append(sink)

    def end() -> None:
        for kind in chosen:
            if sink in _sinks.get(kind, ()):
                _sinks[kind].remove(sink)
                if not _sinks[kind]:
                    del _sinks[kind]

    return end


def wanted(kind: type[Event]) -> bool:
    """Whether anybody listens; lets a hot path skip building the event."""
    return kind in _sinks


def emit(event: Event) -> None:
    """Tell the sinks. Never raises: a failing sink is logged."""
    for sink in _sinks.get(type(event), ()):
        try:
            sink(event)
        except Exception:
            import logging

            logging.getLogger("celeriac").exception("a telemetry sink failed on %s", type(event).__name__)
