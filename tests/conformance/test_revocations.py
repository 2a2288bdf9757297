"""Every store and broker that keeps what is revoked, against the suite; Redis on a server of its own."""

from __future__ import annotations

import tempfile
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from drivers import Numbers

from celeriac.clock import SYSTEM_CLOCK
from celeriac.embedded import volatile
from celeriac.results.memory import MemoryStore
from celeriac.results.redis import RedisStore
from celeriac.results.sqlite import SqliteStore
from celeriac.settings import Settings
from celeriac.testing.conformance.clock import SteppedClock
from celeriac.testing.conformance.revocations import RegistryDriver, RevocationSuite
from celeriac.transports.memory import MemoryTransport
from celeriac.transports.redis.transport import RedisTransport
from celeriac.transports.sqlite import SqliteTransport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celeriac.testing.servers import RedisServer

_numbers = count(1)


class TestRevocations(RevocationSuite):
    @pytest.fixture(params=["sqlite store", "sqlite broker", "memory store", "memory broker"])
    def driver(self, request: pytest.FixtureRequest) -> Iterator[RegistryDriver]:
        clock = SteppedClock()
        kinds: dict[str, Any] = {
            "sqlite store": SqliteStore, "sqlite broker": SqliteTransport,
            "memory store": MemoryStore, "memory broker": MemoryTransport,
        }  # fmt: skip
        kind = kinds[request.param]
        with tempfile.TemporaryDirectory(prefix="house") as name:
            scheme = request.param.partition(" ")[0]
            url = f"sqlite:///{Path(name)}/queue.sqlite3" if scheme == "sqlite" else f"memory://{Path(name).name}"
            yield RegistryDriver(name=request.param, open=lambda: kind(url, Numbers, clock), advance=clock.advance)
        volatile.forget_engines()


class TestRedisRevocations(RevocationSuite):
    @pytest.fixture(params=["store", "broker"])
    def driver(self, request: pytest.FixtureRequest, server: RedisServer) -> Iterator[RegistryDriver]:
        url = server.url(next(_numbers))
        kind: Any = RedisStore if request.param == "store" else RedisTransport
        with redis.Redis.from_url(url) as client:
            yield RegistryDriver(
                name=f"redis {request.param}", open=lambda: kind(url, Settings(), SYSTEM_CLOCK),
                advance=lambda seconds: advance(client, seconds),
            )  # fmt: skip

    def test_the_keys_end_with_the_last_entry(self, driver: RegistryDriver, registry: Any, server: RedisServer) -> None:
        from celeriac.results.base import Revocation

        registry.add_revocations([Revocation("a")], 500.0)
        registry.add_revocations([Revocation("b")], 50.0)
        with redis.Redis.from_url(server.url(next(_numbers) - 1)) as client:
            keys = sorted(client.scan_iter())
            assert keys == [b"_celeriac.{revoked}", b"_celeriac.{revoked}.ends"]
            assert all(490_000 < client.pttl(key) <= 500_000 for key in keys)


def advance(client: redis.Redis, seconds: float) -> None:
    """The server's clock cannot be set; what is left to live can."""
    for key in client.scan_iter("*.ends"):
        for member, expires in client.zscan_iter(key):
            client.zadd(key, {member: expires - seconds * 1000})
    for key in client.scan_iter():
        left = client.pttl(key)
        if left > seconds * 1000:
            client.pexpire(key, int(left - seconds * 1000))
        elif left > 0:
            client.delete(key)
