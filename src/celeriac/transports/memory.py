"""The broker in memory: everything the embedded one promises but durability, for one process.

Processes do not share it, so it serves tests, ``memory://`` and programs that run their worker inside. Waits go
through the clock, so virtual time works.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, ClassVar, Protocol

from celeriac.embedded.volatile import engine_named
from celeriac.errors import PublishRejected
from celeriac.transports.base import RELEASE, Buried, Capabilities, Heard, Settlement
from celeriac.transports.bindings import bindings_of, matches
from celeriac.transports.url import BrokerUrl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.clock import Clock
    from celeriac.embedded.volatile import Receipt, VolatileEngine
    from celeriac.transports.base import Delivery, Outgoing, QueueSpec, Subscription
    from celeriac.wire.envelope import Envelope, Route
    from celeriac.wire.result_record import ResultRecord
    from celeriac.wire.revocation import News, Revocation

#: envelopes that a slow subscriber may lag behind before the oldest are dropped
_MAILBOX = 10_000
#: longest rest, in seconds, before looking again whatever the notifications say
_POLL = 1.0


class MemorySettings(Protocol):
    """What of the broker settings this driver reads."""

    broker_lease: float
    broker_max_message_bytes: int
    task_dead_letter_expires: float


def engine_key(url: str) -> tuple[str, ...]:
    """The broker and the store of one URL are one engine."""
    parsed = BrokerUrl.parse(url)
    return ("memory", f"{parsed.host or ''}/{parsed.path}")


class MemoryTransport:
    """The broker in memory. URLs with the same name lead to the same broker."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        leases=True, delays=True, priorities=1 << 31, fanout=True, counts_attempts=True, confirms=True,
        dead_letters=True, ordered=True, survives_restart=False, max_batch=10_000,
    )  # fmt: skip

    def __init__(self, url: str, settings: MemorySettings, clock: Clock) -> None:
        self.engine_key: tuple[str, ...] = engine_key(url)
        self._engine = engine_named(self.engine_key[1])
        self._settings = settings
        self._clock = clock

    def publisher(self) -> MemoryPublisher:
        return MemoryPublisher(self._engine, self._settings, self._clock)

    def consumer(self, queues: Sequence[QueueSpec], owner: str) -> MemoryConsumer:
        return MemoryConsumer(self._engine, [queue.name for queue in queues], self._settings, self._clock)

    def admin(self) -> MemoryAdmin:
        return MemoryAdmin(self._engine, self._clock)

    def broadcast(self) -> MemoryBroadcast:
        return MemoryBroadcast(self._engine, self._settings.broker_max_message_bytes)

    def add_revocations(self, entries: Sequence[Revocation], kept: float) -> None:
        self._engine.add_revocations(entries, kept, self._clock.time())

    def read_revocations(self, mark: int, limit: int) -> News:
        return self._engine.read_revocations(mark, limit, self._clock.time())

    def close(self) -> None:
        """The messages stay for the next one."""


class MemoryPublisher:
    def __init__(self, engine: VolatileEngine, settings: MemorySettings, clock: Clock) -> None:
        self._engine = engine
        self._max_bytes = settings.broker_max_message_bytes
        self._clock = clock

    def publish(self, batch: Sequence[Outgoing], deadline: float) -> None:
        check_sizes(batch, self._max_bytes)
        self._engine.send(self._engine.routed(batch), self._clock.time())
        self._engine.tell(self._engine.on_messages)

    def close(self) -> None:
        """Nothing to close."""


def check_sizes(batch: Sequence[Outgoing], max_bytes: int) -> None:
    for outgoing in batch:
        if len(outgoing.envelope.body) > max_bytes:
            raise PublishRejected(
                f"A message body has {len(outgoing.envelope.body)} bytes; broker_max_message_bytes allows {max_bytes}."
            )


class MemoryConsumer:
    """Receives and settles, on the loop itself."""

    def __init__(self, engine: VolatileEngine, queues: Sequence[str], settings: MemorySettings, clock: Clock) -> None:
        self._engine = engine
        self._queues = list(dict.fromkeys(queues))
        self._settings = settings
        self._clock = clock
        self._held: set[Receipt] = set()
        self._closed = False
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._engine.on_messages.add(self._ring)
        ends = self._clock.monotonic() + wait
        while not self._closed:
            self._news.clear()
            now = self._clock.time()
            found = self._engine.claim(self._queues, limit, now + self._settings.broker_lease, now)
            left = ends - self._clock.monotonic()
            if found or left <= 0:
                self._held.update(delivery.receipt for delivery in found)
                return found
            due = self._engine.next_due()
            await self._rest(min(left, _POLL, left if due is None else max(0.001, due - now)))
        return []

    def _ring(self) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._news.set)

    async def _rest(self, seconds: float) -> None:
        """Until there is news, but no longer than ``seconds`` of the clock."""
        tasks = [asyncio.ensure_future(self._news.wait()), asyncio.ensure_future(self._clock.sleep(seconds))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def settle(self, batch: Sequence[Settlement]) -> Sequence[Receipt]:
        return await self.commit((), (), batch)

    async def commit(
        self, results: Sequence[ResultRecord], sends: Sequence[Outgoing], settlements: Sequence[Settlement]
    ) -> Sequence[Receipt]:
        engine, now = self._engine, self._clock.time()
        check_sizes(sends, self._settings.broker_max_message_bytes)
        with engine.lock:
            routed = engine.routed(sends)  # may refuse; nothing has happened yet
            engine.write(results, now)
            engine.send(routed, now)
            lost = engine.settle(settlements, now, self._settings.task_dead_letter_expires)
        self._held.difference_update(settlement.receipt for settlement in settlements)
        engine.tell(engine.on_messages)
        if results:
            engine.tell(engine.on_records)
        return lost

    async def renew(self, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        return self._engine.renew(receipts, self._clock.time() + self._settings.broker_lease)

    async def redirect(self, queues: Sequence[QueueSpec]) -> bool:
        self._queues = list(dict.fromkeys(queue.name for queue in queues))
        self._news.set()
        return True

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._news.set()
        self._engine.on_messages.discard(self._ring)
        held, self._held = self._held, set()
        self._engine.settle([Settlement(receipt, RELEASE) for receipt in held], self._clock.time(), None)
        self._engine.tell(self._engine.on_messages)


class MemoryAdmin:
    """Looks after queues and the buried."""

    def __init__(self, engine: VolatileEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def declare(self, queues: Sequence[QueueSpec]) -> None:
        self._engine.declare(queues)

    def delete(self, queue: str) -> None:
        self._engine.delete(queue)

    def purge(self, queue: str) -> int:
        return self._engine.purge(queue)

    def depth(self, queue: str) -> int:
        return self._engine.depth(queue)

    def queues(self) -> Sequence[str]:
        return self._engine.names()

    def buried(self, queues: Sequence[str], limit: int) -> Sequence[Buried]:
        with self._engine.lock:
            found = [one for one in reversed(self._engine.buried) if one.queue in queues]
        return [
            Buried(
                id=str(one.id), queue=one.queue, quarantined=one.kind == "quarantine", reason=one.reason,
                worker=one.worker, buried_at=one.buried_at, attempts=one.attempts, envelope=one.envelope,
                raw=one.envelope.body,
            )
            for one in found[:limit]
        ]  # fmt: skip

    def replay(self, chosen: Sequence[Buried]) -> int:
        count = self._engine.replay({int(one.id) for one in chosen}, self._clock.time())
        self._engine.tell(self._engine.on_messages)
        return count

    def discard(self, chosen: Sequence[Buried]) -> int:
        return len(self._engine.take_buried({int(one.id) for one in chosen}))

    def close(self) -> None:
        """Nothing to close."""


class MemoryBroadcast:
    """Fan-out and replies between the threads of this process."""

    def __init__(self, engine: VolatileEngine, max_bytes: int) -> None:
        self._engine = engine
        self._max_bytes = max_bytes

    def publish(self, batch: Sequence[Outgoing], deadline: float) -> None:
        check_sizes(batch, self._max_bytes)
        for outgoing in batch:
            self._engine.cast(outgoing.envelope, outgoing.route)

    def subscribe(self, queue: QueueSpec, keys: Sequence[str] = ()) -> Subscription:
        return _Subscription(self._engine, queue, keys)

    def anybody(self, exchange: str) -> bool:
        return self._engine.has_audience(exchange)

    def close(self) -> None:
        """Subscriptions close themselves."""


class _Subscription:
    def __init__(self, engine: VolatileEngine, queue: QueueSpec, keys: Sequence[str]) -> None:
        self._engine = engine
        self._bindings = bindings_of(queue, keys)
        self._exchange = queue.exchange
        self._mailbox: deque[Heard] = deque(maxlen=_MAILBOX)
        self._news = threading.Condition()
        self._interrupted = self._closed = False
        engine.listen(self._exchange, self._hear)

    def _hear(self, envelope: Envelope, route: Route) -> None:
        if any(matches(binding, route.routing_key) for binding in self._bindings):
            # the receivers may change the mappings they get
            copy = type(envelope)(envelope.body, dict(envelope.headers), dict(envelope.properties))
            with self._news:
                self._mailbox.append(Heard(copy, route))
                self._news.notify_all()

    def receive(self, limit: int, wait: float) -> Sequence[Heard]:
        ends = time.monotonic() + wait
        with self._news:
            while not self._mailbox and not self._interrupted and not self._closed:
                left = ends - time.monotonic()
                if left <= 0:
                    break
                self._news.wait(left)
            self._interrupted = False
            return [self._mailbox.popleft() for _ in range(min(limit, len(self._mailbox)))]

    def interrupt(self) -> None:
        with self._news:
            self._interrupted = True
            self._news.notify_all()

    def close(self) -> None:
        self._engine.ignore(self._exchange, self._hear)
        with self._news:
            self._closed = True
            self._mailbox.clear()
            self._news.notify_all()
