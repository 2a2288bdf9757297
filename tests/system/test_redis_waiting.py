"""Waiting for results under fire (scorecard 27): the connections that wait are cut, and nobody waits too long."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis

from celeriac.client.tracker import Tracker
from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import BackendError
from celeriac.redis.watching import SPENT, WINDOW
from celeriac.results.redis import RedisStore
from celeriac.settings import Settings
from celeriac.testing.conformance.results import record
from celeriac.testing.servers import RedisServer, until
from celeriac.wire.result_record import ResultRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.system
#: seconds between a result's completion and its return, at most
LATE = 20.0
THREADS = 8


@pytest.fixture(scope="module")
def server(private_redis: RedisServer) -> RedisServer:
    return private_redis


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis(port=server.port) as client:
        client.flushall()
        yield client


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStore]:
    store = RedisStore(server.url(), Settings(), SYSTEM_CLOCK)
    yield store
    store.close()


class Worker(threading.Thread):
    """Stores results one by one, and remembers when."""

    def __init__(self, url: str, names: list[str], seconds: float) -> None:
        super().__init__(daemon=True)
        self._store = RedisStore(url, Settings(), SYSTEM_CLOCK)
        self._names = names
        self._pause = seconds / len(names)
        self.done_at: dict[str, float] = {}

    def run(self) -> None:
        began = time.monotonic()
        for number, name in enumerate(self._names):
            time.sleep(max(0.0, began + number * self._pause - time.monotonic()))
            while True:
                try:
                    self._store.write([record(name)])
                    break
                except BackendError:  # its connection was cut, too
                    continue
            self.done_at[name] = time.monotonic()
        self._store.close()


class Cutter(threading.Thread):
    """Cuts every connection that is subscribed, and now and then the others."""

    def __init__(self, client: redis.Redis, pause: float) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._pause = pause
        self._over = threading.Event()
        self.cuts = 0

    def run(self) -> None:
        while not self._over.wait(self._pause):
            self.cuts += int(self._client.execute_command("CLIENT", "KILL", "TYPE", "pubsub"))
            if self.cuts % 3 == 0:
                self._client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def stop(self) -> None:
        self._over.set()
        self.join(60.0)


def nothing_is_left(client: redis.Redis, store: RedisStore) -> None:
    """But a few subscriptions about which all is said."""
    until(lambda: len(client.pubsub_channels()) <= SPENT * len(store._idle), "subscriptions are left", 60.0)
    store.close()
    until(lambda: not client.pubsub_channels(), "subscriptions are left", 60.0)
    until(lambda: len(client.client_list()) == 1, "connections are left", 60.0)


def test_a_thousand_waits_from_eight_threads(server: RedisServer, client: redis.Redis, store: RedisStore):
    tracker = Tracker(lambda: store, SYSTEM_CLOCK)
    chance = random.Random(27)
    names = [f"fire-{number}" for number in range(1000)]
    never = set(chance.sample(names, 24))
    worker = Worker(server.url(), chance.sample([name for name in names if name not in never], 976), 6.0)
    cutter = Cutter(client, 0.5)
    late: list[tuple[str, float]] = []

    def wait(mine: list[str]) -> None:
        for name in mine:
            began, timeout = time.monotonic(), 0.3 if name in never else 90.0
            found = tracker.wait([name], timeout)
            now = time.monotonic()
            due = began + timeout if name in never else max(began, worker.done_at.get(name, now))
            if now - due > LATE or (name in found) is (name in never):
                late.append((name, now - due))

    threads = [threading.Thread(target=wait, args=(names[part::THREADS],)) for part in range(THREADS)]
    for thread in (worker, cutter, *threads):
        thread.start()
    for thread in threads:
        thread.join(200.0)
    cutter.stop()
    worker.join(60.0)
    assert not late
    assert cutter.cuts >= 5
    nothing_is_left(client, store)


def test_a_thousand_waits_from_coroutines(server: RedisServer, client: redis.Redis, store: RedisStore):
    tracker = Tracker(lambda: store, SYSTEM_CLOCK)
    names = [f"coroutine-{number}" for number in range(1000)]
    never = set(names[::50])
    worker = Worker(server.url(), random.Random(3).sample([name for name in names if name not in never], 980), 4.0)
    cutter = Cutter(client, 0.5)

    async def wait(name: str) -> float | None:
        timeout = 2.0 if name in never else 90.0
        began = time.monotonic()
        found = await tracker.await_all([name], timeout)
        now = time.monotonic()
        if (name in found) is (name in never):
            return 1e9
        return now - (began + timeout if name in never else max(began, worker.done_at.get(name, now)))

    async def wait_for_all() -> list[Any]:
        return await asyncio.gather(*[wait(name) for name in names])

    worker.start()
    cutter.start()
    delays = asyncio.run(wait_for_all())
    cutter.stop()
    worker.join(60.0)
    assert max(delays) < LATE
    assert cutter.cuts >= 3
    nothing_is_left(client, store)


def test_more_than_one_window(server: RedisServer, client: redis.Redis, store: RedisStore):
    """Most of them are not subscribed to; they are found all the same, and the last not late."""
    names = [f"window-{number}" for number in range(WINDOW * 3)]
    worker = Worker(server.url(), list(reversed(names)), 2.0)
    tracker = Tracker(lambda: store, SYSTEM_CLOCK)
    worker.start()
    most = 0
    waiting = threading.Thread(target=tracker.wait, args=(names, 90.0))
    waiting.start()
    while waiting.is_alive():
        most = max(most, len(client.pubsub_channels()))
        waiting.join(0.05)
    assert time.monotonic() - max(worker.done_at.values()) < LATE
    assert 0 < most <= WINDOW
    worker.join(60.0)
    nothing_is_left(client, store)


def test_a_server_that_is_away_for_a_moment_is_waited_for():
    with RedisServer() as restarted:
        mine = RedisStore(restarted.url(), Settings(), SYSTEM_CLOCK)
        tracker = Tracker(lambda: mine, SYSTEM_CLOCK)
        mine.write([record("there")])
        assert tracker.wait(["there"], 60.0)
        found: list[Any] = []
        waiting = threading.Thread(target=lambda: found.append(tracker.wait(["later"], 90.0)))
        waiting.start()
        restarted.kill()
        waiting.join(0.5)
        assert waiting.is_alive()
        restarted.start()
        mine.write([record("later")])
        waiting.join(60.0)
        assert set(found[0]) == {"later"}
        mine.close()


def test_waits_share_one_connection(client: redis.Redis, store: RedisStore):
    tracker = Tracker(lambda: store, SYSTEM_CLOCK)
    names = [f"shared-{number}" for number in range(20)]
    threads = [threading.Thread(target=tracker.wait, args=([name], 90.0)) for name in names]
    for thread in threads:
        thread.start()
    until(lambda: len(client.pubsub_channels()) == len(names), "not all are subscribed", 60.0)
    subscribed = [one for one in client.client_list() if int(one["sub"])]
    assert len(subscribed) == 1
    store.write([record(name) for name in names])
    for thread in threads:
        thread.join(60.0)
        assert not thread.is_alive()
    nothing_is_left(client, store)


def test_no_subscription_is_left_that_could_still_be_told_of(client: redis.Redis, store: RedisStore):
    """One that could not is left until the line speaks again: taking leave of it would cost a system call per get."""
    key = store._records.key
    for number in range(3):
        store.write([record(f"done-{number}")])
        assert store.watch([f"done-{number}"], 60.0)
        store.watch([], 0)
    assert client.pubsub_channels() == [key("done-2")]
    assert not store.watch(["never"], 0.1)
    assert client.pubsub_channels() == [key("never")]
    store.watch([], 0)
    until(lambda: not client.pubsub_channels(), "subscriptions are left", 30.0)
    names = [f"many-{number}" for number in range(SPENT + 1)]
    store.write([record(name) for name in names])
    assert len(store.watch(names, 60.0)) == len(names)
    store.watch([], 0)
    until(lambda: not client.pubsub_channels(), "subscriptions are left", 30.0)
    nothing_is_left(client, store)


@pytest.mark.parametrize("one_by_one", [True, False])
def test_more_than_a_subscriber_is_sent(server: RedisServer, client: redis.Redis, store: RedisStore, one_by_one: bool):
    """The server cuts the connection, which is no reason not to get the results."""
    client.config_set("client-output-buffer-limit", "pubsub 1mb 1mb 60")
    names = [f"large-{number}" for number in range(30)]
    tracker = Tracker(lambda: store, SYSTEM_CLOCK)
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(tracker.wait(names, 90.0)))
    waiting.start()
    until(lambda: len(client.pubsub_channels()) == len(names), "not all are subscribed", 60.0)
    writer = RedisStore(server.url(), Settings(), SYSTEM_CLOCK)
    records = [
        ResultRecord(name, "SUCCESS", b'{"status": "SUCCESS", "result": "%b"}' % (b"x" * 3_000_000)) for name in names
    ]
    for part in [[one] for one in records] if one_by_one else [records]:
        writer.write(part)
    done = time.monotonic()
    waiting.join(90.0)
    assert set(found[0]) == set(names)
    assert time.monotonic() - done < LATE
    client.config_set("client-output-buffer-limit", "pubsub 32mb 8mb 60")
    writer.close()
    nothing_is_left(client, store)
