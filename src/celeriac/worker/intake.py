"""Asks the broker for as many messages as there is room for, and stops when told or when outcomes pile up.

Back-pressure is credit alone: free room in the executor, plus a little ahead, minus what is ready already.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from celeriac.errors import OperationalError
from celeriac.transports.base import RELEASE, Counts, Settlement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celeriac.clock import Clock
    from celeriac.executors.base import Executor
    from celeriac.transports.base import Delivery, Transport
    from celeriac.worker.admit import Admission
    from celeriac.worker.claims import Claims
    from celeriac.worker.dispatch import Dispatch
    from celeriac.worker.lane import Lane
    from celeriac.worker.options import Plan
    from celeriac.worker.session import Session
    from celeriac.worker.settle import Settle

#: seconds of work, at the present pace, to have ready beyond the executor's room
_AHEAD = 0.025


class Intake:
    """The receiving end of the pipeline."""

    name = "intake"

    def __init__(
        self, session: Session, claims: Claims, executor: Executor, admission: Admission, dispatch: Dispatch,
        settle: Settle, plan: Plan, clock: Clock,
    ) -> None:  # fmt: skip
        self._session = session
        self._claims = claims
        self._executor = executor
        self._admission = admission
        self._dispatch = dispatch
        self._settle = settle
        self._plan = plan
        self._clock = clock
        self._wake = asyncio.Event()
        self._stopping = False
        self._idle = asyncio.Event()
        self.last_delivery = clock.monotonic()
        self.received = 0
        self.on_blocked: Callable[[], None] = lambda: None
        #: told after each batch; None: nobody counts
        self.on_received: Callable[[], None] | None = None

    @property
    def is_stopping(self) -> bool:
        return self._stopping

    def wake(self) -> None:
        """There may be room now."""
        self._wake.set()

    def credit(self) -> int:
        """How many more messages to hold."""
        plan, claims = self._plan, self._claims
        if self._settle.backlog >= plan.backlog or claims.later_count >= plan.held_limit:
            return 0
        return min(plan.batch, self._executor.room() + self.ahead() - claims.ready_count)

    def ahead(self) -> int:
        """How many may wait beyond the executor's room."""
        plan = self._plan
        if plan.prefetch_multiplier == 0:
            return plan.batch
        ahead = (plan.prefetch_multiplier - 1) * self._executor.slots
        if plan.look_ahead:
            # short tasks: what is worked off while one fetch is under way
            ahead = max(ahead, min(plan.batch, int(self._settle.pace_now() * _AHEAD)))
        return ahead

    async def run(self, started: Callable[[], None]) -> None:
        started()
        session = self._session
        while not self._stopping:
            consumer = await session.consumer()
            epoch = session.epoch
            credit = self.credit()
            if credit <= 0 or (credit < self._least() and self._executor.room() < self._executor.slots):
                self._wake.clear()
                self.on_blocked()
                await self._wake.wait()
                continue
            try:
                deliveries = await consumer.receive(credit, self._plan.receive_wait)
            except OperationalError as error:
                session.fail(epoch, error)
                continue
            if deliveries and epoch == session.epoch and session.is_up:
                await self._take(deliveries)
            # a driver that never has to wait would otherwise keep the loop from collecting outcomes
            await asyncio.sleep(0)
        self._idle.set()

    def _least(self) -> int:
        """At a high pace, a fetch for few messages costs more than it brings."""
        return min(128, int(self._settle.pace * _AHEAD) // 4)

    async def _take(self, deliveries: Sequence[Delivery]) -> None:
        self.last_delivery = self._clock.monotonic()
        self.received += len(deliveries)
        if self._stopping:
            await self._give_back(deliveries)
            return
        self._admission.admit(deliveries)
        if self.on_received is not None:
            self.on_received()
        self._dispatch.pump()

    async def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        consumer = await self._session.consumer()
        try:
            await consumer.settle([Settlement(delivery.receipt, RELEASE) for delivery in deliveries])
        except OperationalError as error:
            self._session.fail(self._session.epoch, error)

    async def stop(self, timeout: float) -> None:
        """Ask for nothing more; a fetch in flight is waited for, and given back."""
        self._stopping = True
        self._wake.set()
        if self._session.is_up:
            with contextlib.suppress(asyncio.TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._idle.wait()


class Watchdog:
    """Room here, messages there, and yet nothing comes: then the consumer is built anew (semantics D3).

    Only while nothing is held, so that a needless rebuild costs nothing.
    """

    name = "watchdog"

    def __init__(
        self, session: Session, intake: Intake, claims: Claims, transport: Transport, lane: Lane, silence: float,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._session = session
        self._intake = intake
        self._claims = claims
        self._transport = transport
        self._lane = lane
        self._silence = silence
        self._clock = clock
        self._rebuilds = 0
        self._received = 0  #: by the intake, when the consumer was last built anew
        self.waiting = 0  #: messages that the broker had then

    @property
    def starved(self) -> int:
        """Consumers in a row that were built anew here and brought nothing."""
        return self._rebuilds if self._intake.received == self._received else 0

    async def run(self, started: Callable[[], None]) -> None:
        started()
        while True:
            await self._clock.sleep(self._silence / 2)
            await self.look()

    async def look(self) -> None:
        """Look once."""
        quiet_for = self._clock.monotonic() - self._intake.last_delivery
        if quiet_for < self._silence or not self._session.is_up or self._claims.held or self._intake.credit() <= 0:
            return
        epoch = self._session.epoch
        try:
            depth = await self._lane.run(self._depth)
        except OperationalError as error:
            self._session.fail(epoch, error)
            return
        if depth and not self._claims.held and self._clock.monotonic() - self._intake.last_delivery >= self._silence:
            self._intake.last_delivery = self._clock.monotonic()
            self._rebuilds = self.starved + 1
            self._received, self.waiting = self._intake.received, depth
            self._session.fail(
                epoch, OperationalError(f"{depth} messages wait, yet none was delivered for {quiet_for:.0f} s")
            )

    def _depth(self) -> int:
        # of several workers at such a queue, all but one are given nothing, as they should
        queues = [queue.name for queue in self._session.queues if not queue.arguments.get("x-single-active-consumer")]
        admin = self._transport.admin()
        try:
            if isinstance(admin, Counts):
                return sum(admin.counts(queue).waiting for queue in queues)
            if self._transport.capabilities.delays:
                return 0  # what is not due yet may be counted among what waits
            return sum(admin.depth(queue) for queue in queues)
        finally:
            admin.close()
