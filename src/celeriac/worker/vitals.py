"""Feels the worker's pulse once a second, on its own loop: what ``rules/health.py`` judges, for whoever asks.

Only there where probes are asked for. Whoever reads ``vitals`` may be another thread: each is made whole, then shown.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from celeriac.errors import OperationalError
from celeriac.executors.base import Examinable, Inspectable
from celeriac.rules.health import Patience, Vitals
from celeriac.transports.base import Counts
from celeriac.worker.lane import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celeriac.clock import Clock
    from celeriac.executors.base import Executor
    from celeriac.transports.base import Transport
    from celeriac.worker.claims import Claims
    from celeriac.worker.intake import Intake, Watchdog
    from celeriac.worker.meter import Meter
    from celeriac.worker.session import Session
    from celeriac.worker.settle import Settle

#: seconds between two looks, at most; and the part of the patience that is more often
_INTERVAL, _OFTEN = 1.0, 4
#: looks whose longest delay is shown
_LAGS = 60
#: seconds between two counts of the queues, and after the last reader for which they go on
_COUNT_EVERY, _READ_WITHIN = 15.0, 120.0
#: queues that are counted
_MOST_QUEUES = 100


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What is only shown."""

    slots: int = 0
    running: int = 0
    ready: int = 0
    later: int = 0
    unwritten: int = 0
    processes: int = 0
    lag: float = 0.0  #: seconds; the longest of the last minute


class _Since:
    """Since when something has been so, while ``token`` stays the same."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._token: Any = None

    def note(self, is_so: bool, now: float, token: Any = None) -> float | None:
        if not is_so:
            self._at = None
        elif self._at is None or token != self._token:
            self._at = now
        self._token = token
        return self._at


class Watch:
    """The service that looks."""

    name = "vitals"

    def __init__(
        self, meter: Meter, session: Session, intake: Intake, watchdog: Watchdog, settle: Settle, claims: Claims,
        executor: Executor, transport: Transport, patience: Patience, clock: Clock,
    ) -> None:  # fmt: skip
        self.interval = min(_INTERVAL, patience.usual / _OFTEN)
        self._meter = meter
        self._session = session
        self._intake = intake
        self._watchdog = watchdog
        self._settle = settle
        self._claims = claims
        self._executor = executor
        self._examinable = executor if isinstance(executor, Examinable) else None
        self._inspectable = executor if isinstance(executor, Inspectable) else None
        self._transport = transport
        self._clock = clock
        self._lane = Lane("celeriac-vitals")
        self._lags: deque[float] = deque([0.0], maxlen=_LAGS)
        self._no_process, self._stalled, self._cut_off, self._unwritten = (_Since() for _ in range(4))
        self.vitals: Vitals | None = None
        self.figures = Figures()
        #: queue → messages that wait there; counted while somebody reads them
        self.queues: dict[str, int] = {}
        self.read_at = float("-inf")  #: monotonic, when somebody last read them
        self._counted_at = float("-inf")
        self._counting: asyncio.Task[None] | None = None

    async def run(self, started: Callable[[], None]) -> None:
        end = self._meter.listen()
        try:
            self.look()
            started()
            while True:
                due = self._clock.monotonic() + self.interval
                await self._clock.sleep(self.interval)
                self._lags.append(max(self._clock.monotonic() - due, 0.0))
                self.look()
                self._count_queues()
        finally:
            end()
            if self._counting is not None:
                self._counting.cancel()
            self._lane.close()

    def received(self) -> Mapping[str, int]:
        """How many messages of each task were taken up."""
        return self._claims.totals

    def look(self) -> None:
        """Look once."""
        now = self._clock.monotonic()
        session, settle, meter, executor = self._session, self._settle, self._meter, self._executor
        condition = None if self._examinable is None else self._examinable.condition()
        in_work = () if self._inspectable is None else self._inspectable.in_work()
        meter.look(in_work)
        is_up, has_queues = session.is_up, bool(session.queues)
        self.vitals = Vitals(
            at=now,
            is_stopping=self._intake.is_stopping,
            is_connected=is_up,
            has_queues=has_queues,
            processes=None if condition is None else condition.processes,
            no_process_since=self._no_process.note(condition is not None and not condition.processes, now),
            stalled=0 if condition is None else condition.stalled,
            stalled_since=self._stalled.note(condition is not None and condition.stalled > 0, now),
            cut_off_since=self._cut_off.note(not is_up and has_queues, now, (meter.broker_errors, session.epoch)),
            unwritten_since=self._unwritten.note(
                is_up and settle.backlog > 0, now, (settle.settled, meter.settle_failures)
            ),
            starved=self._watchdog.starved,
            waiting=self._watchdog.waiting,
        )
        self.figures = Figures(
            slots=executor.slots,
            running=len(in_work),
            ready=self._claims.ready_count,
            later=self._claims.later_count,
            unwritten=settle.backlog,
            processes=0 if condition is None else condition.processes,
            lag=max(self._lags),
        )

    def _count_queues(self) -> None:
        """Beside the loop's beat: a broker that takes long must not look like a loop that stands still."""
        now = self._clock.monotonic()
        if self._counting is not None and not self._counting.done():
            return
        if self._session.is_up and now - self._counted_at >= _COUNT_EVERY and now - self.read_at <= _READ_WITHIN:
            self._counted_at = now
            self._counting = asyncio.create_task(self._recount())

    async def _recount(self) -> None:
        try:
            self.queues = await self._lane.run(self._count)
        except OperationalError:
            self.queues = {}

    def _count(self) -> dict[str, int]:
        admin = self._transport.admin()
        try:
            names = [queue.name for queue in self._session.queues[:_MOST_QUEUES]]
            if isinstance(admin, Counts):
                return {name: admin.counts(name).waiting for name in names}
            return {name: admin.depth(name) for name in names}
        finally:
            admin.close()
