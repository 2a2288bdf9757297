"""What commands see of the worker: the parts themselves, nothing between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from celeriac.ids import is_safe_id
from celeriac.wire.revocation import Revocation, Standing, revoked_ids
from celeriac.worker.cancelling import Cancelled, Cancelling, split

if TYPE_CHECKING:
    from celeriac.clock import Clock, LamportClock
    from celeriac.executors.base import Executor, Runnable
    from celeriac.results.base import ResultStore
    from celeriac.settings import Settings
    from celeriac.transports.base import QueueSpec, Transport
    from celeriac.worker.admit import Admission
    from celeriac.worker.announcer import Announcer
    from celeriac.worker.autoscale import Autoscaler
    from celeriac.worker.claims import Claims, TaskFacts
    from celeriac.worker.events import Events
    from celeriac.worker.gate import Gate
    from celeriac.worker.lane import Lane
    from celeriac.worker.options import Plan
    from celeriac.worker.pacing import Pacing
    from celeriac.worker.pulse import Pulse
    from celeriac.worker.revocations import RevocationWatch
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
    #: None: nobody keeps what is revoked for workers that are down
    revocations: RevocationWatch | None = None
    store: ResultStore | None = None
    lane: Lane
    cancelling: Cancelling
    counts: Counts = msgspec.field(default_factory=Counts)

    @property
    def queues(self) -> Sequence[QueueSpec]:
        return self.session.queues

    def cancel(self, entries: Sequence[Revocation], *, lasting: bool = True) -> Cancelled:
        """Take these back, which have one signal, here and (``lasting``) for workers that cannot hear it now."""
        ids, stamps = split(entries)
        cancelling = self.cancelling
        cancelling.revoked.learn([Standing(entry, cancelling.revoked.kept) for entry in entries])
        if lasting and self.revocations is not None:
            self.revocations.record(entries)
        return cancelling.cancel(ids, stamps, entries[0].signal if entries else "")

    def learn(self, ids: Iterable[Any]) -> None:
        """Ids that neighbours know to be revoked."""
        fresh = self.cancelling.remember(one for one in ids if is_safe_id(one))
        if fresh and self.revocations is not None:
            self.revocations.record(revoked_ids(fresh), remembered=True)

    def pardon(self, entries: Sequence[Revocation], *, lasting: bool = True) -> None:
        """Take back what was revoked, here and (``lasting``) for workers that cannot hear it now."""
        self.cancelling.revoked.pardon((entry.header, entry.value) for entry in entries)
        if lasting and self.revocations is not None:
            self.revocations.record(entries)

    @property
    def app(self) -> Any:
        """The app, for commands of users; our own do without."""
        for task in self.tasks.values():
            found = getattr(task, "app", None)
            if found is not None:
                return found
        return None
