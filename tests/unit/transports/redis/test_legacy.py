"""What Celery's workers took and never settled goes back to its queues."""

from __future__ import annotations

import json
import time
from typing import Any

from celeriac.testing.conformance.transport import message, numbered
from celeriac.transports.base import QueueSpec, Rescues
from celeriac.wire.kombu_json import encode_envelope

NOW = time.time()


def take(
    bench: Any, tag: str, age: float | None, number: int, exchange: str = "", key: str = "q", **options: Any
) -> None:
    """As kombu's transport records a delivery."""
    outgoing = message("q", b"%d" % number, **options)
    envelope = json.loads(encode_envelope(outgoing.envelope, outgoing.route, tag))
    bench.link.call("HSET", "unacked", tag, json.dumps([envelope, exchange, key]))
    if age is not None:
        bench.link.call("ZADD", "unacked_index", NOW - age, tag)


def test_what_was_left_behind_comes_back_oldest_first(bench: Any, receive_all: Any) -> None:
    transport = bench.transport()
    admin = transport.admin()
    assert isinstance(admin, Rescues)
    admin.declare([QueueSpec(name="bound", exchange="e", routing_key="k")])
    take(bench, "b", 5000, 2)
    take(bench, "a", 6000, 1)
    take(bench, "urgent", 7000, 3, priority=9)
    take(bench, "unindexed", None, 0)
    take(bench, "fresh", 10, 4)
    take(bench, "elsewhere", 5000, 5, "e", "k")
    take(bench, "nowhere", 5000, 6, "no such exchange", "k")
    bench.link.call("HSET", "unacked", "garbage", b"\xff[")
    bench.publish(message("q", b"9"))

    found = admin.stranded(3600)
    assert [one.id for one in found][:3] == ["unindexed", "urgent", "a"]
    assert {one.id: one.queue for one in found[3:]} == {"b": "q", "elsewhere": "bound"}
    assert {one.task for one in found} == {"t"}
    assert admin.rescue(3600) == 5
    assert admin.rescue(3600) == 0
    assert sorted(bench.link.call("HKEYS", "unacked")) == [b"fresh", b"garbage", b"nowhere"]
    consumer = bench.consumer("q")
    back = receive_all(consumer, 5)
    assert [one.envelope.body for one in back] == [b"0", b"1", b"2", b"9", b"3"]
    assert [one.redelivered for one in back] == [True, True, True, False, True]
    assert admin.depth("bound") == 1
    admin.close()
    transport.close()


def test_delayed_messages_can_be_handed_to_celery(bench: Any) -> None:
    consumer = bench.consumer("q")
    assert not consumer.receive(1, 0)
    later = time.time() + 3600
    bench.publish(*numbered("q", range(600), not_before=later), *numbered("q", [1], not_before=later, priority=9))
    consumer.close()
    admin = bench.transport().admin()
    assert admin.counts("q").delayed == 601
    assert admin.undelay("q") == 601
    assert admin.undelay("q") == 0
    counts = admin.counts("q")
    assert (counts.waiting, counts.delayed) == (601, 0)
    assert bench.link.call("LLEN", "q\x06\x169") == 1
