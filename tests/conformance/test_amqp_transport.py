"""The RabbitMQ broker against the suite of all transports, on a real server, with a virtual host for every test."""

from __future__ import annotations

import asyncio
import time
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from drivers import Numbers

from celeriac.clock import SYSTEM_CLOCK
from celeriac.testing.conformance.clock import WrongClock
from celeriac.testing.conformance.transport import TransportDriver, TransportSuite
from celeriac.transports.amqp.transport import AmqpTransport
from celeriac.transports.base import QueueSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from celeriac.testing.servers import RabbitServer
    from celeriac.transports.amqp.consumer import AmqpConsumer
    from celeriac.transports.base import Consumer

_numbers = count(1)


class RabbitNumbers(Numbers):
    broker_transport_options: ClassVar[Mapping[str, Any]] = {}
    broker_use_ssl = False
    broker_connection_timeout = 30.0
    broker_publish_timeout = 60.0
    broker_heartbeat = 60.0
    broker_login_method = None
    broker_failover_strategy = None
    broker_native_delayed_delivery_queue_type = "classic"
    task_crash_budget = 3


@pytest.fixture
def server(rabbit_server: RabbitServer) -> RabbitServer:
    return rabbit_server


@pytest.fixture
def url(server: RabbitServer) -> Iterator[str]:
    name = f"conformance-{next(_numbers)}"
    yield server.add_vhost(name)
    server.remove_vhost(name)


def cut_off(consumer: Consumer) -> None:
    """As when its machine is gone: no word is said."""
    connection: Any = consumer
    connection._connection._transport.abort()


def rabbit_driver(
    url: str, settings: Any, kind: type[AmqpTransport] = AmqpTransport,
    queue_of: Callable[[str], QueueSpec] | None = None,
) -> TransportDriver:  # fmt: skip
    def open_transport(ahead: float = 0.0) -> AmqpTransport:
        transport = kind(url, settings, WrongClock(SYSTEM_CLOCK, ahead))
        if queue_of is not None:
            transport.expect(queue_of)
        return transport

    return TransportDriver(
        name="amqp", open=open_transport, open_ahead=open_transport, advance=time.sleep, time=time.time,
        lease=settings.broker_lease, minute=2.0, max_bytes=settings.broker_max_message_bytes, cut_off=cut_off,
        counts_lost_holders=False, released_come_first=False, depth_counts_delayed=False, max_priority=10,
    )  # fmt: skip


class TestRabbit(TransportSuite):
    @pytest.fixture
    def driver(self, url: str) -> TransportDriver:
        return rabbit_driver(url, RabbitNumbers)


class QuorumTransport(AmqpTransport):
    """Its consumers, and through ``expect`` its publishers, declare quorum queues."""

    def consumer(self, queues: Sequence[QueueSpec], owner: str) -> AmqpConsumer:
        return super().consumer([quorum(spec.name) for spec in queues], owner)


def quorum(name: str) -> QueueSpec:
    return QueueSpec(name=name, arguments={"x-queue-type": "quorum"})


class QuorumNumbers(RabbitNumbers):
    broker_native_delayed_delivery_queue_type = "quorum"


class TestRabbitQuorum(TransportSuite):
    @pytest.fixture
    def driver(self, url: str) -> TransportDriver:
        return rabbit_driver(url, QuorumNumbers, QuorumTransport, quorum)

    def test_the_more_urgent_goes_first(self) -> None:  # type: ignore[override]
        """RabbitMQ 3's quorum queues have no priorities."""

    def test_consuming_while_somebody_declares_the_queue(self, url: str) -> None:
        """RabbitMQ ends the connection of some that come too early, with INTERNAL_ERROR; they come again."""
        transport = QuorumTransport(url, QuorumNumbers, SYSTEM_CLOCK)  # type: ignore[arg-type]

        async def come_together(spec: QueueSpec) -> None:
            admin = transport.admin()
            consumer = transport.consumer([spec], "early")
            try:
                await asyncio.gather(asyncio.to_thread(admin.declare, [spec]), consumer.receive(1, 0.0))
            finally:
                await consumer.close()

        for number in range(25):
            asyncio.run(come_together(quorum(f"young-{number}")))
        transport.close()
