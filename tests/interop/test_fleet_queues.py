"""Queues, exchanges and bindings: both parties declare the same ones, in either order, and use them the same way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import redis
from fleet import CELERY, FLEET_SETTINGS, MIXED

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleet import Place

pytestmark = pytest.mark.interop
Direction = tuple[str, str]
#: named for what is special about them
KINDS: dict[str, dict[str, Any]] = {
    "named": {"task_default_queue": "mail", "task_default_exchange": "post", "task_default_routing_key": "letters"},
    "quorum": {"task_default_queue_type": "quorum"},
    "ladder": {"task_default_queue_type": "quorum", "task_default_exchange_type": "topic"},
    "priorities": {"task_queue_max_priority": 10, "task_default_priority": 5, "worker_direct": True},
    "declared": {
        "task_queues": {
            **FLEET_SETTINGS["task_queues"],
            "limited": {
                "exchange": "limited", "routing_key": "limited",
                "queue_arguments": {"x-max-length": 1000, "x-message-ttl": 600_000, "x-expires": 3_600_000},
            },
        },
    },
}  # fmt: skip
ORDERS = list(dict.fromkeys([MIXED, MIXED[::-1]]))
NOTHING: dict[str, set[str]] = {"queues": set(), "exchanges": set(), "bindings": set()}


def call(task: str, *args: Any, kwargs: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return {"task": f"party.{task}", "args": list(args), "kwargs": kwargs or {}, "options": options}


@pytest.mark.parametrize("kind", KINDS)
def test_both_declare_the_same_on_rabbitmq(place: Callable[..., Place], kind: str) -> None:
    """In either order: what is there after only one party was there, and that the other one can do with it."""
    declared: dict[str, dict[str, set[str]]] = {}
    for order in ORDERS:
        here = place("rabbitmq", **KINDS[kind])
        for side in order:  # the producer first, then the worker: both declare
            (task_id,) = here.send(side, call("side"))
            here.worker(side)
            assert here.get(side, [task_id])[0]["state"] == "SUCCESS"
            declared.setdefault(side, definitions(here))
        for side in order:
            assert {found["state"] for found in here.run(side, *[call("side")] * 4)} == {"SUCCESS"}
        for worker in here.workers:
            assert worker.process.poll() is None
            assert "PRECONDITION" not in worker.log
    theirs, ours = declared[CELERY], declared[MIXED[1]]
    if kind == "quorum":  # Celery's worker sets the ladder up although a direct exchange never uses it
        theirs, ours = (
            {name: {e for e in of[name] if "celery_delayed_" not in e} for name in of} for of in (theirs, ours)
        )
    assert {name: theirs[name] - ours[name] for name in theirs} == NOTHING
    more = [json.loads(entry) for name in ours for entry in ours[name] - theirs[name]]
    # where our own delays for the queue come down the ladder: counted bits instead of Celery's "#."
    assert all(
        entry["source"] == "celery_delayed_delivery" and entry["routing_key"] == "*." * 28 + "celery" for entry in more
    )


def definitions(place: Place) -> dict[str, set[str]]:
    """What a virtual host has, without what remote control, events and single workers use."""
    found = place.servers.rabbit.api("GET", f"/definitions/{place.vhost}")
    return {
        name: {
            json.dumps(entry, sort_keys=True)
            for entry in found[name]
            if not any(word in json.dumps(entry) for word in ("pidbox", "celeryev", ".dq"))
        }
        for name in ("queues", "exchanges", "bindings")
    }


@pytest.mark.parametrize("kind", ["named", "declared", "priorities"])
def test_both_bind_the_same_on_redis(place: Callable[..., Place], kind: str) -> None:
    """Celery reads its bindings from the database: a queue that celeriac has declared must be in them."""
    bound: dict[str, dict[str, list[bytes]]] = {}
    for order in ORDERS:
        here = place("redis", **KINDS[kind])
        for side in order:
            (task_id,) = here.send(side, call("side"))
            here.worker(side)
            assert here.get(side, [task_id])[0]["state"] == "SUCCESS"
            bound.setdefault(side, bindings(here))
        for side in order:
            assert {found["state"] for found in here.run(side, *[call("side")] * 4)} == {"SUCCESS"}
    assert bound[CELERY] == bound[MIXED[1]]


def bindings(place: Place) -> dict[str, list[bytes]]:
    with redis.Redis.from_url(place.settings["broker_url"]) as client:
        return {
            name.decode(): sorted(client.smembers(name))
            for name in client.keys("_kombu.binding.*")
            if not any(word in name for word in (b"pidbox", b"celeryev", b".dq"))
        }


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"queue": "wild", "routing_key": "thing.one.two"}, "thing.one.two"),
        ({"queue": "exact", "exchange": "posts", "routing_key": "letter"}, "letter"),
        ({"queue": "exact", "routing_key": "letter"}, "exact"),
        ({"queue": "wild"}, "thing.#"),
        ({"queue": "exact"}, "exact"),
        ({"queue": "second"}, "second"),
        ({"queue": "made-up-by-nobody", "expires": 0.01}, None),
    ],
)
def test_routes(fleet: Place, direction: Direction, options: dict[str, Any], key: str | None) -> None:
    producer, consumer = direction
    (task_id,) = fleet.send(producer, call("request", **options))
    if key is None:
        return  # it is enough that the producer could
    (found,) = fleet.get(producer, [task_id])
    assert (found["value"]["side"], found["value"]["delivery"]["routing_key"]) == (consumer, key)


def test_task_routes(fleet: Place, direction: Direction) -> None:
    (found,) = fleet.run(direction[0], call("request"), task_routes={"party.req*": {"queue": "second"}})
    assert found["value"]["delivery"]["routing_key"] == "second"
    (found,) = fleet.run(
        direction[0], call("request"), task_routes={"party.*": {"queue": "wild", "routing_key": "thing.x"}}
    )
    assert found["value"]["delivery"] == {"exchange": "things", "routing_key": "thing.x", "priority": 0}


def test_priorities(place: Callable[..., Place], broker: str, direction: Direction) -> None:
    """Both parties have sent, one of them consumes: Redis takes the lower number first, RabbitMQ the higher one."""
    producer, consumer = direction
    here = place(broker, task_queue_max_priority=9)
    given = [1, 9, 5, 3, 0, 7]
    ids = [id_ for n in given for side in direction for id_ in here.send(side, call("mark", n, priority=n))]
    here.worker(consumer, "-c", "1", "--prefetch-multiplier", "1")
    assert {found["state"] for found in here.get(producer, ids)} == {"SUCCESS"}
    ran = [note[2] for note in here.notes("mark", *ids)]
    expected = [9, 7, 5, 3, 1, 0] if broker == "rabbitmq" else [1, 0, 5, 3, 7, 9]
    if broker == "redis":  # four steps: 0, 3, 6, 9
        expected_pairs = [sorted([1, 1, 0, 0]), sorted([5, 5, 3, 3]), [7, 7], [9, 9]]
        assert [sorted(ran[0:4]), sorted(ran[4:8]), ran[8:10], ran[10:12]] == expected_pairs
    else:
        assert ran == [n for n in expected for _ in range(2)]


@pytest.mark.parametrize("priority", [None, 0, 9, 200])
def test_a_priority_beyond_the_steps_arrives(fleet: Place, direction: Direction, priority: int | None) -> None:
    options = {} if priority is None else {"priority": priority}
    (found,) = fleet.run(direction[0], call("add", 1, 1, queue="steep", **options))
    assert found["repr"] == "2"
