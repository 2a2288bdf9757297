"""The simulated broker: the transport seam over queues in memory, with a line that fails.

Two kinds. ``lease``: what is held comes back when nobody renews it, receipts outlive consumers (SQLite, Redis).
``connection``: what is held comes back when the connection ends, and every consumer is one (RabbitMQ).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from celeriac.embedded.volatile import VolatileEngine
from celeriac.errors import BackendError, BrokerUnavailable, OperationalError, PublishUnknown
from celeriac.transports.base import RELEASE, RELEASE_COUNTED, Capabilities, QueueCounts, Settlement
from celeriac.wire.result_record import decode_record
from scorecard.simulation.world import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from celeriac.embedded.volatile import Message, Receipt
    from celeriac.results.base import News, ResultRecord, Revocation
    from celeriac.transports.base import Delivery, Outgoing, QueueSpec
    from scorecard.simulation.ledger import Attempt
    from scorecard.simulation.world import Host, World


def attempt_of(message: Message | Outgoing) -> Attempt:
    headers = message.envelope.headers
    return headers["id"], headers.get("retries") or 0


class Holding:
    """Who holds a message, as the broker can't know it."""

    __slots__ = ("host", "renewed_at", "taken_at", "was_lost")

    def __init__(self, host: Host, now: float) -> None:
        self.host = host
        self.taken_at = self.renewed_at = now
        self.was_lost = False  #: its delivery never arrived


class Queues(VolatileEngine):
    """The servers: queues and records. Tells the ledger."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.holdings: dict[Receipt, Holding] = {}
        self.waiters: list[asyncio.Future[None]] = []

    def put(self, batch: Sequence[Outgoing]) -> None:
        for outgoing in batch:
            self.world.ledger.put(attempt_of(outgoing))
        self.send(self.routed(batch), self.world.wall)
        self.ring()

    def ring(self) -> None:
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def take(self, host: Host, queues: Sequence[str], limit: int, until: float) -> list[Delivery]:
        found = self.claim(queues, limit, until, self.world.wall)
        for delivery in found:
            self.holdings[delivery.receipt] = Holding(host, self.world.loop.time())
            attempt = attempt_of(delivery)  # type: ignore[arg-type]
            self.world.ledger.delivered(attempt)
            self.world.note(host.name, "received", (*attempt, delivery.attempt))
        return found

    def _sweep(self, now: float) -> None:
        if self._leases and self._leases[0][0] <= now:
            for receipt in [receipt for receipt, held in self._held.items() if held.until <= now]:
                self.take_back(receipt, "its lease ran out")
        super()._sweep(now)

    def take_back(self, receipt: Receipt, why: str) -> None:
        """Tell the ledger that a message comes back by itself."""
        holding = self.holdings.pop(receipt)
        attempt = attempt_of(self._held[receipt].message)
        self.world.note(holding.host.name, "taken back", (*attempt, why))
        self.world.ledger.ran_out(
            attempt, holding.host, holding.taken_at, holding.renewed_at, holding.was_lost
        )  # fmt: skip

    def obey(self, host: Host, batch: Sequence[Settlement]) -> list[Receipt]:
        self._sweep(self.world.wall)
        for settlement in batch:
            held = self._held.get(settlement.receipt)
            if held is not None:
                attempt = attempt_of(held.message)
                self.world.note(host.name, "settled", (*attempt, settlement.verdict))
                self.world.ledger.settled(attempt, settlement.verdict, host)
                self.holdings.pop(settlement.receipt, None)
        lost = self.settle(batch, self.world.wall, None)
        self.ring()
        return lost

    def prolong(self, receipts: Sequence[Receipt], until: float) -> list[Receipt]:
        self._sweep(self.world.wall)
        for receipt in receipts:
            if receipt in self.holdings:
                self.holdings[receipt].renewed_at = self.world.loop.time()
        return self.renew(receipts, until)

    def end_connection(self, receipts: Collection[Receipt]) -> None:
        """What was received over it comes back, and is counted."""
        lost = sorted(receipt for receipt in receipts if receipt in self._held)
        for receipt in lost:
            self.holdings[receipt].was_lost = True
            self.take_back(receipt, "its connection ended")
        self.settle([Settlement(receipt, RELEASE_COUNTED) for receipt in lost], self.world.wall, None)
        self.ring()

    def disconnect(self, host: Host) -> None:
        """The host has been silent for too long."""
        self.end_connection([receipt for receipt, holding in self.holdings.items() if holding.host is host])

    def store(self, host: Host, records: Sequence[ResultRecord]) -> None:
        for record in records:
            stored = self.records.get(record.task_id)
            if stored is None or stored.record.status != "SUCCESS":
                result = decode_record(record)["result"]
                value = result if isinstance(result, str) else repr(result)
                self.world.note(host.name, "stored", (record.task_id, record.status, value))
                self.world.ledger.wrote(record.task_id, record.status, value)
        self.write(records, self.world.wall)

    def left(self) -> int:
        """Messages that are anywhere but buried."""
        return len(self._held) + len(self._delayed) + sum(map(len, self._ready.values()))


class SimulatedTransport:
    """One host's way to the broker."""

    engine_key = ("simulated",)

    def __init__(self, queues: Queues, host: Host, kind: str, lease: float, commits: bool) -> None:
        self.queues, self.host, self.world = queues, host, queues.world
        self.kind, self.lease, self.commits = kind, lease, commits
        self.kept: set[Receipt] = set()
        self.capabilities = Capabilities(
            leases=True, delays=True, priorities=0, fanout=False, counts_attempts=True, confirms=True,
            dead_letters=True, ordered=True, survives_restart=True, max_batch=1000,
            delay_resolution=1.0 if kind == "connection" else 0.0,
        )  # fmt: skip

    def call(self, name: str, effect: Callable[[], Any]) -> Any:
        try:
            return self.world.call_now(self.host, name, effect)
        except Trouble as error:
            raise BrokerUnavailable(str(error)) from None

    def publisher(self) -> SimulatedTransport:
        return self

    def publish(self, batch: Sequence[Outgoing], deadline: float) -> None:
        try:
            self.world.call_now(self.host, "publish", lambda: self.queues.put(batch))
        except Trouble as error:
            kind = PublishUnknown if "answer" in str(error) else BrokerUnavailable
            raise kind(str(error)) from None

    def consumer(self, queues: Sequence[QueueSpec], owner: str) -> SimulatedConsumer:
        if self.kind == "connection":
            return SimulatedConsumer(self, queues)
        return (CommittingConsumer if self.commits else KeepingConsumer)(self, queues)

    def admin(self) -> SimulatedTransport:
        return self

    def declare(self, queues: Sequence[QueueSpec]) -> None:
        self.call("declare", lambda: self.queues.declare(queues))

    def counts(self, queue: str) -> QueueCounts:
        waiting = len(self.queues._ready.get(queue, ()))
        return self.call(  # type: ignore[no-any-return]
            "counts", lambda: QueueCounts(waiting=waiting, delayed=None, held=None, dead=0, quarantined=0)
        )

    # the rest of a QueueAdmin is for people
    def delete(self, queue: str) -> None:
        raise NotImplementedError

    purge = depth = delete

    def broadcast(self) -> Any:
        raise NotImplementedError

    def add_revocations(self, entries: Sequence[Revocation], kept: float) -> None:
        self.call("revoke", lambda: self.queues.add_revocations(entries, kept, self.world.wall))

    def read_revocations(self, mark: int, limit: int) -> News:
        news: News = self.call("read revoked", lambda: self.queues.read_revocations(mark, limit, self.world.wall))
        known = self.world.ledger.known_revoked[self.host.name]
        for one in news.standing:  # it is heard when the lane has answered
            known.setdefault(one.entry.value, self.world.loop.time() + 0.01)
        return news

    def close(self) -> None:
        pass


class SimulatedConsumer:
    """A connection: what it holds ends with it."""

    def __init__(self, transport: SimulatedTransport, queues: Sequence[QueueSpec]) -> None:
        self.transport, self.world, self.host = transport, transport.world, transport.host
        self.queues = [queue.name for queue in queues]
        self.held: set[Receipt] = set()
        self.is_closed = False

    async def call(self, name: str, effect: Callable[[], Any]) -> Any:
        try:
            return await self.world.call(self.host, name, effect)
        except Trouble as error:
            raise OperationalError(str(error)) from None

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        ends = self.world.loop.time() + wait
        engine = self.transport.queues
        while not self.is_closed:
            found = await self._fetch(limit)
            left = ends - self.world.loop.time()
            if found or left <= 0:
                return found
            news = self.world.loop.create_future()
            engine.waiters.append(news)
            due = engine.next_due()
            rest = left if due is None else min(left, max(0.001, due - self.world.wall))
            await asyncio.wait((news,), timeout=rest)
            news.cancel()
        return []

    async def _fetch(self, limit: int) -> list[Delivery]:
        found: list[Delivery] = []

        def take() -> list[Delivery]:
            until = self.world.wall + (self.transport.lease if self.transport.kind == "lease" else 1e9)
            if not self.is_closed:
                found.extend(self.transport.queues.take(self.host, self.queues, limit, until))
                self.held.update(delivery.receipt for delivery in found)
            return found

        try:
            await self.call("receive", take)
        except OperationalError:
            for delivery in found:
                holding = self.transport.queues.holdings.get(delivery.receipt)
                if holding is not None:
                    holding.was_lost = True
            raise
        return found

    async def settle(self, batch: Sequence[Settlement]) -> Sequence[Receipt]:
        return await self.tell("settle", batch, lambda: None)

    async def tell(self, name: str, batch: Sequence[Settlement], first: Callable[[], None]) -> Sequence[Receipt]:
        def effect() -> list[Receipt]:
            first()
            strange = [one.receipt for one in batch if not self.owns(one.receipt)]
            mine = [one for one in batch if self.owns(one.receipt)]
            return strange + self.transport.queues.obey(self.host, mine)

        lost: list[Receipt] = await self.call(name, effect)
        self.held.difference_update(one.receipt for one in batch)
        return lost

    def owns(self, receipt: Receipt) -> bool:
        return receipt in self.held

    async def renew(self, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        def effect() -> list[Receipt]:
            lost = self.transport.queues.prolong(receipts, self.world.wall + self.transport.lease)
            return [one for one in receipts if one in lost or not self.owns(one)]

        if self.transport.kind == "connection":
            return [one for one in receipts if not self.owns(one)]
        answer: list[Receipt] = await self.call("renew", effect)
        return answer

    async def close(self) -> None:
        """The broker sees the connection end, whatever the line does."""
        if not self.is_closed:
            self.is_closed = True
            self.end()

    def end(self) -> None:
        self.transport.queues.end_connection(self.held)


class KeepingConsumer(SimulatedConsumer):
    """Receipts outlive it."""

    def owns(self, receipt: Receipt) -> bool:
        return True

    async def close(self) -> None:
        await self.close_keeping(())

    async def close_keeping(self, receipts: Sequence[Receipt]) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        kept = self.transport.kept
        back = sorted((self.held | kept) - set(receipts))
        kept.clear()
        kept.update(receipts)
        await self.tell("close", [Settlement(receipt, RELEASE) for receipt in back], lambda: None)


class CommittingConsumer(KeepingConsumer):
    """Its engine is the result store as well."""

    async def commit(
        self, results: Sequence[ResultRecord], sends: Sequence[Outgoing], settlements: Sequence[Settlement]
    ) -> Sequence[Receipt]:
        def first() -> None:
            self.transport.queues.store(self.host, results)
            self.transport.queues.put(sends)

        return await self.tell("commit", settlements, first)


class SimulatedStore:
    """One host's way to the result store."""

    def __init__(self, records: Queues, host: Host, shares: bool) -> None:
        self.records, self.host = records, host
        self.engine_key = ("simulated",) if shares else ("simulated", "store")

    def write(self, records: Sequence[ResultRecord]) -> None:
        try:
            self.records.world.call_now(self.host, "write", lambda: self.records.store(self.host, records))
        except Trouble as error:
            raise BackendError(str(error)) from None

    def read(self, ids: Sequence[str], deadline: float | None = None) -> Mapping[str, ResultRecord]:
        return self.records.read(ids, self.records.world.wall)

    def close(self) -> None:
        pass
