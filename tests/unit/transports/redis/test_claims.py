"""What a Redis broker's consumers hold, and how it comes back."""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from celeriac.errors import OperationalError
from celeriac.redis.keys import Keys
from celeriac.testing.conformance.transport import message, numbered
from celeriac.transports.base import ACK, RELEASE, Bury, Outgoing, Park, Settlement
from celeriac.transports.epitaph import read_epitaph
from celeriac.wire.kombu_json import encode_envelope


def numbers(deliveries: Any) -> list[int]:
    return [int(delivery.envelope.body) for delivery in deliveries]


def raw(outgoing: Outgoing) -> bytes:
    return encode_envelope(outgoing.envelope, outgoing.route)


def test_what_a_dead_consumer_held_comes_back_in_order_and_unblamed(bench: Any, receive_all: Any) -> None:
    bench.publish(*numbered("q", range(4)), *numbered("q", [10, 11], priority=3))
    dead, heir = bench.consumer("q", broker_lease=1.2), bench.consumer("q")
    assert numbers(receive_all(dead, 3)) == [0, 1, 2]
    assert numbers(receive_all(dead, 2)) == [3, 10]
    assert not heir.inner._began
    bench.die(dead)
    died = time.monotonic()
    found = []
    while len(found) < 6:
        found += heir.receive(6, 0.5)
        assert time.monotonic() - died < 60
    # 11 had never been taken, and waited behind
    assert numbers(found) == [11, 0, 1, 2, 3, 10] or numbers(found) == [0, 1, 2, 3, 10, 11]
    assert {delivery.attempt for delivery in found} == {0}
    assert sum(delivery.redelivered for delivery in found) == 5
    assert bench.link.call("ZCARD", Keys().owners) == 1


def test_a_message_that_outlives_ten_consumers_is_blamed(bench: Any, receive_all: Any) -> None:
    bench.fill("q", 1)
    attempts = []
    for _ in range(12):
        consumer = bench.consumer("q", broker_lease=0.12)
        (found,) = receive_all(consumer, 1)
        attempts.append(found.attempt)
        bench.die(consumer)
    assert attempts == [0] * 11 + [1]


def test_a_living_consumer_keeps_what_it_renews_and_loses_the_rest(bench: Any, receive_all: Any) -> None:
    bench.fill("q", 2)
    slow = bench.consumer("q", broker_lease=4.0)
    kept, dropped = receive_all(slow, 2)
    other = bench.consumer("q")
    ends = time.monotonic() + 60.0
    found: list[Any] = []
    while not found and time.monotonic() < ends:
        assert not slow.renew([kept.receipt])
        found += other.receive(2, 0.3)
    assert numbers(found) == numbers([dropped])
    assert found[0].attempt == 1
    assert slow.renew([kept.receipt, dropped.receipt]) == [dropped.receipt]
    assert slow.settle([Settlement(one.receipt, ACK) for one in (kept, dropped)]) == [dropped.receipt]


def test_garbage_is_handed_out_unread_and_buried_unchanged(bench: Any, receive_all: Any) -> None:
    garbage = [
        b"\xff\x00no message",
        b"",
        b'{"body": 1}',
        b"[" * 100_000,
        b'{"body": "eA==", "headers": {"a": 1e999999}',
    ]
    good = raw(message("q", b"7"))
    bench.link.call("LPUSH", "q", good, *garbage, good)
    consumer = bench.consumer("q")
    found = receive_all(consumer, len(garbage) + 2)
    assert [one.malformed is None for one in found] == [True, *[False] * len(garbage), True]
    assert [one.envelope.body for one in found[1:-1]] == garbage
    assert not consumer.settle([Settlement(one.receipt, RELEASE) for one in found])
    again = receive_all(consumer, len(found))
    assert [one.envelope.body for one in again] == [one.envelope.body for one in found]
    verdict = Bury(reason="not understood \ud800", quarantine=True, worker="w")
    assert not consumer.settle([Settlement(one.receipt, verdict) for one in again[1:-1]])
    graves = [read_epitaph(text) for text in bench.link.call("LRANGE", "q.quarantine", 0, -1)]
    assert [grave.payload for grave in reversed(graves)] == garbage
    assert {(grave.queue, grave.worker) for grave in graves} == {("q", "w")}


def test_a_returned_message_is_buried_without_its_marks(bench: Any, receive_all: Any) -> None:
    sent = raw(message("q", b"1"))
    bench.link.call("LPUSH", "q", sent)
    consumer = bench.consumer("q")
    for _ in range(2):
        (found,) = receive_all(consumer, 1)
        consumer.settle([Settlement(found.receipt, Park(until=time.time(), count_attempt=True))])
    (found,) = receive_all(consumer, 1)
    assert found.attempt == 2
    consumer.settle([Settlement(found.receipt, Bury(reason="r"))])
    text = bench.link.call("LINDEX", "q.dead", 0)
    grave = read_epitaph(text)
    assert (grave.payload, grave.attempts) == (sent, 2)
    assert base64.b64decode(msgspec.json.decode(text)["payload"]) == sent
    assert 0 < bench.link.call("PTTL", "q.dead") <= 3600_000


def test_celery_reads_past_the_marks(bench: Any, receive_all: Any) -> None:
    bench.link.call("LPUSH", "q", raw(message("q", b"1", task_id="x")))
    consumer = bench.consumer("q")
    (found,) = receive_all(consumer, 1)
    consumer.settle([Settlement(found.receipt, RELEASE)])
    returned = msgspec.json.decode(bench.link.call("LINDEX", "q", -1))
    assert returned["headers"]["id"] == "x"
    assert returned["redelivered"] is True
    # a Celery worker that gives it back writes it with spaces
    import json

    bench.link.call("DEL", "q")
    returned["x-celeriac-returns"] = [2, 3]
    bench.link.call("LPUSH", "q", json.dumps(returned))
    (found,) = receive_all(consumer, 1)
    assert (found.attempt, found.redelivered) == (2, True)


def test_a_key_of_another_type_stops_no_other_queue(
    bench: Any, receive_all: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bench.link.call("SET", "bad", "x")
    bench.link.call("HSET", Keys().delayed("odd"), "a", "b")
    bench.fill("q", 3)
    with caplog.at_level(logging.ERROR, "celeriac.transports.redis"):
        consumer = bench.consumer("bad", "odd", "q")
        assert sorted(numbers(consumer.receive(10, 60))) == [0, 1, 2]
    assert {record.message.split(": ")[1] for record in caplog.records} == {"bad", Keys().delayed("odd")}
    with pytest.raises(OperationalError):
        bench.publish(message("bad"))
    # a whole batch is refused before any of it is stored
    with pytest.raises(OperationalError):
        bench.publish(message("q"), message("bad"))
    assert bench.link.call("EXISTS", "q") == 0


def test_what_cannot_go_back_stays_held(bench: Any, receive_all: Any) -> None:
    bench.fill("q", 1)
    consumer = bench.consumer("q", broker_lease=1.2)
    (found,) = receive_all(consumer, 1)
    bench.link.call("SET", "q", "in the way")
    assert not consumer.settle([Settlement(found.receipt, RELEASE)])
    bench.die(consumer)
    heir = bench.consumer("q")
    assert not heir.receive(1, 2.0)
    bench.link.call("DEL", "q")
    assert numbers(receive_all(heir, 1)) == [0]


def test_large_messages_are_taken_few_at_a_time(bench: Any, receive_all: Any) -> None:
    bench.publish(*(message("q", b"x" * 1_500_000) for _ in range(6)), *numbered("q", range(3)))
    consumer = bench.consumer("q")
    sizes = []
    while sum(sizes) < 9:
        sizes.append(len(consumer.receive(100, 1)))
    assert sizes == [2, 2, 5] or max(sizes[:-1]) <= 3


def test_many_at_once_are_more_than_a_stack_holds(bench: Any, receive_all: Any) -> None:
    bench.publish(*numbered("q", range(9000)))
    consumer = bench.consumer("q", broker_lease=30.0)
    found = consumer.receive(9000, 60)
    assert numbers(found) == list(range(9000))
    assert not consumer.renew([one.receipt for one in found])
    half = [Settlement(one.receipt, ACK) for one in found[:4500]]
    assert not consumer.settle(half)
    assert len(consumer.settle([Settlement(one.receipt, ACK) for one in found])) == 4500


def test_scripts_that_the_server_forgot_are_loaded_again(bench: Any, receive_all: Any) -> None:
    bench.fill("q", 2)
    consumer = bench.consumer("q")
    (first,) = receive_all(consumer, 1)
    bench.link.call("SCRIPT", "FLUSH")
    bench.fill("q", 1)
    assert not consumer.renew([first.receipt])
    bench.link.call("SCRIPT", "FLUSH")
    assert not consumer.settle([Settlement(first.receipt, ACK)])
    bench.link.call("SCRIPT", "FLUSH")
    assert len(receive_all(consumer, 2)) == 2


def test_a_full_server_refuses_new_messages_and_gives_out_the_old(bench: Any, receive_all: Any) -> None:
    from celeriac.errors import BrokerFull

    bench.fill("q", 50)
    used = bench.link.call("INFO", "memory")
    limit = int(used.split(b"used_memory:")[1].split(b"\r")[0])
    bench.link.call("CONFIG", "SET", "maxmemory", limit - 100_000)
    try:
        with pytest.raises(BrokerFull):
            bench.fill("q", 1)
        consumer = bench.consumer("q")
        found = receive_all(consumer, 50)
        assert numbers(found) == list(range(50))
        assert not consumer.renew([one.receipt for one in found])
        assert not consumer.settle([Settlement(one.receipt, RELEASE) for one in found[:10]])
        follow_up = numbered("next", range(2))
        assert not consumer.commit((), follow_up, [Settlement(one.receipt, ACK) for one in found[10:]])
        assert numbers(receive_all(consumer, 10)) == list(range(10))
    finally:
        bench.link.call("CONFIG", "SET", "maxmemory", 0)


def test_kept_messages_are_settled_by_the_next_consumer(bench: Any, receive_all: Any) -> None:
    bench.fill("q", 4)
    transport = bench.transport(broker_lease=3.0)
    first = bench.consumer("q", transport=transport)
    found = receive_all(first, 4)
    first.close_keeping([one.receipt for one in found[:3]])
    second = bench.consumer("q", transport=transport)
    time.sleep(1.6)  # longer than a consumer without reports lives; the leases hold on
    assert not second.renew([one.receipt for one in found[:3]])
    assert numbers(receive_all(second, 1)) == [3]
    other = bench.consumer("q")
    assert not other.receive(4, 0.5)
    assert not second.settle([Settlement(found[0].receipt, ACK)])
    second.close_keeping([found[1].receipt])
    third = bench.consumer("q", transport=transport)
    third.close()
    assert sorted(numbers(receive_all(other, 3))) == [1, 2, 3]


def test_nothing_is_left_of_a_consumer(bench: Any, receive_all: Any) -> None:
    bench.fill("q", 3)
    consumer = bench.consumer("q")
    found = receive_all(consumer, 3)
    consumer.settle([Settlement(found[0].receipt, ACK), Settlement(found[1].receipt, Park(until=time.time()))])
    receive_all(consumer, 1)
    consumer.close()
    other = bench.consumer("q")
    other.settle([Settlement(one.receipt, ACK) for one in receive_all(other, 2)])
    other.close()
    left = bench.keys()
    assert all(bench.link.call("PTTL", key) > 0 for key in left), left
    assert not any("owner" in key.removeprefix("_celeriac.owners") for key in left)


def test_delays_wait_where_only_we_look_once_we_serve_the_queue(bench: Any, receive_all: Any) -> None:
    later = time.time() + 0.4
    bench.publish(*numbered("q", [1], not_before=later))
    # perhaps a worker of Celery's comes for it, who holds it till its eta
    assert bench.link.call("LLEN", "q") == 1
    bench.link.call("DEL", "q")
    consumer = bench.consumer("q")
    assert not consumer.receive(1, 0)
    bench.publish(*numbered("q", [2], not_before=later, priority=3))
    assert bench.link.call("ZCARD", Keys().delayed("q")) == 1
    (found,) = receive_all(consumer, 1)
    assert numbers([found]) == [2]
    assert time.time() - later >= -0.01


@pytest.mark.parametrize("ours", [True, False], ids=["our producer", "Celery's producer"])
def test_a_sleeper_is_woken_at_once(bench: Any, ours: bool) -> None:
    consumer = bench.consumer("other", "q")
    assert not consumer.receive(1, 0)
    consumer.inner._claimer.busiest = "q"
    consumer.inner._keeper.report()
    best = 1.0
    for _ in range(20):  # on a machine that does much else, some take longer
        woken: list[float] = []
        arrived: list[Any] = []

        def wait(arrived: list[Any] = arrived, woken: list[float] = woken) -> None:
            arrived.extend(consumer.receive(1, 60))
            woken.append(time.monotonic())

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.25)  # asleep by now, and the next look is half a second away
        sent = time.monotonic()
        if ours:
            bench.publish(message("q"))
        else:
            bench.link.call("LPUSH", "q", raw(message("q")))
        thread.join(timeout=60)
        assert len(arrived) == 1
        best = min(best, woken[0] - sent)
        if best < 0.1:
            break
    assert best < 0.1


def test_one_token_wakes_one_after_another_while_there_is_something(bench: Any) -> None:
    consumers = [bench.consumer("q") for _ in range(3)]
    for consumer in consumers:
        assert not consumer.receive(1, 0)
    # on a machine that does much else, some rounds take longer; each looks by itself twice a second
    assert any(time_until_all_are_woken(bench, consumers) < 0.4 for _ in range(10))


def time_until_all_are_woken(bench: Any, consumers: list[Any]) -> float:
    arrived: list[float] = []
    lock = threading.Lock()

    def wait(consumer: Any) -> None:
        assert len(consumer.receive(1, 60)) == 1
        with lock:
            arrived.append(time.monotonic())

    threads = [threading.Thread(target=wait, args=(consumer,)) for consumer in consumers]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    sent = time.monotonic()
    bench.fill("q", 3)
    for thread in threads:
        thread.join(timeout=60)
    assert len(arrived) == 3
    return max(arrived) - sent


def test_a_stopped_server_makes_nobody_look_dead(bench: Any, receive_all: Any, server: Any) -> None:
    bench.fill("q", 6)
    consumers = [bench.consumer("q", broker_lease=6.0) for _ in range(3)]
    held = [receive_all(consumer, 2) for consumer in consumers]
    server.pause()
    time.sleep(3.4)  # a consumer without reports is dead after 3
    server.resume()
    newcomer = bench.consumer("q", broker_lease=6.0)
    assert not newcomer.receive(6, 0.3)
    for consumer, deliveries in zip(consumers, held, strict=True):
        assert not consumer.settle([Settlement(delivery.receipt, ACK) for delivery in deliveries])


def test_the_look_at_a_list_rests_while_tokens_tell_of_every_message(bench: Any) -> None:
    transport = bench.transport()
    publisher, consumer = transport.publisher(), bench.consumer("q", transport=transport)

    async def come(send: Callable[[], object]) -> int:
        """Have it sent while the consumer naps."""
        inner = consumer.inner
        receiving = asyncio.ensure_future(inner.receive(1, 60.0))
        while not inner._claimer.is_napping:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.0005)
        await asyncio.to_thread(send)
        found = await receiving
        await inner.settle([Settlement(one.receipt, ACK) for one in found])
        return len(found)

    def ours() -> None:
        publisher.publish(numbered("q", [1]), time.monotonic() + 60)

    def theirs() -> None:
        bench.link.call("LPUSH", "q", payload)

    def looks_of(count: int) -> int:
        bench.link.call("CONFIG", "RESETSTAT")
        for _ in range(count):
            assert consumer.run(come(ours)) == 1
        text = bench.link.call("INFO", "commandstats").decode()
        found = re.search(r"cmdstat_blmove:calls=(\d+)", text)
        return int(found[1]) if found else 0

    bench.fill("r", 1)
    payload = bench.link.call("RPOP", "r")
    assert looks_of(10) >= 9
    assert looks_of(200) < 100
    assert looks_of(10) <= 1, "it rests"
    assert consumer.run(come(theirs)) == 1
    consumer.inner._watch._retry_at = 0.0  # a second later
    assert looks_of(10) >= 9, "it looks again"
    publisher.close()
