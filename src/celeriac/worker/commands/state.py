"""What commands see of the worker: the parts themselves, nothing between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from celeriac.clock import Clock, LamportClock
    from celeriac.executors.base import Executor, Runnable
    from celeriac.settings import Settings
    from celeriac.transports.base import QueueSpec, Transport
    from celeriac.worker.admit import Admission
    from celeriac.worker.announcer import Announcer
    from celeriac.worker.autoscale import Autoscaler
    from celeriac.worker.claims import Claims, TaskFacts
    from celeriac.worker.events import Events
    from celeriac.worker.gate import Gate
    from celeriac.worker.options import Plan
    from celeriac.worker.pacing import Pacing
    from celeriac.worker.pulse import Pulse
    from celeriac.worker.session import Session


class Counts(msgspec.Struct):
    """What became of control messages."""

    answered: int = 0
    refused: int = 0  #: not understood, not allowed, or too many at once


class WorkerState(msgspec.Struct, kw_only=True, gc=True):
    """The first argument of every command."""

    hostname: str
    plan: Plan
    settings: Settings
    tasks: Mapping[str, Runnable]
    facts: dict[str, TaskFacts]
    claims: Claims
    admission: Admission
    pacing: Pacing
    session: Session
    executor: Executor
    transport: Transport
    announcer: Announcer
    events: Events
    pulse: Pulse
    lamport: LamportClock
    clock: Clock
    app_name: str
    broker: str  #: its URL, secrets masked
    results: str
    started_at: float  #: monotonic
    find_queue: Callable[[str], QueueSpec]
    stop: Callable[[], None] = lambda: None
    autoscaler: Autoscaler | None = None  #: None: the pool keeps its size
    gate: Gate | None = None  #: None: there are no limits over all workers
    counts: Counts = msgspec.field(default_factory=Counts)

    @property
    def queues(self) -> Sequence[QueueSpec]:
        return self.session.queues

    @property
    def app(self) -> Any:
        """The app, for commands of users; our own do without."""
        for task in self.tasks.values():
            found = getattr(task, "app", None)
            if found is not None:
                return found
        return None
