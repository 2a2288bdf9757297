"""The Redis result store against the suite, on a server of its own."""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING

import pytest
import redis
from tests.loop_store import LoopStore

from celeriac.clock import SYSTEM_CLOCK
from celeriac.results.redis import RedisStore
from celeriac.settings import Settings
from celeriac.testing.conformance.results import ResultDriver, ResultSuite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celeriac.testing.servers import RedisServer

_databases = count(1)


class TestRedisResults(ResultSuite):
    kind = RedisStore

    @pytest.fixture
    def driver(self, server: RedisServer) -> Iterator[ResultDriver]:
        url = server.url(next(_databases))
        opened: list[RedisStore] = []
        with redis.Redis.from_url(url) as client:

            def open_store() -> RedisStore:
                opened.append(self.kind(url, Settings(), SYSTEM_CLOCK))
                return opened[-1]

            yield ResultDriver(name="redis", open=open_store, advance=lambda seconds: advance(client, seconds))
            for store in opened:
                store.close()


class TestRedisResultsOnLoop(TestRedisResults):
    kind = LoopStore


def advance(client: redis.Redis, seconds: float) -> None:
    """The server's clock cannot be set; what is left to live can."""
    gone = []
    for key in client.scan_iter():
        left = client.pttl(key)
        if left > 0:
            client.pexpire(key, max(1, int(left - seconds * 1000)))
            gone += [key] if left <= seconds * 1000 else []
    ends = time.monotonic() + 5.0
    while gone and client.exists(*gone):
        assert time.monotonic() < ends
