"""What every transport must do. ``class TestMine(TransportSuite)`` plus a fixture ``driver`` runs it.

The suite waits for events and never sleeps for luck; time passes through ``TransportDriver.advance``.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import count
from queue import Queue
from typing import Any, ClassVar, TypeVar

import msgspec
import pytest

from celeriac.errors import PublishRejected, Unroutable
from celeriac.transports.base import (
    ACK,
    RELEASE,
    RELEASE_COUNTED,
    Audience,
    Broadcast,
    Bury,
    Commits,
    Consumer,
    Delivery,
    Envelope,
    Heard,
    Outgoing,
    Park,
    Publisher,
    QueueSpec,
    Redirects,
    Route,
    Settlement,
    Subscription,
    Transport,
    Verdict,
)
from celeriac.wire.result_record import ResultRecord, encode_record

T = TypeVar("T")
Advance = Callable[[float], None]

#: seconds that one test may take
DEADLINE = 120.0
_numbers = count(1)


class TransportDriver(msgspec.Struct, kw_only=True):
    """How the suite reaches a driver."""

    name: str
    #: a new transport object; all reach the same broker
    open: Callable[[], Transport]
    #: the same for a process whose clock is so many seconds ahead
    open_ahead: Callable[[float], Transport]
    #: let this many seconds pass for the broker (push its clock, or wait)
    advance: Callable[[float], None]
    #: seconds since the epoch, as the broker sees them
    time: Callable[[], float]
    #: seconds that a held message stays its holder's
    lease: float
    #: seconds of the suite's longer delays: fewer, where time must really pass
    minute: float = 60.0
    max_bytes: int
    #: ends what a consumer holds as a lost holder does; None: its lease runs out as time passes
    cut_off: Callable[[Consumer], None] | None = None
    #: the broker counts what a holder that vanished had
    counts_lost_holders: bool = True
    #: what is released is handed out before anything else, also before what was on its way
    released_come_first: bool = True
    #: :meth:`QueueAdmin.depth` counts messages whose time has not come
    depth_counts_delayed: bool = True
    max_priority: int | None = None  #: to be declared on queues that are to have priorities
    #: reads a stored result, if the transport ``Commits``
    read_result: Callable[[str], ResultRecord | None] = lambda _: None


def run(work: Awaitable[T]) -> T:
    """Run a coroutine to its end, or fail after DEADLINE."""

    async def bounded() -> T:
        async with asyncio.timeout(DEADLINE):
            return await work

    return asyncio.run(bounded())


def message(
    queue: str, body: bytes = b"[[],{},{}]", *, priority: int | None = None, route: Route | None = None,
    not_before: float | None = None, task_id: str = "t", **headers: Any,
) -> Outgoing:  # fmt: skip
    properties: dict[str, Any] = {"content_type": "application/json", "content_encoding": "utf-8"}
    if priority is not None:
        properties["priority"] = priority
    envelope = Envelope(body, {"id": task_id, "task": "t", **headers}, properties)
    return Outgoing(envelope, route or Route("", queue), not_before)


def numbered(queue: str, numbers: Sequence[int], **options: Any) -> list[Outgoing]:
    return [message(queue, b"%d" % number, **options) for number in numbers]


def numbers_of(deliveries: Sequence[Delivery]) -> list[int]:
    return [int(delivery.envelope.body) for delivery in deliveries]


async def receive_all(consumer: Consumer, wanted: int, at_once: int = 100) -> list[Delivery]:
    """Exactly ``wanted`` messages; the test's deadline ends a wait for too few."""
    found: list[Delivery] = []
    while len(found) < wanted:
        found.extend(await consumer.receive(min(at_once, wanted - len(found)), 0.5))
    return found


async def acknowledge(consumer: Consumer, deliveries: Sequence[Delivery]) -> None:
    assert not await consumer.settle([Settlement(delivery.receipt, ACK) for delivery in deliveries])


def committing(consumer: Consumer) -> Callable[..., Awaitable[Sequence[Any]]]:
    if not isinstance(consumer, Commits):
        pytest.skip("no common transaction")
    return consumer.commit


def stored(task_id: str, status: str) -> ResultRecord:
    """As a task's end is written; stores may read its state off the bytes."""
    return encode_record(task_id=task_id, status=status, result=None, date_done=None)


def ear(exchange: str, kind: str, name: str, key: str = "") -> QueueSpec:
    """A queue of one's own at an exchange, as those of remote control and events are."""
    return QueueSpec(
        name=f"{name}.{exchange}", exchange=exchange, exchange_type=kind, routing_key=key, durable=False,
        auto_delete=True, exclusive=True, expires=60.0, message_ttl=60.0,
    )  # fmt: skip


def casts(exchange: str, kind: str, keys: Sequence[str]) -> list[Outgoing]:
    return [message("", b"%d" % n, route=Route(exchange, key, kind), n=n) for n, key in enumerate(keys)]


def hear(subscription: Subscription, wanted: int) -> list[Heard]:
    """Exactly ``wanted`` messages, or fail after DEADLINE."""
    found: list[Heard] = []
    ends = time.monotonic() + DEADLINE
    while len(found) < wanted and time.monotonic() < ends:
        found.extend(subscription.receive(wanted - len(found), 0.5))
    assert len(found) == wanted
    return found


async def in_time(driver: TransportDriver, queue: str, scenario: Callable[[str, Advance], Awaitable[None]]) -> None:
    """Do this, and again with another queue where this machine took so long that leases may really have ended."""
    for attempt in count(1):
        began, passed = time.monotonic(), 0.0

        def advance(seconds: float) -> None:
            nonlocal passed
            passed += seconds
            driver.advance(seconds)

        try:
            return await scenario(f"{queue}-{attempt}", advance)
        except AssertionError:
            if attempt == 5 or time.monotonic() - began - passed < driver.lease * 0.3:
                raise


def soon() -> float:
    return time.monotonic() + 60


class TransportSuite:
    """The tests. Each uses queues of its own."""

    @pytest.fixture
    def transport(self, driver: TransportDriver) -> Any:
        transport = driver.open()
        yield transport
        transport.close()

    @pytest.fixture
    def queue(self) -> str:
        return f"conformance-{next(_numbers)}"

    @pytest.fixture
    def publish(self, transport: Transport) -> Any:
        publisher: Publisher = transport.publisher()
        yield lambda *batch: publisher.publish(batch, soon())
        publisher.close()

    @pytest.fixture
    def admin(self, transport: Transport) -> Any:
        admin = transport.admin()
        yield admin
        admin.close()

    @pytest.fixture
    def broadcast(self, transport: Transport) -> Any:
        if not transport.capabilities.fanout:
            pytest.skip("no fan-out")
        broadcast = transport.broadcast()
        yield broadcast
        broadcast.close()

    @pytest.fixture
    def consuming(self, transport: Transport) -> Callable[..., Any]:
        """``async with consuming('a', 'b') as consumer``: closed at the end."""

        @contextlib.asynccontextmanager
        async def consuming(*queues: str) -> AsyncIterator[Consumer]:
            consumer = transport.consumer([QueueSpec(name=name) for name in queues], "owner")
            try:
                yield consumer
            finally:
                await consumer.close()

        return consuming

    # ── publishing and receiving ─────────────────────────────────────────────────────────────────────────────

    def test_a_message_arrives_unchanged(self, publish: Any, consuming: Any, queue: str) -> None:
        sent = message(
            queue, bytes(range(256)), eta=None, retries=3, timelimit=[None, 1.5], text="ü\n", nested={"a": [1]}
        )

        async def scenario() -> None:
            async with consuming(queue) as consumer:
                publish(sent)
                (found,) = await receive_all(consumer, 1)
                assert found.envelope.body == sent.envelope.body
                assert found.envelope.headers == sent.envelope.headers
                assert sent.envelope.properties.items() <= found.envelope.properties.items()
                assert found.queue == queue
                assert found.route.routing_key == queue
                assert found.malformed is None
                assert not found.redelivered
                await acknowledge(consumer, [found])
                assert not await consumer.receive(10, 0)

        run(scenario())

    def test_large_and_empty_bodies(self, publish: Any, consuming: Any, queue: str) -> None:
        bodies = [b"", b"x" * 300_000, b"y", b"\0" * 70_000, b"z" * 65_536]

        async def scenario() -> None:
            async with consuming(queue) as consumer:
                publish(*(message(queue, body) for body in bodies))
                found = await receive_all(consumer, len(bodies))
                assert sorted(delivery.envelope.body for delivery in found) == sorted(bodies)
                await acknowledge(consumer, found)

        run(scenario())

    def test_in_order(
        self, driver: TransportDriver, transport: Transport, publish: Any, consuming: Any, queue: str
    ) -> None:
        if not transport.capabilities.ordered:
            pytest.skip("not ordered")

        async def scenario() -> None:
            async with consuming(queue) as consumer:
                publish(*numbered(queue, range(150)))
                for number in range(150, 160):
                    publish(*numbered(queue, [number]))
                assert numbers_of(await receive_all(consumer, 160, at_once=7)) == list(range(160))

        run(scenario())

    def test_never_more_than_asked_for(self, publish: Any, consuming: Any, queue: str) -> None:
        async def scenario() -> None:
            async with consuming(queue) as consumer:
                publish(*numbered(queue, range(10)))
                # fewer are allowed: a broker delivers as it pleases
                assert 1 <= len(await consumer.receive(3, DEADLINE)) <= 3
                assert len(await consumer.receive(1, DEADLINE)) == 1

        run(scenario())

    def test_an_empty_queue_is_waited_for_in_vain(self, consuming: Any, queue: str) -> None:
        async def scenario() -> None:
            async with consuming(queue) as consumer:
                began = time.monotonic()
                assert not await consumer.receive(5, 0.1)
                assert time.monotonic() - began >= 0.09

        run(scenario())

    def test_a_message_ends_the_wait(self, publish: Any, consuming: Any, queue: str) -> None:
        async def scenario() -> None:
            async with consuming(queue) as consumer:
                assert not await consumer.receive(1, 0)
                waiting = asyncio.ensure_future(consumer.receive(1, DEADLINE))
                await asyncio.sleep(0.05)
                await asyncio.to_thread(publish, message(queue))
                assert len(await waiting) == 1

        run(scenario())

    def test_only_from_its_own_queues(self, publish: Any, consuming: Any, queue: str) -> None:
        async def scenario() -> None:
            async with consuming(queue, queue + "-b") as consumer:
                publish(*numbered(queue + "-foreign", [1]), *numbered(queue, [2]), *numbered(queue + "-b", [3]))
                found = await receive_all(consumer, 2)
                assert sorted(numbers_of(found)) == [2, 3]
                assert {delivery.queue for delivery in found} == {queue, queue + "-b"}
                assert not await consumer.receive(1, 0)

        run(scenario())

    def test_a_long_queue_starves_no_other(self, publish: Any, consuming: Any, queue: str) -> None:
        async def scenario() -> None:
            async with consuming(queue, queue + "-b") as consumer:
                publish(*numbered(queue, range(100)), *numbered(queue + "-b", range(100)))
                first = await receive_all(consumer, 20, at_once=5)
                assert {delivery.queue for delivery in first} == {queue, queue + "-b"}

        run(scenario())

    def test_two_consumers_share_without_doubles(self, publish: Any, consuming: Any, queue: str) -> None:
        async def scenario() -> None:
            async with consuming(queue) as one, consuming(queue) as two:
                publish(*numbered(queue, range(200)))
                found: list[int] = []

                async def drain(consumer: Consumer) -> None:
                    while len(found) < 200:
                        deliveries = await consumer.receive(7, 0.1)
                        found.extend(numbers_of(deliveries))
                        await acknowledge(consumer, deliveries)

                await asyncio.gather(drain(one), drain(two))
                assert sorted(found) == list(range(200))

        run(scenario())

    def test_many_threads_publish(self, publish: Any, consuming: Any, queue: str) -> None:
        threads = [
            threading.Thread(target=lambda start=start: [publish(*numbered(queue, [start + n])) for n in range(20)])
            for start in range(0, 160, 20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)

        async def scenario() -> None:
            async with consuming(queue) as consumer:
                found = await receive_all(consumer, 160)
                assert sorted(numbers_of(found)) == list(range(160))
                await acknowledge(consumer, found)

        run(scenario())

    def test_a_cancelled_receive_loses_nothing(self, publish: Any, consuming: Any, queue: str) -> None:
        async def scenario() -> None:
            async with consuming(queue) as consumer:
                await consumer.receive(1, 0.0)  # the queue is there
                for number in range(20):
                    waiting = asyncio.ensure_future(consumer.receive(1, DEADLINE))
                    await asyncio.to_thread(publish, *numbered(queue, [number]))
                    waiting.cancel()
                    found: Sequence[Delivery] = ()
                    with contextlib.suppress(asyncio.CancelledError):
                        found = await waiting
                    if not found:
                        found = await receive_all(consumer, 1)
                    assert numbers_of(found) == [number]
                    await acknowledge(consumer, found)

        run(scenario())

    def test_a_message_too_large_is_refused(
        self, driver: TransportDriver, publish: Any, admin: Any, queue: str
    ) -> None:
        with pytest.raises(PublishRejected):
            publish(message(queue), message(queue, b"x" * (driver.max_bytes + 1)))
        assert admin.depth(queue) == 0

    # ── settling ─────────────────────────────────────────────────────────────────────────────────────────────

    def test_released_messages_come_back_first(
        self, driver: TransportDriver, transport: Transport, publish: Any, consuming: Any, queue: str
    ) -> None:
        async def scenario() -> None:
            async with consuming(queue) as consumer:
                publish(*numbered(queue, range(6)))
                found = await receive_all(consumer, 4)
                await acknowledge(consumer, found[:1])
                assert not await consumer.settle([Settlement(delivery.receipt, RELEASE) for delivery in found[1:]])
                again = await receive_all(consumer, 5)
                assert sorted(numbers_of(again)) == [1, 2, 3, 4, 5]
                if transport.capabilities.ordered and driver.released_come_first:
                    assert numbers_of(again) == [1, 2, 3, 4, 5]
                if transport.capabilities.counts_attempts:
                    assert [delivery.attempt for delivery in again] == [0] * 5

        run(scenario())

    def test_attempts_are_counted_when_told(
        self, transport: Transport, publish: Any, consuming: Any, queue: str
    ) -> None:
        if not transport.capabilities.counts_attempts:
            pytest.skip("does not count attempts")

        async def scenario() -> None:
            async with consuming(queue) as consumer:
                publish(message(queue))
                for attempt in range(3):
                    (found,) = await receive_all(consumer, 1)
                    assert found.attempt == attempt
                    assert found.redelivered is (attempt > 0)
                    assert "x-celeriac-attempts" not in found.envelope.headers
                    assert not await consumer.settle([Settlement(found.receipt, RELEASE_COUNTED)])

        run(scenario())

    def test_settled_twice_is_lost(self, publish: Any, consuming: Any, queue: str) -> None:
        async def scenario() -> None:
            async with consuming(queue) as consumer:
                publish(*numbered(queue, range(3)))
                found = await receive_all(consumer, 3)
                await acknowledge(consumer, found[:1])
                lost = await consumer.settle([Settlement(delivery.receipt, ACK) for delivery in found])
                assert list(lost) == [found[0].receipt]
                assert not await consumer.receive(1, 0)
                for verdict in (RELEASE, Park(until=0.0), Bury(reason="no")):
                    assert list(await consumer.settle([Settlement(found[1].receipt, verdict)])) == [found[1].receipt]
                assert not await consumer.receive(1, 0)

        run(scenario())

    def test_closing_gives_back_what_is_held(self, publish: Any, consuming: Any, queue: str) -> None:
        async def scenario() -> None:
            async with consuming(queue) as first:
                publish(*numbered(queue, range(5)))
                found = await receive_all(first, 5)
                await acknowledge(first, found[:2])
            await first.close()  # idempotent
            async with consuming(queue) as second:
                assert sorted(numbers_of(await receive_all(second, 3))) == [2, 3, 4]

        run(scenario())

    def test_buried_messages_do_not_come_back(self, publish: Any, consuming: Any, admin: Any, queue: str) -> None:
        async def scenario() -> None:
            async with consuming(queue) as consumer:
                publish(*numbered(queue, range(3)))
                found = await receive_all(consumer, 3)
                dead, unread = Bury(reason="too often", worker="w"), Bury(reason="unreadable", quarantine=True)
                verdicts: list[Verdict] = [dead, unread, ACK]
                batch = [Settlement(one.receipt, verdict) for one, verdict in zip(found, verdicts, strict=True)]
                assert not await consumer.settle(batch)
                assert not await consumer.receive(3, 0)
                assert admin.depth(queue) == 0

        run(scenario())

    # ── leases ───────────────────────────────────────────────────────────────────────────────────────────────

    def test_an_expired_lease_frees_the_message(
        self, driver: TransportDriver, transport: Transport, publish: Any, consuming: Any, queue: str
    ) -> None:
        if not transport.capabilities.leases:
            pytest.skip("no leases")

        async def scenario(queue: str, advance: Advance) -> None:
            async with consuming(queue) as gone, consuming(queue) as heir:
                publish(*numbered(queue, range(4)))
                held = await receive_all(gone, 2)
                if driver.cut_off is not None:
                    driver.cut_off(gone)
                else:
                    advance(driver.lease + 0.5)
                found = await receive_all(heir, 4)
                assert sorted(numbers_of(found)) == [0, 1, 2, 3]
                if transport.capabilities.ordered:
                    assert numbers_of(found) == [0, 1, 2, 3]
                if transport.capabilities.counts_attempts and driver.counts_lost_holders:
                    assert {int(one.envelope.body): one.attempt for one in found} == {0: 1, 1: 1, 2: 0, 3: 0}
                assert {int(one.envelope.body) for one in found if one.redelivered} >= {0, 1}
                # the late one may neither acknowledge nor renew nor give back what is the heir's now
                receipts = [delivery.receipt for delivery in held]
                assert list(await gone.renew(receipts)) == receipts
                assert list(await gone.settle([Settlement(receipt, ACK) for receipt in receipts])) == receipts
                assert list(await gone.settle([Settlement(receipts[0], RELEASE)])) == receipts[:1]
                assert not await heir.renew([delivery.receipt for delivery in found])
                await acknowledge(heir, found)

        run(in_time(driver, queue, scenario))

    def test_renewing_keeps_the_lease(
        self, driver: TransportDriver, transport: Transport, publish: Any, consuming: Any, queue: str
    ) -> None:
        if not transport.capabilities.leases:
            pytest.skip("no leases")
        if driver.cut_off is not None:
            pytest.skip("leases do not run out by themselves")

        async def scenario(queue: str, advance: Advance) -> None:
            async with consuming(queue) as consumer, consuming(queue) as other:
                publish(*numbered(queue, range(2)))
                kept, dropped = await receive_all(consumer, 2)
                for _ in range(3):
                    advance(driver.lease * 0.6)
                    assert not await consumer.renew([kept.receipt])
                (found,) = await receive_all(other, 1)
                assert found.envelope.body == dropped.envelope.body
                assert not await other.receive(1, 0)
                await acknowledge(consumer, [kept])
                advance(driver.lease * 0.6)
                await acknowledge(other, [found])
                advance(driver.lease * 2)
                assert not await consumer.receive(1, 0)

        run(in_time(driver, queue, scenario))

    # ── time and priority ────────────────────────────────────────────────────────────────────────────────────

    def test_a_delayed_message_waits_for_its_time(
        self, driver: TransportDriver, transport: Transport, publish: Any, consuming: Any, admin: Any, queue: str
    ) -> None:
        if not transport.capabilities.delays:
            pytest.skip("no delays")

        minute = driver.minute

        async def scenario() -> None:
            async with consuming(queue) as consumer:
                # a broker may keep delays only for consumers that it knows
                assert not await consumer.receive(1, 0)
                now = driver.time()
                due = {1: now - minute, 2: now + minute, 3: now + 2 * minute}
                publish(*(one for number in (3, 2, 1) for one in numbered(queue, [number], not_before=due[number])))
                found: list[int] = []

                async def receive(wait: float) -> None:
                    deliveries = await consumer.receive(1, wait)
                    for number in numbers_of(deliveries):
                        assert driver.time() >= due[number] - transport.capabilities.delay_resolution
                        found.append(number)
                    await acknowledge(consumer, deliveries)

                for number, later in ((1, 1.02 * minute), (2, minute), (3, 0.0)):
                    while number not in found:
                        await receive(0.5)
                    await receive(0)
                    if driver.depth_counts_delayed:
                        assert admin.depth(queue) == 3 - len(found)
                    driver.advance(later)
                assert found == [1, 2, 3]

        run(scenario())

    def test_a_wait_ends_when_a_delay_does(
        self, driver: TransportDriver, transport: Transport, publish: Any, consuming: Any, queue: str
    ) -> None:
        if not transport.capabilities.delays:
            pytest.skip("no delays")

        async def scenario() -> None:
            async with consuming(queue) as consumer:
                assert not await consumer.receive(1, 0)
                due = driver.time() + 0.3
                publish(message(queue, not_before=due))
                (found,) = await consumer.receive(1, DEADLINE)
                assert driver.time() - due >= -transport.capabilities.delay_resolution
                await acknowledge(consumer, [found])

        run(scenario())

    def test_a_parked_message_waits_for_its_time(
        self, driver: TransportDriver, transport: Transport, publish: Any, consuming: Any, queue: str
    ) -> None:
        if not transport.capabilities.delays:
            pytest.skip("no delays")

        async def scenario() -> None:
            async with consuming(queue) as consumer:
                publish(message(queue))
                (found,) = await receive_all(consumer, 1)
                due = driver.time() + driver.minute
                parked = Park(until=due, count_attempt=True)
                assert not await consumer.settle([Settlement(found.receipt, parked)])
                early = await consumer.receive(1, 0)
                assert not early or driver.time() >= due - transport.capabilities.delay_resolution
                driver.advance(1.02 * driver.minute)
                (again,) = early or await receive_all(consumer, 1)
                if transport.capabilities.counts_attempts:
                    assert again.attempt == 1

        run(scenario())

    #: minutes that the clock of who parks is ahead, and whether only the distance counts
    wrong_clocks: ClassVar[Sequence[tuple[int, bool]]] = ((-10, False),)

    def test_who_parks_by_a_wrong_clock_gets_nothing_back_before_its_time(
        self, driver: TransportDriver, transport: Transport, publish: Any, queue: str
    ) -> None:
        if not transport.capabilities.delays:
            pytest.skip("no delays")
        minute = driver.minute

        async def scenario(ahead: float, relative: bool) -> None:
            wrong = driver.open_ahead(ahead)
            consumer = wrong.consumer([QueueSpec(name=queue)], "owner")
            publish(message(queue))
            (found,) = await receive_all(consumer, 1)
            due = driver.time() + minute
            assert not await consumer.settle([Settlement(found.receipt, Park(until=due + ahead, relative=relative))])
            early = await consumer.receive(1, 0)
            assert not early or driver.time() >= due - transport.capabilities.delay_resolution
            driver.advance(1.02 * minute)
            await acknowledge(consumer, early or await receive_all(consumer, 1))
            await consumer.close()
            wrong.close()

        for minutes, relative in self.wrong_clocks:
            run(scenario(minutes * minute, relative))

    def test_the_more_urgent_goes_first(
        self, driver: TransportDriver, transport: Transport, publish: Any, consuming: Any, admin: Any, queue: str
    ) -> None:
        if transport.capabilities.priorities < 4:
            pytest.skip("no priorities")
        levels = [0, 3, 6, 9]
        if not transport.capabilities.highest_priority_first:
            levels.reverse()
        admin.declare([QueueSpec(name=queue, max_priority=driver.max_priority)])

        async def scenario() -> None:
            async with consuming(queue) as consumer:
                for place, level in enumerate(levels):
                    publish(*numbered(queue, [place * 10, place * 10 + 1], priority=level))
                assert numbers_of(await receive_all(consumer, 8, at_once=3)) == [30, 31, 20, 21, 10, 11, 0, 1]

        run(scenario())

    # ── queues and exchanges ─────────────────────────────────────────────────────────────────────────────────

    def test_queues_are_looked_after(self, publish: Any, admin: Any, consuming: Any, queue: str) -> None:
        async def scenario() -> None:
            admin.declare([QueueSpec(name=queue)])
            admin.declare([QueueSpec(name=queue)])
            assert queue in admin.queues()
            publish(*numbered(queue, range(7)))
            assert admin.depth(queue) == 7
            async with consuming(queue) as consumer:
                found = await receive_all(consumer, 2)
                assert admin.depth(queue) == 5
                assert admin.purge(queue) == 5
                assert admin.depth(queue) == 0
                assert not await consumer.receive(1, 0)
                await acknowledge(consumer, found)
            assert admin.purge(queue) == 0
            admin.delete(queue)
            assert queue not in admin.queues()

        run(scenario())

    def test_a_consumer_is_given_other_queues(self, publish: Any, consuming: Any, queue: str) -> None:
        async def scenario() -> None:
            async with consuming(queue) as consumer:
                if not isinstance(consumer, Redirects):
                    pytest.skip("its consumers keep their queues")
                publish(message(queue, b"0"))
                [held] = await receive_all(consumer, 1)
                waiting = asyncio.ensure_future(consumer.receive(1, DEADLINE))
                await asyncio.sleep(0)
                if not await consumer.redirect([QueueSpec(name=queue), QueueSpec(name=queue + "-b")]):
                    waiting.cancel()
                    pytest.skip("its consumers keep their queues")
                publish(message(queue + "-b", b"1"))
                found = [*await waiting] or await receive_all(consumer, 1)
                assert numbers_of(found) == [1]
                assert await consumer.redirect([QueueSpec(name=queue + "-b")])
                publish(message(queue, b"2"), message(queue + "-b", b"3"))
                found.extend(await receive_all(consumer, 1))
                assert numbers_of(found) == [1, 3]
                assert not await consumer.receive(1, 0)
                await acknowledge(consumer, [held, *found])  # what was held stayed held
                publish(message(queue + "-b", b"4"))
                assert await consumer.redirect([])
                assert not await consumer.receive(1, 0.05)
                assert await consumer.redirect([QueueSpec(name=queue + "-b")])
                again = await receive_all(consumer, 1)
                assert numbers_of(again) == [4]
                await acknowledge(consumer, again)

        run(scenario())

    def test_exchanges_lead_to_bound_queues(self, publish: Any, admin: Any, queue: str) -> None:
        def spec(name: str, kind: str, key: str) -> QueueSpec:
            return QueueSpec(name=f"{queue}-{name}", exchange=f"{queue}-{kind}", exchange_type=kind, routing_key=key)

        admin.declare([
            spec("direct", "direct", "a.b"), spec("one", "topic", "a.*"), spec("all", "topic", "a.#"),
            spec("fan1", "fanout", ""), spec("fan2", "fanout", "x"),
        ])  # fmt: skip

        def reach(kind: str, key: str) -> set[str]:
            before = {name: admin.depth(f"{queue}-{name}") for name in ("direct", "one", "all", "fan1", "fan2")}
            publish(message("", route=Route(f"{queue}-{kind}", key, kind)))
            return {name for name, depth in before.items() if admin.depth(f"{queue}-{name}") == depth + 1}

        assert reach("direct", "a.b") == {"direct"}
        assert reach("topic", "a.b") == {"one", "all"}
        assert reach("topic", "a") == {"all"}
        assert reach("topic", "a.b.c") == {"all"}
        assert reach("fanout", "whatever") == {"fan1", "fan2"}
        for kind, key in (("direct", "a.c"), ("topic", "b"), ("unknown", "a")):
            with pytest.raises(Unroutable):
                publish(*numbered(f"{queue}-direct", [1]), message("", route=Route(f"{queue}-{kind}", key, kind)))
        assert admin.depth(f"{queue}-direct") == 1  # an unroutable message takes its batch with it

    def test_a_new_transport_finds_the_old_messages(
        self, driver: TransportDriver, transport: Transport, publish: Any, queue: str
    ) -> None:
        if not transport.capabilities.survives_restart:
            pytest.skip("does not survive a restart")
        publish(*numbered(queue, range(3)))
        transport.close()

        async def scenario() -> None:
            later = driver.open()
            consumer = later.consumer([QueueSpec(name=queue)], "later")
            found = await receive_all(consumer, 3)
            assert sorted(numbers_of(found)) == [0, 1, 2]
            await acknowledge(consumer, found)
            await consumer.close()
            later.close()

        run(scenario())

    def test_fan_out_reaches_every_subscriber(self, transport: Transport, broadcast: Broadcast, queue: str) -> None:
        broadcast.publish(casts(queue, "fanout", ["", ""]), soon())
        one = broadcast.subscribe(ear(queue, "fanout", "one"))
        other = transport.broadcast()
        two = other.subscribe(ear(queue, "fanout", "two"))
        stranger = other.subscribe(ear(queue + "-b", "fanout", "three"))
        batch = casts(queue, "fanout", ["", "", ""])
        other.publish(batch, soon())
        for subscription in (one, two):
            heard = hear(subscription, 3)
            assert [found.envelope.body for found in heard] == [sent.envelope.body for sent in batch]
            for found, sent in zip(heard, batch, strict=True):
                assert found.envelope.headers == sent.envelope.headers
                assert sent.envelope.properties.items() <= found.envelope.properties.items()
                assert found.route.exchange == queue
            assert not subscription.receive(10, 0)
        assert not stranger.receive(10, 0)
        for subscription in (one, two, stranger):
            subscription.close()
        other.close()

    def test_topics_choose_what_is_heard(self, broadcast: Broadcast, queue: str) -> None:
        everything = broadcast.subscribe(ear(queue, "topic", "all", "#"))
        some = broadcast.subscribe(ear(queue, "topic", "some"), ["worker.*", "task.failed"])
        keys = ["worker.online", "task.multi", "task.failed", "worker.elect.ack", "worker.offline"]
        broadcast.publish(casts(queue, "topic", keys), soon())
        assert [found.route.routing_key for found in hear(everything, 5)] == keys
        assert [found.route.routing_key for found in hear(some, 3)] == [
            "worker.online",
            "task.failed",
            "worker.offline",
        ]
        assert not some.receive(10, 0)
        everything.close()
        some.close()

    def test_replies_reach_who_asked(self, transport: Transport, broadcast: Broadcast, queue: str) -> None:
        mine = broadcast.subscribe(ear(queue, "direct", "mine", "me"))
        yours = broadcast.subscribe(ear(queue, "direct", "yours", "you"))
        answering = transport.broadcast()
        answering.publish(casts(queue, "direct", ["me", "you", "nobody", "me"]), soon())
        assert [found.envelope.body for found in hear(mine, 2)] == [b"0", b"3"]
        assert [found.envelope.body for found in hear(yours, 1)] == [b"1"]
        assert not mine.receive(10, 0)
        mine.close()
        yours.close()
        answering.close()

    def test_a_subscription_hands_out_what_fits(self, broadcast: Broadcast, queue: str) -> None:
        subscription = broadcast.subscribe(ear(queue, "fanout", "one"))
        broadcast.publish(casts(queue, "fanout", [""] * 2500), soon())
        found = [len(hear(subscription, 2)), *(len(hear(subscription, limit)) for limit in (1000, 1498))]
        assert found == [2, 1000, 1498]
        assert not subscription.receive(10, 0)
        subscription.close()

    def test_a_wait_for_broadcasts_ends(self, transport: Transport, broadcast: Broadcast, queue: str) -> None:
        subscription = broadcast.subscribe(ear(queue, "fanout", "one"))
        before = time.monotonic()
        assert not subscription.receive(1, 0.05)
        assert time.monotonic() - before > 0.04

        heard: Queue[Sequence[Heard]] = Queue()
        listening = threading.Thread(target=lambda: heard.put(subscription.receive(1, DEADLINE)), daemon=True)
        listening.start()
        other = transport.broadcast()
        other.publish(casts(queue, "fanout", [""]), soon())
        assert len(heard.get(timeout=DEADLINE / 2)) == 1

        waiting = threading.Thread(target=lambda: heard.put(subscription.receive(1, DEADLINE)), daemon=True)
        waiting.start()
        interrupting = time.monotonic() + DEADLINE / 2
        while heard.empty() and time.monotonic() < interrupting:  # an interrupt before the wait may end nothing
            subscription.interrupt()
            waiting.join(0.01)
        assert list(heard.get(timeout=DEADLINE / 2)) == []
        subscription.close()
        other.close()

    def test_a_closed_subscription_is_gone(self, broadcast: Broadcast, queue: str) -> None:
        subscription = broadcast.subscribe(ear(queue, "fanout", "one"))
        if isinstance(broadcast, Audience):
            assert broadcast.anybody(queue)
        subscription.close()
        subscription.close()
        broadcast.publish(casts(queue, "fanout", [""]), soon())
        if isinstance(broadcast, Audience):
            assert not broadcast.anybody(queue)
        again = broadcast.subscribe(ear(queue, "fanout", "again"))
        assert not again.receive(10, 0)
        broadcast.publish(casts(queue, "fanout", [""]), soon())
        assert len(hear(again, 1)) == 1
        again.close()

    # ── one transaction for everything ───────────────────────────────────────────────────────────────────────

    def test_a_commit_does_all_of_it(
        self, driver: TransportDriver, publish: Any, consuming: Any, admin: Any, queue: str
    ) -> None:
        async def scenario() -> None:
            async with consuming(queue) as consumer:
                commit = committing(consumer)
                publish(*numbered(queue, range(100)))
                found = await receive_all(consumer, 100)
                results = [ResultRecord(f"{queue}-{n}", "SUCCESS", b"%d" % n, expires_in=60.0) for n in range(100)]
                verdicts = [Settlement(delivery.receipt, ACK) for delivery in found]
                assert not await commit(results, numbered(queue + "-next", range(70)), verdicts)
                assert admin.depth(queue + "-next") == 70
                for n in (0, 99):
                    record = driver.read_result(f"{queue}-{n}")
                    assert record is not None
                    assert record.payload == b"%d" % n
                assert not await consumer.receive(1, 0)

        run(scenario())

    def test_a_lost_receipt_undoes_nothing_else(
        self, driver: TransportDriver, publish: Any, consuming: Any, queue: str
    ) -> None:
        async def scenario() -> None:
            async with consuming(queue) as consumer:
                commit = committing(consumer)
                publish(*numbered(queue, range(2)))
                one, two = await receive_all(consumer, 2)
                await acknowledge(consumer, [one])
                record = stored(queue, "FAILURE")
                verdicts = [Settlement(one.receipt, ACK), Settlement(two.receipt, ACK)]
                assert list(await commit([record], (), verdicts)) == [one.receipt]
                assert driver.read_result(queue) is not None
                assert list(await consumer.settle([Settlement(two.receipt, ACK)])) == [two.receipt]
                # a stored success stays, and that is no lost receipt
                await commit([stored(queue, "SUCCESS")], (), ())
                assert not await commit([stored(queue, "FAILURE")], (), ())
                found = driver.read_result(queue)
                assert found is not None
                assert found.status == "SUCCESS"

        run(scenario())

    def test_a_refused_send_undoes_the_commit(
        self, driver: TransportDriver, publish: Any, consuming: Any, queue: str
    ) -> None:
        async def scenario() -> None:
            async with consuming(queue) as consumer:
                commit = committing(consumer)
                publish(message(queue))
                (found,) = await receive_all(consumer, 1)
                record = ResultRecord(queue, "SUCCESS", b"x")
                verdict = Settlement(found.receipt, ACK)
                for refused in (
                    message("", route=Route("nowhere", "k")),
                    message(queue, b"x" * (driver.max_bytes + 1)),
                ):
                    with pytest.raises(PublishRejected):
                        await commit([record], [refused], [verdict])
                assert driver.read_result(queue) is None
                assert not await commit([record], (), [verdict])

        run(scenario())
