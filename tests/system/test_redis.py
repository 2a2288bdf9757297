"""Workers on a Redis server: kills, restarts and cut connections, with real processes on both sides."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from celeriac.redis.address import address_of
from celeriac.redis.connect import Link, open_link
from celeriac.redis.errors import VENDOR_ERRORS
from celeriac.testing.proxy import CutAt, FaultProxy
from celeriac.testing.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.conftest import House

pytestmark = pytest.mark.system

PRODUCER = """
from celeriac.errors import OperationalError
while True:
    try:
        result = mark.delay(1)
    except OperationalError:
        continue
    note("ok", result.id)
    time.sleep(0.002)
"""


@pytest.fixture(scope="module")
def server(private_redis: RedisServer) -> RedisServer:
    return private_redis


def connect(server: RedisServer) -> Link:
    return open_link(address_of(server.url(), setting="broker_url", options={}))


def ask(server: RedisServer, *command: Any) -> Any:
    link = connect(server)
    try:
        return link.call(*command)
    finally:
        link.close()


@pytest.fixture
def redis_house(house: House, server: RedisServer) -> House:
    ask(server, "FLUSHALL")
    at(house, server.url())
    return house


def at(house: House, url: str) -> None:
    house.extra.update({"HOUSE_BROKER": url, "HOUSE_RESULTS": url})


def succeeded(server: RedisServer) -> set[str]:
    """Ids of tasks with a stored success."""
    prefix = b"celery-task-meta-"
    link = connect(server)
    try:
        keys = link.call("KEYS", prefix + b"*")
        values = link.call("MGET", *keys) if keys else []
    except VENDOR_ERRORS:
        return set()
    finally:
        link.close()
    return {key.removeprefix(prefix).decode() for key, value in zip(keys, values, strict=True) if b'"SUCCESS"' in value}


def settled(server: RedisServer) -> Callable[[], bool]:
    return lambda: not ask(server, "EXISTS", "celery") and not ask(server, "KEYS", "_celeriac.held.*")


def test_work_of_a_killed_worker_restarts_before_its_lease_ends(redis_house: House, server: RedisServer) -> None:
    house = redis_house
    first = house.worker("-c", "1")
    house.python("print(mark.delay(1, seconds=2.0).id); [mark.delay(n) for n in range(6)]")
    house.until(lambda: house.notes("start"), what="the task has started")
    second = house.worker("-c", "1")
    first.kill()
    killed = time.time()
    house.until(lambda: len({words[1] for words in house.notes("end")}) == 7, 25, "all tasks have run")
    # what had only waited in the dead worker is back as early as what it ran
    assert max(float(words[3]) for words in house.notes("start")) - killed < 28  # seconds; the lease has 30
    house.until(lambda: len(succeeded(server)) == 7, 10)
    assert second.stop() == 0
    house.until(settled(server), 5)


def test_nothing_accepted_is_lost_when_the_server_is_killed(redis_house: House, server: RedisServer) -> None:
    house = redis_house
    worker = house.worker("-c", "2")
    pid = worker.pid
    client = house.start("-c", "from house import *\n" + PRODUCER)
    for _ in range(3):
        before = len(house.notes("ok"))
        house.until(lambda before=before: len(house.notes("ok")) > before + 50, 20, "the client sends")
        server.kill()
        time.sleep(0.3)
        server.start()
        ended = len(house.notes("end"))
        house.until(lambda ended=ended: len(house.notes("end")) > ended, 15, "the worker works again")
    client.kill()
    client.wait(60)
    accepted = {words[1] for words in house.notes("ok")}
    house.until(lambda: accepted <= succeeded(server), 30, "every accepted task has a result")
    assert worker.process.poll() is None
    assert worker.pid == pid
    assert worker.stop() == 0
    house.until(settled(server), 5)


def test_a_running_task_survives_the_server_and_runs_once(redis_house: House, server: RedisServer) -> None:
    house = redis_house
    workers = [house.worker("-c", "1") for _ in range(2)]
    task = house.python("print(mark.delay(1, seconds=6.0).id)").strip()
    house.until(lambda: house.notes("start"))
    server.kill()
    time.sleep(1.0)
    server.start()
    house.until(lambda: task in succeeded(server), 20)
    assert len(house.notes("start")) == 1, "".join(worker.log for worker in workers)
    assert [worker.stop() for worker in workers] == [0, 0]
    house.until(settled(server), 5)


def test_a_claim_whose_answer_is_cut_heals_before_its_lease_ends(redis_house: House, server: RedisServer) -> None:
    house = redis_house
    with FaultProxy("127.0.0.1", server.port) as proxy:
        at(house, proxy.url(server.url()))
        worker = house.worker("-c", "1")
        at(house, server.url())
        cut = proxy.to_client.add(CutAt(b"delivery_tag"))
        sent = time.time()
        house.python("mark.delay(1)")
        house.until(lambda: house.notes("end"), 10)
        assert cut.wait(60)
        assert float(house.notes("start")[0][3]) - sent < 25  # seconds; the lease has 30
        house.until(settled(server), 5)
        assert worker.stop() == 0
    assert len(house.notes("start")) == 1


def test_delays_retries_and_priorities(redis_house: House, server: RedisServer) -> None:
    house = redis_house
    worker = house.worker("-c", "1")
    out = house.python(
        "result = flaky.delay(2, countdown=0.2)\n"
        "sent = time.time()\n"
        "late = mark.apply_async((2,), countdown=1.0)\n"
        "print(result.get(timeout=60), late.get(timeout=60), time.time() - sent)"
    )
    retries, two, took = out.split()
    assert (retries, two) == ("2", "2")
    assert float(took) >= 1.0
    shown = house.celeriac("-A", "house", "status")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert worker.stop(signal.SIGTERM) == 0


def test_a_worker_that_was_stopped_longer_than_its_lease_is_fenced_off(redis_house: House, server: RedisServer) -> None:
    import os

    house = redis_house
    house.settings["broker_lease"] = 3
    sleeper = house.worker("-c", "1")
    task = house.python("print(gated.delay().id)").strip()
    house.until(lambda: house.notes("start"))
    family = [sleeper.pid, *sleeper.children()]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    other = house.worker("-c", "1")
    house.until(lambda: len(house.notes("start")) == 2, 15, "the other worker has taken over")
    for pid in family:
        os.kill(pid, signal.SIGCONT)
    house.gate.touch()
    house.until(lambda: len(house.notes("end")) == 2, 15, "both have ended")
    house.until(settled(server), 15)
    assert succeeded(server) == {task}
    assert (sleeper.stop(), other.stop()) == (0, 0)
    assert len(house.notes("start")) == 2


def test_rescue_gives_back_what_celery_left(redis_house: House, server: RedisServer) -> None:
    house = redis_house
    house.python("mark.delay(1); mark.apply_async((2,), countdown=3600)")
    for tag, taken in (("old", time.time() - 7200), ("new", time.time())):
        payload = ask(server, "LINDEX", "celery", -1).decode()
        ask(server, "HSET", "unacked", tag, f'[{payload}, "", "celery"]')
        ask(server, "ZADD", "unacked_index", taken, tag)
    shown = house.celeriac("-A", "house", "rescue", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "old" in shown.stdout
    assert "new" not in shown.stdout
    assert ask(server, "LLEN", "celery") == 2
    asked = house.celeriac("-A", "house", "rescue")  # nobody answers
    assert asked.returncode == 1
    done = house.celeriac("-A", "house", "rescue", "--force", "--delayed")
    assert "1 message given back" in done.stdout, done.stderr
    assert "celery: 0 delayed messages handed over" in done.stdout
    assert ask(server, "LLEN", "celery") == 3
    assert ask(server, "HKEYS", "unacked") == [b"new"]
    again = house.celeriac("-A", "house", "rescue", "--force", "--json", "--older-than", "0")
    assert '"rescued": 1' in again.stdout
