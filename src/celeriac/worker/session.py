"""The consumer, crash-only: on any error it is dropped whole and built anew from what was declared (semantics D3).

What was held and not running goes with it, the broker gives it out again. What runs is renewed under the new
consumer or marked lost, to be adopted when it is delivered again.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from celeriac import telemetry
from celeriac.errors import OperationalError
from celeriac.rules.retry import reconnect_delay
from celeriac.transports.base import Commits, Keeps, Redirects

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from random import Random

    from celeriac.clock import Clock
    from celeriac.transports.base import Consumer, QueueSpec, Receipt, Transport
    from celeriac.worker.claims import Claim, Claims
    from celeriac.worker.lane import Lane

#: seconds a broken consumer gets to close
_CLOSE_TIMEOUT = 5.0


class Session:
    """Owns the consumer. ``epoch`` tells one consumer from the next."""

    name = "session"

    def __init__(
        self, transport: Transport, queues: Sequence[QueueSpec], owner: str, claims: Claims, lane: Lane,
        clock: Clock, random: Random,
    ) -> None:  # fmt: skip
        self._transport = transport
        self.queues: Sequence[QueueSpec] = tuple(queues)
        self._owner = owner
        self._claims = claims
        self._lane = lane
        self._clock = clock
        self._random = random
        self._consumer: Consumer | None = None
        self._up = asyncio.Event()
        self._broken = asyncio.Event()
        #: why the consumer is to be replaced; None: nothing is wrong with it
        self._error: BaseException | None = None
        self._changing = asyncio.Lock()
        self._has_queues = asyncio.Event()
        self.epoch = 0
        self.commits: Commits | None = None
        self.first_contact = asyncio.Event()
        #: awaited whenever there is a consumer, before messages are taken from it; must not take long, nor raise
        self.before_work: Callable[[], Awaitable[None]] | None = None
        #: the broker has been tried and did not answer
        self.was_refused = False

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    async def consumer(self) -> Consumer:
        """The consumer of today, as soon as there is one."""
        while True:
            await self._up.wait()
            if self._consumer is not None:
                return self._consumer

    def fail(self, epoch: int, error: BaseException) -> None:
        """Somebody saw the consumer of ``epoch`` fail."""
        if epoch == self.epoch and self._up.is_set():
            self._up.clear()
            self._error = error
            self._broken.set()

    async def change_queues(self, change: Callable[[Sequence[QueueSpec]], Sequence[QueueSpec]]) -> None:
        """Receive from what ``change`` makes of the queues of today. Raises ``OperationalError`` if there is no broker
        now; the next consumer has them nevertheless."""
        async with self._changing:
            self.queues = tuple(change(self.queues))
            self._has_queues.set()
            consumer, epoch = self._consumer, self.epoch
            if consumer is None:
                return
            await self._lane.run(self._declare)
            if isinstance(consumer, Redirects) and await consumer.redirect(self.queues):
                return
            if epoch == self.epoch and self._up.is_set():
                self._up.clear()
                self._error = None
                self._broken.set()

    async def run(self, started: Callable[[], None]) -> None:
        started()
        failures = 0
        began = self._clock.monotonic()
        while True:
            if self._consumer is None:
                while not self.queues:  # all were taken away: there is nothing to consume
                    self._has_queues.clear()
                    await self._has_queues.wait()
                try:
                    await self._open()
                except OperationalError as error:
                    self.was_refused = True
                    failures += 1
                    delay = reconnect_delay(failures, self._random)
                    telemetry.emit(telemetry.BrokerLost(error=str(error), retry_in=delay))
                    await self._clock.sleep(delay)
                    continue
                if failures:
                    telemetry.emit(telemetry.BrokerBack(after=self._clock.monotonic() - began))
            await self._broken.wait()
            began = self._clock.monotonic()
            if self._error is None:
                failures = 0
                await self._drop()
                continue
            failures = 1
            delay = reconnect_delay(failures, self._random)
            telemetry.emit(telemetry.BrokerLost(error=str(self._error), retry_in=delay))
            await self._drop()
            await self._clock.sleep(delay)

    async def _open(self) -> None:
        await self._lane.run(self._declare)
        consumer = self._transport.consumer(self.queues, self._owner)
        try:
            await self._keep_running(consumer)
        except OperationalError:
            await self._end(consumer)  # what runs is not to be given back
            raise
        self._consumer = consumer
        self.commits = consumer if isinstance(consumer, Commits) else None
        self.epoch += 1
        self._broken.clear()
        self.first_contact.set()
        if self.before_work is not None:
            await self.before_work()
        self._up.set()

    def _declare(self) -> None:
        admin = self._transport.admin()
        try:
            admin.declare(self.queues)
        finally:
            admin.close()

    async def _keep_running(self, consumer: Consumer) -> None:
        """Renew what ran through the break; what is lost by now waits for adoption."""
        by_receipt: dict[Receipt, Claim] = {claim.receipt: claim for claim in self._claims.unsettled()}
        if by_receipt:
            for receipt in await consumer.renew(list(by_receipt)):
                self._claims.mark_lost(by_receipt[receipt])

    async def _drop(self) -> None:
        """Drop the consumer and everything held that does not run; what runs stays ours where the broker lets it."""
        consumer = self._take()
        if consumer is not None:
            await self._end(consumer)

    async def _end(self, consumer: Consumer) -> None:
        if isinstance(consumer, Keeps):
            kept = [claim.receipt for claim in self._claims.unsettled()]
            await _ended(consumer.close_keeping(kept))
        else:
            await _ended(consumer.close())

    async def close(self) -> None:
        """For good: everything that is held goes back."""
        consumer = self._take()
        if consumer is not None:
            await _ended(consumer.close())

    def _take(self) -> Consumer | None:
        self._up.clear()
        self._claims.drop_unstarted()
        consumer, self._consumer, self.commits = self._consumer, None, None
        return consumer


async def _ended(closing: Awaitable[None]) -> None:
    # a consumer that is broken may fail at closing, too; its leases end by themselves
    with contextlib.suppress(OperationalError, asyncio.TimeoutError, OSError):
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await closing
