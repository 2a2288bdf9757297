"""A Redis server of one's own for each module, emptied for each test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from tests.on_loop import OnLoop

from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import OperationalError
from celeriac.redis.address import address_of
from celeriac.redis.connect import Link, open_link
from celeriac.testing.conformance.transport import numbered
from celeriac.testing.servers import RedisServer
from celeriac.transports.base import Delivery, Outgoing, QueueSpec
from celeriac.transports.redis.transport import RedisTransport


class Settings:
    """What the driver reads; tests change copies."""

    broker_transport_options: dict[str, Any] = {}  # noqa: RUF012 - replaced, not changed
    broker_use_ssl = False
    broker_connection_timeout = 30.0
    broker_pool_limit = 10
    broker_lease = 30.0
    broker_max_message_bytes = 8 << 20
    task_dead_letter_expires = 3600.0
    result_serializer = "json"
    result_compression: str | None = None
    result_expires: float | None = 60.0
    result_failure_expires: float | None = 60.0


class Bench:
    """The broker, as a test uses it: blocking, without the bridge to asyncio."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self.url = url
        self._stack = stack
        self.link: Link = open_link(address_of(url, setting="broker_url", options={}))
        stack.callback(self.link.close)
        self.link.call("FLUSHALL")

    def transport(self, url: str | None = None, **changes: Any) -> RedisTransport:
        settings = Settings()
        for name, value in changes.items():
            setattr(settings, name, value)
        return RedisTransport(url or self.url, settings, SYSTEM_CLOCK)

    def consumer(self, *queues: str, transport: RedisTransport | None = None, **changes: Any) -> OnLoop:
        transport = transport or self.transport(**changes)
        made = OnLoop(transport.consumer, [QueueSpec(name=queue) for queue in queues], "owner")
        self._stack.callback(self._close, made)
        return made

    def _close(self, consumer: OnLoop) -> None:
        with suppress(OperationalError):  # its server or proxy may be gone
            consumer.close()

    def publish(self, *batch: Outgoing, transport: RedisTransport | None = None) -> None:
        publisher = (transport or self.transport()).publisher()
        try:
            publisher.publish(batch, time.monotonic() + 60)
        finally:
            publisher.close()

    def fill(self, queue: str, count: int) -> None:
        self.publish(*numbered(queue, range(count)))

    def keys(self) -> set[str]:
        return {key.decode() for key in self.link.call("KEYS", "*")}

    def die(self, consumer: OnLoop) -> None:
        """As ``kill -9`` does: nothing is given back and nothing is reported any more."""
        inner = consumer.inner

        async def drop() -> None:
            inner._closed = True
            inner._keeper.stop()
            inner._watch.close()
            inner._claimer.close()
            inner._settler.close()

        consumer.end(drop())


@pytest.fixture(scope="module")
def server(private_redis: RedisServer) -> RedisServer:
    return private_redis


@pytest.fixture
def bench(server: RedisServer) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(server.url(), stack)


@pytest.fixture
def receive_all() -> Callable[[OnLoop, int], list[Delivery]]:
    def receive(consumer: OnLoop, wanted: int, patience: float = 60.0) -> list[Delivery]:
        found: list[Delivery] = []
        ends = time.monotonic() + patience
        while len(found) < wanted:
            assert time.monotonic() < ends, f"{len(found)} of {wanted} came"
            found.extend(consumer.receive(wanted - len(found), 0.2))
        return found

    return receive


def bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [delivery.envelope.body for delivery in deliveries]
