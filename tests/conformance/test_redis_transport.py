"""The Redis broker against the suite of all transports, on a real server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from drivers import Numbers

from celeriac.clock import SYSTEM_CLOCK
from celeriac.redis.address import address_of
from celeriac.redis.connect import open_link
from celeriac.redis.records import Records
from celeriac.testing.conformance.clock import WrongClock
from celeriac.testing.conformance.transport import TransportDriver, TransportSuite
from celeriac.testing.servers import RedisServer
from celeriac.transports.base import Heard, QueueSpec
from celeriac.transports.redis.transport import RedisTransport

if TYPE_CHECKING:
    from celeriac.wire.result_record import ResultRecord


class RedisNumbers(Numbers):
    broker_transport_options: ClassVar[dict[str, Any]] = {}
    broker_use_ssl = False
    broker_connection_timeout = 30.0
    broker_pool_limit = 10
    result_compression = None
    result_expires = 60.0
    result_failure_expires = 60.0


@pytest.fixture(scope="module")
def server(private_redis: RedisServer) -> RedisServer:
    return private_redis


def redis_driver(url: str, settings: Any, **options: Any) -> TransportDriver:
    address = address_of(url, setting="broker_url", options=settings.broker_transport_options)

    def read_result(task_id: str) -> ResultRecord | None:
        records = Records(settings, address.keyprefix)
        link = open_link(address)
        try:
            value = link.call("GET", records.key(task_id))
        finally:
            link.close()
        return None if value is None else records.record(task_id, value)

    return TransportDriver(
        name="redis", open=lambda: RedisTransport(url, settings, SYSTEM_CLOCK), advance=time.sleep, time=time.time,
        open_ahead=lambda seconds: RedisTransport(url, settings, WrongClock(SYSTEM_CLOCK, seconds)),
        lease=settings.broker_lease, minute=1.0, max_bytes=settings.broker_max_message_bytes, read_result=read_result,
    )  # fmt: skip


def flushed(url: str) -> str:
    link = open_link(address_of(url, setting="broker_url", options={}))
    link.call("FLUSHALL")
    link.close()
    return url


def numbers_for(request: pytest.FixtureRequest, numbers: type[RedisNumbers]) -> type[RedisNumbers]:
    """With a short lease for the tests in which one ends, since time really passes."""
    return type("Short", (numbers,), {"broker_lease": 1.5}) if "lease" in request.node.name.split("_") else numbers


class TestRedis(TransportSuite):
    wrong_clocks = ((-10, False), (-10, True), (10, True))  # it goes by its own

    @pytest.fixture
    def driver(self, server: RedisServer, request: pytest.FixtureRequest) -> TransportDriver:
        return redis_driver(flushed(server.url()), numbers_for(request, RedisNumbers))


@pytest.mark.parametrize("kind", ["fanout", "topic"])
def test_what_is_no_message_is_handed_out_as_such(server: RedisServer, kind: str) -> None:
    """A channel is open to everybody: whoever listens counts it, and believes nothing of it."""
    transport = RedisTransport(flushed(server.url()), RedisNumbers, SYSTEM_CLOCK)
    broadcast = transport.broadcast()
    ear = QueueSpec(name="ear", exchange="shouts", exchange_type=kind, routing_key="#", auto_delete=True)
    subscription = broadcast.subscribe(ear)
    stranger = open_link(address_of(server.url(), setting="broker_url", options={}))
    channel = "/0.shouts" if kind == "fanout" else "/0.shouts/any.key"
    try:
        said = [b"this is no JSON", b"[1]", b'{"method": "shutdown"}']
        for payload in said:
            stranger.call("PUBLISH", channel, payload)
        heard: list[Heard] = []
        ends = time.monotonic() + 30
        while len(heard) < len(said) and time.monotonic() < ends:
            heard += subscription.receive(10, 0.5)
    finally:
        stranger.close()
        subscription.close()
        broadcast.close()
    assert all(one.malformed and not one.envelope.body for one in heard)
    assert len(heard) == len(said)


class Prefixed(RedisNumbers):
    """As on a cluster: everything under one hash tag."""

    broker_transport_options: ClassVar[dict[str, Any]] = {"global_keyprefix": "{house}:", "priority_steps": [0, 5]}


class TestRedisWithPrefix(TransportSuite):
    @pytest.fixture
    def driver(self, server: RedisServer, request: pytest.FixtureRequest) -> TransportDriver:
        return redis_driver(flushed(server.url()), numbers_for(request, Prefixed))

    def test_the_more_urgent_goes_first(self) -> None:  # type: ignore[override]
        """Two steps here, and the suite asks for four levels."""
