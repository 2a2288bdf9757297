"""Receives for the consumers of steps: a broker's consumer each, whose messages go to the thread of steps one by one.

Crash-only, like the worker's own session: on any error the broker's consumer is dropped whole, and built anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from celeriac.errors import MessageError, OperationalError
from celeriac.rules.retry import reconnect_delay
from celeriac.transports.base import ACK, Bury, Settlement
from celeriac.worker.steps.messages import Message

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from celeriac.clock import Clock
    from celeriac.transports.base import Consumer as Source
    from celeriac.transports.base import Delivery, QueueSpec, Receipt, Transport, Verdict
    from celeriac.wire.limits import Limits
    from celeriac.worker.lane import Lane
    from celeriac.worker.steps.bridge import Bridge
    from celeriac.worker.steps.messages import Consumer

logger = logging.getLogger("celeriac.worker")

_RECEIVE_WAIT = 1.0
_CLOSE_TIMEOUT = 5.0


class Inbox:
    """What one broker's consumer has brought and nobody has settled."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.held: dict[Receipt, Delivery] = {}
        self.freed = asyncio.Event()

    async def settle(self, delivery: Delivery, verdict: Verdict) -> None:
        if self.held.get(delivery.receipt) is not delivery:
            raise OperationalError("the message is no longer held here; it will be delivered again")
        lost = await self.source.settle([Settlement(delivery.receipt, verdict)])
        self.held.pop(delivery.receipt, None)
        self.freed.set()
        if lost:
            raise OperationalError("the broker has given the message to somebody else meanwhile")


class Receiving:
    """The :class:`~celeriac.worker.steps.messages.Post` of one worker."""

    def __init__(
        self, bridge: Bridge, transport: Transport, lane: Lane, owner: str, queue_of: Callable[[Any], QueueSpec],
        accept: frozenset[str], limits: Limits, lease: float, clock: Clock, random: Random,
    ) -> None:  # fmt: skip
        self._bridge = bridge
        self._transport = transport
        self._lane = lane
        self._owner = owner
        self._queue_of = queue_of
        self.accept = accept
        self.limits = limits
        self._lease = lease
        self._clock = clock
        self._random = random
        self._tasks: dict[Consumer, asyncio.Task[None]] = {}
        self._inboxes: dict[Consumer, Inbox] = {}
        self._count = 0

    # ── for consumers, in the thread of steps ────────────────────────────────────────────────────────────────

    def queue(self, given: Any) -> QueueSpec:
        return self._queue_of(given)

    def begin(self, consumer: Consumer) -> None:
        self._bridge.ask(self._begin(consumer))

    def end(self, consumer: Consumer) -> None:
        self._bridge.ask(self._end(consumer))

    def settle(self, consumer: Consumer, delivery: Delivery, verdict: Verdict) -> None:
        try:
            self._bridge.ask(self._settle(consumer, delivery, verdict))
        except TimeoutError:
            raise OperationalError("the broker does not answer; the message may be delivered again") from None

    # ── on the loop ──────────────────────────────────────────────────────────────────────────────────────────

    async def _begin(self, consumer: Consumer) -> None:
        if consumer not in self._tasks:
            self._count += 1
            self._tasks[consumer] = asyncio.create_task(self._keep_receiving(consumer, f"{self._owner}.{self._count}"))

    async def _end(self, consumer: Consumer) -> None:
        task = self._tasks.pop(consumer, None)
        if task is not None:
            task.cancel()
            await asyncio.wait((task,), timeout=2 * _CLOSE_TIMEOUT)

    async def _settle(self, consumer: Consumer, delivery: Delivery, verdict: Verdict) -> None:
        inbox = self._inboxes.get(consumer)
        if inbox is None:
            raise OperationalError("the consumer that brought the message is gone; it will be delivered again")
        await inbox.settle(delivery, verdict)

    async def close(self) -> None:
        for consumer in list(self._tasks):
            await self._end(consumer)

    async def _keep_receiving(self, consumer: Consumer, owner: str) -> None:
        failures = 0
        while True:
            source: Source | None = None
            renewing: asyncio.Task[None] | None = None
            delay = 0.0
            try:
                await self._lane.run(partial(self._declare, consumer.queues))
                source = self._transport.consumer(consumer.queues, owner)
                inbox = self._inboxes[consumer] = Inbox(source)
                if self._transport.capabilities.leases:
                    renewing = asyncio.create_task(self._keep_renewing(inbox))
                await self._receive(consumer, inbox)
            except OperationalError as error:
                failures += 1
                delay = reconnect_delay(failures, self._random)
                logger.error("a bootstep's consumer is broken: %s; again in %.1f s", error, delay)
            except Exception:
                failures += 1
                delay = reconnect_delay(failures, self._random)
                logger.exception("a bootstep's consumer failed; again in %.1f s", delay)
            finally:
                self._inboxes.pop(consumer, None)
                if renewing is not None:
                    renewing.cancel()
                if source is not None:
                    with contextlib.suppress(OperationalError, asyncio.TimeoutError, OSError):
                        async with asyncio.timeout(_CLOSE_TIMEOUT):
                            await source.close()
            await self._clock.sleep(delay)

    def _declare(self, queues: list[QueueSpec]) -> None:
        admin = self._transport.admin()
        try:
            admin.declare(queues)
        finally:
            admin.close()

    async def _receive(self, consumer: Consumer, inbox: Inbox) -> None:
        while True:
            room = consumer.prefetch_count - len(inbox.held)
            if room <= 0:
                inbox.freed.clear()
                await inbox.freed.wait()
                continue
            for delivery in await inbox.source.receive(room, _RECEIVE_WAIT):
                inbox.held[delivery.receipt] = delivery
                trouble = delivery.malformed
                try:
                    message = None if trouble else Message(delivery, consumer)
                except MessageError as error:  # it was not opened before
                    message, trouble = None, str(error)
                if message is None:
                    await inbox.settle(delivery, Bury(trouble or "", quarantine=True, worker=self._owner))
                    continue
                if consumer.no_ack:
                    await inbox.settle(delivery, ACK)
                await self._bridge.run(partial(_hand_over, consumer, message))

    async def _keep_renewing(self, inbox: Inbox) -> None:
        while True:
            await self._clock.sleep(self._lease / 3)
            if not inbox.held:
                continue
            try:
                lost = await inbox.source.renew(list(inbox.held))
            except OperationalError:
                continue  # whoever receives sees it, too
            for receipt in lost:
                inbox.held.pop(receipt, None)
                inbox.freed.set()


def _hand_over(consumer: Consumer, message: Message) -> None:
    try:
        consumer.receive(message)
    except Exception as error:
        logger.exception("a bootstep could not handle %r", message)
        if not message.acknowledged:
            with contextlib.suppress(OperationalError):
                message.bury(f"a bootstep raised {type(error).__name__}: {error}"[:500])
