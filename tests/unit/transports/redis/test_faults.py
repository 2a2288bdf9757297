"""Connections that break at the worst moment: nothing is lost, nothing is done twice, errors say what is known."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from redis.connection import AbstractConnection, BaseParser

from celeriac.errors import BrokerUnavailable, ImproperlyConfigured, OperationalError, PublishTimeout, PublishUnknown
from celeriac.redis.address import address_of
from celeriac.redis.connect import Link, open_link
from celeriac.redis.errors import Fault, LinkBroken, ReplyError
from celeriac.redis.keys import Keys
from celeriac.redis.looped import AsyncLink
from celeriac.redis.scripts import Script, script
from celeriac.testing.conformance.transport import message, numbered, stored
from celeriac.testing.proxy import CutAt, FaultProxy, Hold
from celeriac.transports.base import ACK, QueueSpec, Settlement
from celeriac.wire.stored_status import packed

if TYPE_CHECKING:
    from collections.abc import Iterator

#: what ``settle.lua`` answers when nothing was lost
_SETTLED = b"*2\r\n*0\r\n*0\r\n"


def there_is(*kinds: type) -> Counter[str]:
    return Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, kinds))


@pytest.mark.usefixtures("uncollected")
def test_a_cut_link_goes_without_the_garbage_collector(proxy: FaultProxy, bench: Any, server: Any) -> None:
    """A worker has it run seldom, and each link has buffers."""
    consumer = bench.consumer("q", transport=bench.transport(proxy.url(server.url())))
    kinds = (Link, AsyncLink, LinkBroken, BaseParser, AbstractConnection)

    def nap_and_be_cut() -> None:
        cut = proxy.to_server.add(CutAt(b"BZPOPMIN"))
        for _ in range(100):
            assert not consumer.receive(5, 0.3)
            if cut.wait(0):
                return
        raise AssertionError("nobody has napped")

    nap_and_be_cut()
    before = there_is(*kinds)
    for _ in range(5):
        nap_and_be_cut()
    after = there_is(*kinds)
    # some may be on their way out: idle ones that the cut has closed, and an error that a thread looks at
    assert all(after[kind] < before[kind] + 5 for kind in after), (before, after)


@pytest.mark.usefixtures("uncollected")
def test_a_link_that_is_refused_goes_without_the_garbage_collector(server: Any) -> None:
    link = open_link(address_of(server.url(), setting="broker_url", options={}))
    with pytest.raises(ReplyError):
        link.call("NO-SUCH-COMMAND")
    link.close()
    gone = weakref.ref(link)
    del link
    assert gone() is None


def numbers(deliveries: Any) -> list[int]:
    return [int(delivery.envelope.body) for delivery in deliveries]


@pytest.fixture
def proxy(server: Any) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", server.port) as started:
        yield started


@pytest.mark.parametrize("how", ["cut", "reset"])
def test_a_claim_whose_answer_is_lost_is_delivered_at_once(
    proxy: FaultProxy, bench: Any, server: Any, how: Any
) -> None:
    bench.fill("q", 5)
    consumer = bench.consumer("q", transport=bench.transport(proxy.url(server.url())))
    cut = proxy.to_client.add(CutAt(b"delivery_tag", how=how))
    found: list[Any] = []
    while len(found) < 5:
        more = consumer.receive(5, 30)  # one that hung would bring nothing in all that time
        assert more
        found += more
    assert cut.wait(30)
    assert numbers(found) == [0, 1, 2, 3, 4]
    assert {(one.attempt, one.redelivered) for one in found} == {(0, False)}
    assert not consumer.settle([Settlement(one.receipt, ACK) for one in found])
    assert not consumer.receive(5, 0)


def test_a_claim_that_arrives_late_takes_nothing(bench: Any) -> None:
    bench.fill("q", 1)
    keys = Keys()
    owner = "late"
    script("resume").run(bench.link, (keys.held(owner), keys.lease(owner), keys.fence(owner)), (3, 4, 1000))

    def claim(number: int) -> Any:
        names = (
            keys.owners, keys.held(owner), keys.lease(owner), keys.fence(owner), keys.amnesty, keys.delayed("q"),
            keys.wake("q"), "q",
        )  # fmt: skip
        return script("claim").run(bench.link, names, (owner, number, 10, 1000, 1000, keys.separator, 1, "q", "0.q"))

    assert claim(4) == [-1, []]
    assert len(claim(5)) == 4


def test_a_settlement_whose_answer_is_lost_is_done_once(proxy: FaultProxy, bench: Any, server: Any) -> None:
    bench.fill("q", 2)
    consumer = bench.consumer("q", transport=bench.transport(proxy.url(server.url())))
    found = consumer.receive(2, 60)
    for one in found:
        cut = proxy.to_client.add(CutAt(_SETTLED))
        assert not consumer.commit((), numbered("next", [1]), [Settlement(one.receipt, ACK)])
        assert cut.wait(60)
    assert bench.link.call("LLEN", "next") == 2
    assert len(consumer.settle([Settlement(one.receipt, ACK) for one in found])) == 2


def test_a_publish_whose_answer_is_lost_may_have_arrived(proxy: FaultProxy, bench: Any, server: Any) -> None:
    publisher = bench.transport(proxy.url(server.url())).publisher()
    publisher.publish([message("q")], time.monotonic() + 60)
    proxy.to_client.add(CutAt(b":2\r\n"))
    with pytest.raises(PublishUnknown):
        publisher.publish([message("q")], time.monotonic() + 60)
    assert bench.link.call("LLEN", "q") == 2
    hold = proxy.to_client.add(Hold())
    began = time.monotonic()
    with pytest.raises((PublishTimeout, BrokerUnavailable)):
        publisher.publish([message("q")], time.monotonic() + 0.5)
    assert time.monotonic() - began > 0.4
    hold.remove()
    publisher.publish([message("q")], time.monotonic() + 60)
    publisher.close()


def test_a_publish_to_nobody_has_not_arrived(proxy: FaultProxy, bench: Any, server: Any) -> None:
    publisher = bench.transport(proxy.url(server.url())).publisher()
    publisher.publish([message("q")], time.monotonic() + 60)
    proxy.refuse()
    proxy.cut()
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        publisher.publish([message("q")], time.monotonic() + 60)
    assert time.monotonic() - began < 30
    proxy.heal()
    publisher.publish([message("q")], time.monotonic() + 60)
    assert bench.link.call("LLEN", "q") == 2
    publisher.close()


def test_a_replica_is_no_broker(bench: Any) -> None:
    consumer = bench.consumer("q")
    assert not consumer.receive(1, 0)
    bench.link.call("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(BrokerUnavailable):
            bench.fill("q", 1)
        with pytest.raises(BrokerUnavailable):
            consumer.receive(1, 0)
    finally:
        bench.link.call("REPLICAOF", "NO", "ONE")
    bench.fill("q", 1)
    assert numbers(consumer.receive(1, 60)) == [0]


def test_a_wrong_password_is_one_clear_error(bench: Any) -> None:
    bench.link.call("CONFIG", "SET", "requirepass", "secret")
    try:
        transport = bench.transport(bench.url.replace("redis://", "redis://:wrong@"))
        for work in (
            lambda: bench.publish(message("q"), transport=transport),
            lambda: bench.consumer("q", transport=transport).receive(1, 0),
            lambda: transport.admin().depth("q"),
        ):
            with pytest.raises(ImproperlyConfigured, match="broker_url"):
                work()
    finally:
        bench.link.call("CONFIG", "SET", "requirepass", "")


def test_a_forked_child_publishes_over_its_own_connection(bench: Any) -> None:
    import os

    publisher = bench.transport().publisher()
    publisher.publish(numbered("q", [0]), time.monotonic() + 60)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for number in range(1, 50):
                publisher.publish(numbered("q", [number]), time.monotonic() + 60)
            status = 0
        finally:
            os._exit(status)
    for number in range(50, 100):
        publisher.publish(numbered("q", [number]), time.monotonic() + 60)
    assert os.waitpid(child, 0)[1] == 0
    consumer = bench.consumer("q")
    assert sorted(numbers(consumer.receive(200, 60))) == list(range(100))
    publisher.close()


async def napping(consumer: Any) -> None:
    while not consumer._claimer.is_napping:  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0.001)


async def cancelled_wait(consumer: Any) -> None:
    receiving = asyncio.create_task(consumer.receive(10, 30.0))
    await napping(consumer)
    receiving.cancel()
    with suppress(asyncio.CancelledError):
        await receiving


def test_another_set_of_queues_is_received_from_at_once(bench: Any) -> None:
    consumer = bench.consumer("q")
    bench.fill("other", 1)

    async def redirected(inner: Any) -> Any:
        receiving = asyncio.create_task(inner.receive(10, 30.0))
        await napping(inner)
        assert await inner.redirect([QueueSpec(name="other")])
        async with asyncio.timeout(60):
            return await receiving

    assert numbers(consumer.run(redirected(consumer.inner))) == [0]
    bench.fill("q", 1)
    assert not consumer.receive(10, 0)


def test_closing_ends_a_wait_and_nothing_is_taken_after_it(bench: Any) -> None:
    consumer = bench.consumer("q")

    async def closed(inner: Any) -> Any:
        receiving = asyncio.create_task(inner.receive(10, 30.0))
        await napping(inner)
        await inner.close()
        async with asyncio.timeout(60):
            return await receiving

    assert consumer.run(closed(consumer.inner)) == []
    bench.fill("q", 3)
    assert bench.link.call("LLEN", Keys().list_of("q")) == 3
    left = bench.link.call("KEYS", "_celeriac.*")
    assert not [key for key in left if b".held." in key or b".fence." in key]


def test_a_cancelled_wait_leaves_what_it_took_to_the_next(bench: Any) -> None:
    consumer = bench.consumer("q")

    consumer.run(cancelled_wait(consumer.inner))
    bench.fill("q", 3)  # the claim that waits in the server takes these, and nobody reads its answer
    found: list[Any] = []
    ends = time.monotonic() + 30
    while len(found) < 3 and time.monotonic() < ends:
        found += consumer.receive(10, 0.2)
    assert numbers(found) == [0, 1, 2]
    assert not consumer.settle([Settlement(one.receipt, ACK) for one in found])


def test_who_closes_after_a_cancelled_wait_gives_back_what_it_took(bench: Any) -> None:
    consumer = bench.consumer("q")

    consumer.run(cancelled_wait(consumer.inner))
    bench.fill("q", 3)
    consumer.close()
    assert bench.link.call("LLEN", Keys().list_of("q")) == 3


def test_without_leave_to_nap_a_consumer_looks_now_and_then_and_says_so(bench: Any, caplog: Any) -> None:
    bench.link.call("ACL", "SETUSER", "narrow", "on", ">word", "~*", "&*", "+@all", "-bzpopmin")
    consumer = bench.consumer("q", transport=bench.transport(bench.url.replace("redis://", "redis://narrow:word@")))
    assert not consumer.receive(1, 0.5)
    assert "no nap is possible" in caplog.text
    assert consumer.inner._claimer._number < 20
    bench.fill("q", 1)
    assert numbers(consumer.receive(1, 30)) == [0]
    consumer.close()
    bench.link.call("ACL", "DELUSER", "narrow")


def test_a_silent_server_breaks_a_link_of_the_loop(bench: Any, server: Any) -> None:
    link = open_link(address_of(bench.url, setting="broker_url", options={"socket_timeout": 0.3}))

    async def asked() -> None:
        asking = AsyncLink(link)
        assert await asking.call("PING") == b"PONG"
        server.pause()
        try:
            answers = [asking.call("PING"), asking.call_later("PING"), asking.call("PING")]
            for answer in answers:
                with pytest.raises(LinkBroken) as caught:
                    await answer
                assert caught.value.fault is Fault.SLOW
        finally:
            server.resume()
        with pytest.raises(LinkBroken):
            asking.call("PING")
        asking.close()

    asyncio.run(asked())


def test_commands_larger_than_the_socket_takes_are_written_on_in_order(bench: Any) -> None:
    link = open_link(address_of(bench.url, setting="broker_url", options={}))

    async def asked() -> None:
        asking = AsyncLink(link)
        large = [bytes([65 + number]) * (8 << 20) for number in range(4)]
        answers = [asking.call("RPUSH", "l", value) for value in large]
        assert [await answer for answer in answers] == [1, 2, 3, 4]
        assert await asking.call("LRANGE", "l", 0, -1) == large
        asking.close()

    asyncio.run(asked())


def test_old_servers_get_scripts_without_the_first_line(bench: Any) -> None:
    # this server knows the first line, so it is given one that it refuses as old ones refuse any
    old = Script("old", "#!lua flags=what-is-this\nreturn ARGV[1]")
    link = open_link(address_of(bench.url, setting="broker_url", options={}))
    assert old.run(link, (), ("x",)) == b"x"
    assert old.run(link, (), ("y",)) == b"y"
    broken = Script("broken", "#!lua\nreturn (")
    with pytest.raises(ReplyError):
        broken.run(link, (), ())
    link.close()


def test_a_result_that_the_script_cannot_judge_is_judged_here(bench: Any) -> None:
    before = stored("t", "STARTED").payload + b" " * 2000
    bench.link.call("SET", "celery-task-meta-t", packed(before, "gzip"))
    done = stored("u", "SUCCESS").payload + b" " * 2000
    bench.link.call("SET", "celery-task-meta-u", packed(done, "gzip"))
    bench.fill("q", 1)
    consumer = bench.consumer("q")
    (found,) = consumer.receive(1, 60)
    results = [stored("t", "SUCCESS"), stored("u", "FAILURE"), stored("v", "SUCCESS")]
    assert not consumer.commit(results, numbered("next", [1]), [Settlement(found.receipt, ACK)])
    assert b'"SUCCESS"' in bench.link.call("GET", "celery-task-meta-t")
    assert bench.link.call("GET", "celery-task-meta-u") == packed(done, "gzip")
    assert b'"SUCCESS"' in bench.link.call("GET", "celery-task-meta-v")
    assert bench.link.call("LLEN", "next") == 1


def test_an_unreachable_server_is_told_within_the_deadline(bench: Any) -> None:
    transport = bench.transport("redis://127.0.0.1:1/0")
    began = time.monotonic()
    with pytest.raises(OperationalError):
        bench.consumer("q", transport=transport).receive(1, 0)
    with pytest.raises(BrokerUnavailable):
        bench.publish(message("q"), transport=transport)
    assert time.monotonic() - began < 30
