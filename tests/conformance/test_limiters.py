"""Every limiter of this repository against the suite."""

from __future__ import annotations

import tempfile
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from celeriac.clock import SYSTEM_CLOCK
from celeriac.limiters.memory import MemoryLimiter
from celeriac.limiters.redis import RedisLimiter
from celeriac.limiters.sqlite import SqliteLimiter
from celeriac.settings import Settings
from celeriac.testing.conformance.clock import SteppedClock
from celeriac.testing.conformance.limiter import LimiterDriver, LimiterSuite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celeriac.testing.servers import RedisServer

_numbers = count(1)


class TestLimiters(LimiterSuite):
    @pytest.fixture(params=["sqlite", "memory"])
    def driver(self, request: pytest.FixtureRequest) -> Iterator[LimiterDriver]:
        clock = SteppedClock()
        with tempfile.TemporaryDirectory(prefix="limits") as name:
            if request.param == "sqlite":
                url = f"sqlite:///{Path(name) / 'house.sqlite3'}"
                yield LimiterDriver(
                    name="sqlite", open=lambda: SqliteLimiter(url, None, clock), advance=clock.advance
                )  # fmt: skip
            else:
                url = f"memory://limits-{next(_numbers)}"
                yield LimiterDriver(name="memory", open=lambda: MemoryLimiter(url, None, clock), advance=clock.advance)


class TestRedisLimiter(LimiterSuite):
    @pytest.fixture
    def driver(self, redis_server: RedisServer) -> Iterator[LimiterDriver]:
        prefix = f"{{limits{next(_numbers)}}}:"
        url = f"{redis_server.url()}?global_keyprefix={prefix}"
        with redis.Redis.from_url(redis_server.url()) as client:
            yield LimiterDriver(
                name="redis", open=lambda: RedisLimiter(url, Settings(), SYSTEM_CLOCK),
                advance=lambda seconds: advance(client, prefix, seconds),
            )  # fmt: skip


def advance(client: redis.Redis, prefix: str, seconds: float) -> None:
    """The server's clock can't be moved; what it compares with can."""
    for key in client.keys(f"{prefix}*"):
        left = client.pttl(key)
        if left == -1:  # it has no end
            continue
        left -= round(seconds * 1000)
        if left <= 0:
            client.delete(key)
        elif client.type(key) == b"zset":
            for holder in filter(None, client.zrange(key, 0, -1)):
                client.zincrby(key, -seconds * 1e6, holder)
            client.pexpire(key, left)
        else:
            client.set(key, f"{float(client.get(key)) - seconds * 1e6:.0f}", px=left)
