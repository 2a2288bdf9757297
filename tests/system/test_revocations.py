"""A cancelled task stays cancelled, with workers that were down, out of touch or restarted, on every broker, pool."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from celeriac import Celeriac
from celeriac.errors import TaskRevokedError
from celeriac.results.base import Revocation
from celeriac.wire.result_record import encode_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.conftest import House, Worker

    from celeriac.testing.servers import RabbitServer, RedisServer

pytestmark = pytest.mark.system

BROKERS = ["sqlite", "redis", "rabbitmq"]
_numbers = count(1)


class Place:
    """A house on one broker, and an app for the test's own process."""

    def __init__(self, house: House, broker: str, results: str | None) -> None:
        self.house = house
        house.extra["HOUSE_BROKER"] = broker
        if results is not None:
            house.extra["HOUSE_RESULTS"] = results
        self.app = Celeriac("house", broker=broker, backend=results, set_as_current=False)

    def worker(self, node: str, *options: str) -> Worker:
        """One that hears what is broadcast."""
        worker = self.house.worker("-c", "1", "-n", node, *options)
        self.house.until(lambda: self.app.control.ping([node], timeout=0.3), what=f"{node} answers")
        return worker

    def revoked_at(self, node: str) -> list[str]:
        found = self.app.control.inspect(node, timeout=60.0).revoked()
        return list(found or ())

    def until_told(self, node: str, *ids: str) -> None:
        self.house.until(lambda: set(ids) <= set(self.revoked_at(node)), what=f"{node} knows of {ids}")

    def started(self) -> set[str]:
        return {words[1] for words in self.house.notes("start")}


@pytest.fixture
def make_place(house: House, request: pytest.FixtureRequest) -> Iterator[Callable[..., Place]]:
    made: list[Place] = []
    vhosts: list[tuple[RabbitServer, str]] = []

    def make(broker: str, *, store: bool = True) -> Place:
        embedded = f"sqlite:///{house.file}"
        if broker == "sqlite":
            place = Place(house, embedded, embedded)
        elif broker == "redis":
            redis: RedisServer = request.getfixturevalue("private_redis")
            url = redis.url(next(_numbers) % 16)
            place = Place(house, url, url if store else None)
        else:
            rabbit: RabbitServer = request.getfixturevalue("rabbit_server")
            vhost = f"revocations-{next(_numbers)}-{id(house)}"
            place = Place(house, rabbit.add_vhost(vhost), embedded if store else None)
            vhosts.append((rabbit, vhost))
        made.append(place)
        return place

    yield make
    house.end()
    for place in made:
        place.app.close()
    for rabbit, vhost in vhosts:
        rabbit.remove_vhost(vhost)


def stamps(value: str) -> dict[str, Any]:
    return {"headers": {"stamped_headers": ["customer"], "stamps": {"customer": [value]}}}


@pytest.mark.parametrize("broker", BROKERS)
def test_workers_that_were_down_honour_it(make_place: Callable[..., Place], broker: str) -> None:
    place = make_place(broker)
    app, house = place.app, place.house
    queued = [app.send_task("house.mark", (n,)) for n in range(20)]
    later = [app.send_task("house.mark", (n,), countdown=1.5) for n in range(4)]
    stamped = [app.send_task("house.mark", (n,), **stamps(str(n % 2))) for n in range(6)]
    app.control.revoke([task.id for task in queued[::2]])
    later[0].revoke()
    app.control.terminate(later[1].id)
    app.control.revoke_by_stamped_headers({"customer": "1"})
    worker = house.worker("-c", "2", "-n", "w1@house")
    gone = [*queued[::2], *later[:2], *stamped[1::2]]
    for task in gone:
        with pytest.raises(TaskRevokedError):
            task.get(timeout=60)
    kept = [*queued[1::2], *later[2:], *stamped[::2]]
    for task in kept:
        task.get(timeout=60)
    assert {task.state for task in gone} == {"REVOKED"}
    assert place.started() == {task.id for task in kept}
    assert worker.stop() == 0


@pytest.mark.parametrize("broker", BROKERS[1:])
def test_what_a_worker_heard_outlives_it(make_place: Callable[..., Place], broker: str) -> None:
    """The sender knows of no registry: Celery, or a broadcast by hand."""
    place = make_place(broker)
    app, house = place.app, place.house
    worker = place.worker("w1@house")
    registry = app.revocations
    assert registry is not None
    said = {"task_id": ["doomed", "other"], "terminate": False, "signal": "SIGTERM"}
    app.control.broadcast("revoke", said, ["w1@house"], reply=True, timeout=60.0)
    house.until(lambda: len(registry.read_revocations(0, 10).standing) == 2, what="it is written down")
    worker.kill()
    app.send_task("house.mark", (1,), task_id="doomed")
    last = app.send_task("house.mark", (2,))
    place.worker("w2@house", "--without-mingle")
    assert last.get(timeout=60) == 2
    with pytest.raises(TaskRevokedError):
        app.AsyncResult("doomed").get(timeout=60)
    assert place.started() == {last.id}
    assert set(place.revoked_at("w2@house")) == {"doomed", "other"}
    # taken back: for a worker that lives, and, as nobody else would tell, for one that starts later
    app.control.revoke_by_stamped_headers({"customer": ["1", "2"]}, reply=True, timeout=60.0, limit=1)
    app.control.unrevoke_by_stamped_headers({"customer": "1"})
    app.control.unrevoke(["doomed"], reply=True, timeout=60.0, limit=1)
    assert place.revoked_at("w2@house") == ["other"]
    stamped = app.control.inspect("w2@house", timeout=60.0)
    house.until(lambda: stamped.revoked_stamps() == {"customer": ["2"]})
    assert app.send_task("house.mark", (3,), **stamps("1")).get(timeout=60) == 3
    app.AsyncResult("doomed").forget()
    assert app.send_task("house.mark", (4,), task_id="doomed").get(timeout=60) == 4


def test_a_worker_that_did_not_hear_of_it_reads_it(make_place: Callable[..., Place]) -> None:
    place = make_place("sqlite")
    app, house = place.app, place.house
    worker = place.worker("w1@house", "-c", "2", "--prefetch-multiplier", "4")
    runs, stays = (app.send_task("house.mark", (n, 600)) for n in range(2))
    house.until(lambda: len(house.notes("start")) == 2)
    waits = app.send_task("house.mark", (3,))
    house.until(lambda: app.control.inspect("w1@house", timeout=60.0).reserved())
    assert app.revocations is not None
    app.revocations.add_revocations(
        [Revocation(runs.id, "", "SIGTERM"), Revocation(waits.id), Revocation(stays.id)], 600.0
    )
    for task in (runs, waits):
        with pytest.raises(TaskRevokedError):
            task.get(timeout=60)
    assert [task["id"] for task in app.control.inspect("w1@house", timeout=60.0).active()] == [stays.id]
    app.control.terminate(stays.id)
    with pytest.raises(TaskRevokedError):
        stays.get(timeout=60)
    assert place.started() == {runs.id, stays.id}
    assert worker.stop() == 0


@pytest.mark.parametrize("broker", ["sqlite", "redis"])
def test_the_broker_remembers_where_there_is_no_result_store(make_place: Callable[..., Place], broker: str) -> None:
    place = make_place("redis", store=False) if broker == "redis" else make_place("sqlite")
    if broker == "sqlite":
        place.app.conf.result_backend = "disabled://"
        place.house.extra["HOUSE_RESULTS"] = "disabled://"
    place.app.send_task("house.mark", (1,), task_id="doomed")
    place.app.control.revoke("doomed")
    last = place.app.send_task("house.mark", (2,))
    place.house.worker("-c", "1")
    place.house.until(lambda: place.house.notes("end"))
    assert place.started() == {last.id}


def test_a_revoked_task_is_marked_at_once(make_place: Callable[..., Place]) -> None:
    place = make_place("sqlite")
    app, house = place.app, place.house
    store = app.store
    assert store is not None
    for task_id, status in (("begun", "STARTED"), ("own", "PROGRESS"), ("done", "FAILURE"), ("again", "RETRY")):
        store.write([encode_record(task_id=task_id, status=status, result=ValueError("x"), date_done=None)])
    worker = place.worker("w1@house")
    running = app.send_task("house.mark", (1, 600))
    house.until(lambda: house.notes("start"))
    far = app.send_task("house.mark", (1,), countdown=3600)
    ids = ["begun", "own", "done", "again", "unknown", running.id, far.id]
    app.control.revoke(ids, reply=True, timeout=60.0, limit=1)
    states = {task_id: app.AsyncResult(task_id).state for task_id in ids}
    assert states == {
        "begun": "STARTED", "own": "PROGRESS", "done": "FAILURE", "again": "REVOKED", "unknown": "REVOKED",
        running.id: "PENDING", far.id: "REVOKED",
    }  # fmt: skip
    with pytest.raises(TaskRevokedError, match="revoked"):
        far.get(timeout=10)
    app.control.terminate(running.id)
    with pytest.raises(TaskRevokedError, match="terminated"):
        running.get(timeout=60)
    assert worker.stop() == 0


POOLS = [
    "prefork", "threads", "asyncio", "solo",
    *(
        pytest.param(name, marks=pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed"))
        for name in ("gevent", "eventlet")
    ),
]  # fmt: skip


@pytest.mark.parametrize("pool", POOLS)
def test_every_pool_drops_what_waits_and_ends_what_runs(make_place: Callable[..., Place], pool: str) -> None:
    """A task that sleeps in short steps: where a process cannot be killed, an exception has to get a word in."""
    place = make_place("sqlite")
    app, house = place.app, place.house
    with (house.folder / "house.py").open("a") as file:
        file.write("""
@app.task(bind=True)
def steps(self):
    note("start", self.request.id, os.getpid(), time.time())
    for _ in range(60000):
        time.sleep(0.01)

@app.task(bind=True)
async def waits(self):
    import asyncio
    note("start", self.request.id, os.getpid(), time.time())
    await asyncio.sleep(600)
""")
    name = "house.waits" if pool == "asyncio" else "house.steps"
    first = app.send_task(name, **stamps("1"))
    worker = place.worker("w1@house", "-P", pool)
    house.until(lambda: house.notes("start"))
    waiting, stamped = app.send_task("house.mark", (1,)), app.send_task("house.mark", (2,), **stamps("2"))
    app.control.revoke(waiting.id)
    app.control.revoke_by_stamped_headers({"customer": ["2"]})
    app.control.revoke_by_stamped_headers({"customer": ["1"]}, terminate=True)
    with pytest.raises(TaskRevokedError):
        first.get(timeout=60)
    second = app.send_task(name)
    house.until(lambda: len(house.notes("start")) == 2)
    app.control.revoke(second.id, terminate=True, signal="SIGTERM")
    with pytest.raises(TaskRevokedError):
        second.get(timeout=60)
    third = app.send_task(name)
    house.until(lambda: len(house.notes("start")) == 3)
    # solo has no process to kill but its own: there SIGKILL raises in the task, too
    app.control.revoke(third.id, terminate=True, signal="SIGKILL")
    with pytest.raises(TaskRevokedError):
        third.get(timeout=60)
    after = app.send_task("house.mark", (3,))
    assert after.get(timeout=60) == 3
    for task in (waiting, stamped):
        with pytest.raises(TaskRevokedError):
            task.get(timeout=60)
    assert place.started() == {first.id, second.id, third.id, after.id}
    assert worker.stop() == 0


def test_neighbours_tell_where_nobody_keeps_it(make_place: Callable[..., Place]) -> None:
    """RabbitMQ without a result store: those that live tell who starts; the last one keeps it in its file."""
    place = make_place("rabbitmq", store=False)
    app, house = place.app, place.house
    assert app.revocations is None
    first = place.worker("w1@house")
    app.control.revoke("doomed", reply=True, timeout=60.0, limit=1)
    place.until_told("w1@house", "doomed")
    state = house.folder / "w2.state"
    for _ in range(10):
        second = place.worker("w2@house", "--statedb", "%n.state")
        if "1 revoked" in second.wait_for("mingle: "):
            break
        second.kill()  # a second for answers is more than a machine at work may keep
    place.until_told("w2@house", "doomed")
    first.kill()
    house.until(lambda: "doomed" in state.read_text(), what="it is in the file")
    second.kill()
    app.send_task("house.mark", (1,), task_id="doomed")
    last = app.send_task("house.mark", (2,))
    third = place.worker("w2@house", "--statedb", "%n.state", "--without-mingle")
    house.until(lambda: house.notes("end"))
    assert place.started() == {last.id}
    assert third.stop() == 0
