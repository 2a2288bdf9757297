"""The RabbitMQ driver against a real server that is idle, full, short of memory, or changes under it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest

from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import (
    BrokerFull,
    OperationalError,
    PublishRejected,
    PublishUnknown,
    QueueNotFound,
    Unroutable,
)
from celeriac.settings import Settings
from celeriac.transports.amqp import delays
from celeriac.transports.amqp.transport import AmqpTransport
from celeriac.transports.base import ACK, Bury, Envelope, Outgoing, QueueSpec, Route, Settlement

if TYPE_CHECKING:
    from celeriac.testing.servers import RabbitServer

pytestmark = pytest.mark.system

T = TypeVar("T")
_numbers = count(1)


@pytest.fixture
def server(rabbit_server: RabbitServer) -> RabbitServer:
    return rabbit_server


@pytest.fixture
def vhost(server: RabbitServer) -> Iterator[str]:
    name = f"driver-{next(_numbers)}"
    server.add_vhost(name)
    yield name
    server.remove_vhost(name)


Open = Callable[..., AmqpTransport]


@pytest.fixture
def open_transport(server: RabbitServer, vhost: str) -> Iterator[Open]:
    opened: list[AmqpTransport] = []

    def open_one(**settings: Any) -> AmqpTransport:
        opened.append(AmqpTransport(server.url(vhost), cast("Any", Settings(**settings)), SYSTEM_CLOCK))
        return opened[-1]

    yield open_one
    for transport in opened:
        transport.close()


def message(queue: str, body: bytes = b"{}", route: Route | None = None, **more: Any) -> Outgoing:
    return Outgoing(
        Envelope(body, {"id": "i", "task": "t"}, {"correlation_id": "i"}), route or Route("", queue), **more
    )


def within(seconds: float) -> float:
    return time.monotonic() + seconds


def run(work: Awaitable[T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(200):
            return await work

    return asyncio.run(bounded())


def until(holds: Callable[[], object], timeout: float = 90.0) -> None:
    ends = within(timeout)
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)


# ── publishing ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_connection_closed_while_idle_is_noticed_before_it_is_used(
    server: RabbitServer, open_transport: Open
) -> None:
    transport = open_transport()
    publisher = transport.publisher()
    publisher.publish([message("q")], within(60))
    line = transport._publishing._line
    assert line is not None
    until(lambda: server.close_connections())
    wire = line.connection._wire
    until(lambda: wire.wait(0))  # what the broker says has arrived
    for _ in range(3):  # each of them would be an error if the connection were used as it is
        publisher.publish([message("q")], within(60))
        time.sleep(0.11)
    assert transport._publishing._line is not line
    assert transport.admin().depth("q") == 4


def test_a_full_queue_refuses(open_transport: Open) -> None:
    transport = open_transport()
    transport.admin().declare([QueueSpec(name="q", arguments={"x-max-length": 2, "x-overflow": "reject-publish"})])
    publisher = transport.publisher()
    publisher.publish([message("q"), message("q")], within(60))
    until(lambda: transport.admin().depth("q") == 2)
    with pytest.raises(PublishRejected):
        publisher.publish([message("q")], within(60))
    with pytest.raises(PublishUnknown, match="1 of 2"):
        publisher.publish([message("q"), message("r")], within(60))


def test_a_queue_deleted_meanwhile_is_declared_again(open_transport: Open) -> None:
    transport = open_transport()
    publisher = transport.publisher()
    publisher.publish([message("q")], within(60))
    transport.admin().delete("q")
    publisher.publish([message("q"), message("r")], within(60))
    assert transport.admin().depth("q") == 1
    assert transport.admin().depth("r") == 1


def test_a_delayed_message_finds_its_queue_although_all_was_deleted(
    open_transport: Open, server: RabbitServer, vhost: str
) -> None:
    transport = open_transport(broker_native_delayed_delivery_queue_type="classic")
    publisher, admin = transport.publisher(), transport.admin()
    publisher.publish([message("q", not_before=time.time() + 1.9)], within(60))
    until(lambda: admin.depth("q") == 1)
    for queue in ("q", *(f"celery_delayed_{level}" for level in range(delays.LEVELS))):
        admin.delete(queue)
    for level in range(delays.LEVELS):
        server.api("DELETE", f"/exchanges/{vhost}/celery_delayed_{level}")
    with contextlib.suppress(PublishUnknown):  # the sender tries that again
        publisher.publish([message("q", not_before=time.time() + 1.9)], within(60))
    publisher.publish([message("q", not_before=time.time() + 1.9)], within(60))
    until(lambda: admin.depth("q") == 1)


def test_what_leads_nowhere_is_told(open_transport: Open) -> None:
    transport = open_transport()
    publisher = transport.publisher()
    for route in (Route("nowhere", "k"), Route("amq.direct", "k"), Route("", "")):
        with pytest.raises(Unroutable):
            publisher.publish([message("q", route=route)], within(60))


def test_a_queue_that_nobody_may_create_is_not_created(open_transport: Open) -> None:
    transport = open_transport()

    def never(name: str) -> QueueSpec:
        raise QueueNotFound(name)

    transport.expect(never)
    with pytest.raises(QueueNotFound, match="task_create_missing_queues"):
        transport.publisher().publish([message("q")], within(60))


def test_what_cannot_be_written_is_refused_whole(open_transport: Open) -> None:
    transport = open_transport()
    odd = message("q")
    odd.envelope.headers["odd"] = object()
    with pytest.raises(PublishRejected):
        transport.publisher().publish([message("q"), odd], within(60))
    assert transport.admin().depth("q") == 0


def test_confirms_can_be_switched_off(open_transport: Open) -> None:
    transport = open_transport(broker_transport_options={"confirm_publish": False})
    publisher = transport.publisher()
    for _ in range(3):
        publisher.publish([message("q")] * 100, within(60))
    until(lambda: transport.admin().depth("q") == 300)


def test_a_forked_child_publishes_over_its_own_connection(open_transport: Open) -> None:
    transport = open_transport()
    publisher = transport.publisher()
    publisher.publish([message("q")], within(60))
    with transport._publishing._lock:  # as another thread may hold it at the moment of the fork
        child = os.fork()
        if child == 0:
            status = 1
            try:
                publisher.publish([message("q")], within(60))
                status = 0
            finally:
                os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    publisher.publish([message("q")], within(60))
    assert transport.admin().depth("q") == 3


def test_an_alarm_is_told_and_passes(server: RabbitServer, open_transport: Open) -> None:
    """The first message may be stored when the alarm is over; what comes while it is known is not even sent."""
    transport = open_transport()
    publisher = transport.publisher()
    publisher.publish([message("q")] * 5, within(60))

    async def drains() -> None:
        """Acknowledgements have a connection of their own."""
        consumer = transport.consumer([QueueSpec(name="q")], "w")
        found: list[Any] = []
        while len(found) < 5:
            found.extend(await consumer.receive(10, 1.0))
        assert not await consumer.settle([Settlement(one.receipt, ACK) for one in found[:5]])
        await consumer.close()

    server.control("set_vm_memory_high_watermark", "0.000001")
    try:
        with pytest.raises((PublishUnknown, BrokerFull)):
            publisher.publish([message("q")], within(1))
        began = time.monotonic()
        with pytest.raises(BrokerFull, match="memory or disk"):
            publisher.publish([message("q")], within(1))
        assert time.monotonic() - began < 30
        with pytest.raises(BrokerFull):
            publisher.publish([message("new")], within(0.5))
        run(drains())
        waiting = threading.Thread(target=lambda: publisher.publish([message("r")], within(60)))
        waiting.start()
    finally:
        server.control("set_vm_memory_high_watermark", "0.6")
    waiting.join(60)
    assert not waiting.is_alive()
    assert transport.admin().depth("r") == 1


def test_many_threads_share_the_waiting(open_transport: Open) -> None:
    transport = open_transport()
    publisher = transport.publisher()
    errors: list[BaseException] = []

    def send(name: str) -> None:
        try:
            for _ in range(30):
                publisher.publish([message(name)], within(60))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=send, args=(f"q{number % 3}",)) for number in range(12)]
    for thread in threads:
        thread.start()
    with pytest.raises(Unroutable):
        publisher.publish([message("", route=Route("nowhere", "k"))], within(60))
    for thread in threads:
        thread.join(60)
    assert not errors
    assert [transport.admin().depth(f"q{number}") for number in range(3)] == [120] * 3


# ── consuming ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_idle_workers_get_what_a_busy_one_does_not_ask_for(open_transport: Open) -> None:
    transport = open_transport()
    transport.publisher().publish([message("q")] * 300, within(60))

    async def scenario() -> None:
        busy = transport.consumer([QueueSpec(name="q")], "busy")
        held = list(await busy.receive(200, 60.0))
        while len(held) < 200:
            held.extend(await busy.receive(200 - len(held), 60.0))
        assert not await busy.settle([Settlement(one.receipt, ACK) for one in held])
        # 100 more lie at the busy one now, who asks for nothing
        other = transport.consumer([QueueSpec(name="q")], "other")
        found: list[Any] = []
        while len(found) < 99:
            found.extend(await other.receive(100, 1.0))
        await busy.close()
        await other.close()

    run(scenario())


def test_the_set_aside_can_be_seen_replayed_and_discarded(open_transport: Open) -> None:
    transport = open_transport()
    body = bytes(range(256))
    transport.publisher().publish([message("q", body), message("q", b"2"), message("q", b"3")], within(60))

    async def bury() -> None:
        consumer = transport.consumer([QueueSpec(name="q", arguments={"x-queue-type": "quorum"})], "w")
        found: list[Any] = []
        while len(found) < 3:
            found.extend(await consumer.receive(3, 60.0))
        verdicts = [Bury("unreadable", quarantine=True, worker="w"), Bury("too often"), Bury("too often")]
        batch = [Settlement(one.receipt, verdict) for one, verdict in zip(found, verdicts, strict=True)]
        assert not await consumer.settle(batch)
        await consumer.close()

    run(bury())
    admin = transport.admin()
    counts = admin.counts("q")
    assert (counts.waiting, counts.dead, counts.quarantined) == (0, 2, 1)
    buried = admin.buried(["q", "nothing-here"], 10)
    assert {(one.raw, one.reason, one.quarantined) for one in buried} == {
        (body, "unreadable", True), (b"2", "too often", False), (b"3", "too often", False),
    }  # fmt: skip
    assert all(one.envelope is not None and one.envelope.headers == {"id": "i", "task": "t"} for one in buried)
    assert len(admin.buried(["q"], 1)) == 1
    unreadable = [one for one in buried if one.quarantined]
    assert admin.replay(unreadable) == 1
    assert admin.replay(unreadable) == 0
    assert admin.discard([one for one in buried if one.raw == b"2"]) == 1
    assert [one.raw for one in admin.buried(["q"], 10)] == [b"3"]

    async def again() -> None:
        consumer = transport.consumer([QueueSpec(name="q")], "w")
        (found,) = await consumer.receive(10, 60.0)
        assert found.envelope.body == body
        assert found.envelope.headers == {"id": "i", "task": "t"}
        await consumer.close()

    run(again())


def test_a_message_held_too_long_comes_again(
    server: RabbitServer, open_transport: Open, caplog: pytest.LogCaptureFixture
) -> None:
    server.control("eval", "application:set_env(rabbit, consumer_timeout, 1000), application:set_env(rabbit, "
                   "channel_tick_interval, 300).")  # fmt: skip
    try:
        transport = open_transport()
        transport.publisher().publish([message("long"), message("other")], within(60))

        async def scenario() -> None:
            consumer = transport.consumer([QueueSpec(name="long"), QueueSpec(name="other")], "w")
            held: dict[str, Any] = {}
            while len(held) < 2:
                for one in await consumer.receive(10, 1.0):
                    held[one.queue] = one
            assert not await consumer.settle([Settlement(held["other"].receipt, ACK)])
            (again,) = await consumer.receive(1, 90.0)
            assert again.redelivered
            assert again.queue == "long"
            assert list(await consumer.renew([held["long"].receipt])) == [held["long"].receipt]
            assert not await consumer.settle([Settlement(again.receipt, ACK)])
            await consumer.close()

        run(scenario())
        told = [record.getMessage() for record in caplog.records if "consumer_timeout" in record.getMessage()]
        assert len(told) == 1
        assert "rabbitmq.conf" in told[0]
    finally:
        server.control("eval", "application:set_env(rabbit, consumer_timeout, 1800000), application:set_env(rabbit, "
                       "channel_tick_interval, 60000).")  # fmt: skip


def test_a_hung_broker_is_noticed(server: RabbitServer, open_transport: Open) -> None:
    transport = open_transport(broker_heartbeat=2.0, broker_connection_timeout=4.0)
    publisher = transport.publisher()
    publisher.publish([message("q")], within(60))

    async def scenario() -> None:
        consumer = transport.consumer([QueueSpec(name="q")], "w")
        assert len(await consumer.receive(1, 60.0)) == 1
        server.pause()
        try:
            began = time.monotonic()
            with pytest.raises(OperationalError):
                await consumer.receive(1, 100.0)
            assert time.monotonic() - began < 60
            with pytest.raises(OperationalError):
                await asyncio.to_thread(publisher.publish, [message("q")], within(2))
            with pytest.raises(OperationalError):
                await asyncio.to_thread(publisher.publish, [message("q")], within(2))
            await consumer.close()
        finally:
            server.resume()
        await asyncio.to_thread(publisher.publish, [message("q")], within(60))

    run(scenario())


def test_the_ladder_is_celerys(server: RabbitServer, open_transport: Open, vhost: str) -> None:
    transport = open_transport()
    transport.publisher().publish([message("q", not_before=time.time() + 3600)], within(60))
    queues = {queue["name"]: queue for queue in server.api("GET", f"/queues/{vhost}")}
    for rung in delays.ladder("quorum"):
        assert queues[rung.name]["durable"]
        assert queues[rung.name]["arguments"] == rung.arguments
    bindings = {
        (one["source"], one["destination"], one["destination_type"], one["routing_key"])
        for one in server.api("GET", f"/bindings/{vhost}")
    }
    assert ("celery_delayed_27", "celery_delayed_27", "queue", "1.#") in bindings
    assert ("celery_delayed_27", "celery_delayed_26", "exchange", "0.#") in bindings
    assert ("celery_delayed_0", "celery_delayed_delivery", "exchange", "*." * 27 + "0.#") in bindings
    assert ("celery_delayed_delivery", "q", "queue", "*." * 28 + "q") in bindings


def test_a_fail_over_list_is_followed(server: RabbitServer, vhost: str) -> None:
    url = f"amqp://guest:guest@127.0.0.1:1//;{server.url(vhost)}"
    transport = AmqpTransport(url, cast("Any", Settings()), SYSTEM_CLOCK)
    transport.publisher().publish([message("q")], within(60))

    async def scenario() -> None:
        consumer = transport.consumer([QueueSpec(name="q")], "w")
        assert len(await consumer.receive(1, 60.0)) == 1
        await consumer.close()

    run(scenario())
    transport.close()
