"""The Redis broker where it is not one open server: with few rights, on a cluster, behind Sentinels that fail over."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from tests.on_loop import OnLoop

from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import BrokerFull, ImproperlyConfigured, OperationalError
from celeriac.settings import Settings
from celeriac.testing.conformance.transport import casts, ear, message, numbered, stored
from celeriac.testing.servers import ClusterServers, RedisServer, SentinelGroup, ServerMissing
from celeriac.transports.base import ACK, RELEASE, Bury, Park, QueueSpec, Route, Settlement
from celeriac.transports.redis.transport import RedisTransport
from celeriac.wire.revocation import Revocation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celeriac.transports.base import Delivery

pytestmark = pytest.mark.system
DOCS = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "brokers" / "redis.md"


def started(make: Callable[[], Any]) -> Iterator[Any]:
    try:
        server = make()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    yield from started(RedisServer)


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterServers]:
    yield from started(ClusterServers)


@pytest.fixture
def sentinels() -> Iterator[SentinelGroup]:
    yield from started(SentinelGroup)


@contextlib.contextmanager
def opened(url: str, **options: Any) -> Iterator[RedisTransport]:
    settings = Settings().replace(broker_transport_options=options)
    transport = RedisTransport(url, settings, SYSTEM_CLOCK)
    try:
        yield transport
    finally:
        transport.close()


def received(consumer: OnLoop, wanted: int, patience: float = 60.0) -> list[Delivery]:
    found: list[Delivery] = []
    ends = time.monotonic() + patience
    while len(found) < wanted and time.monotonic() < ends:
        found.extend(consumer.receive(wanted - len(found), 0.2))
    assert len(found) == wanted
    return found


def test_a_full_server_lets_a_worker_in_whose_queues_are_there() -> None:
    for server in started(RedisServer):
        with opened(server.url()) as transport, contextlib.closing(redis.Redis(port=server.port)) as client:
            known = QueueSpec(name="known", exchange="known", routing_key="known")
            transport.admin().declare([known])
            transport.publisher().publish(numbered("known", [1]), time.monotonic() + 60)
            client.config_set("maxmemory", 1)
            transport.admin().declare([known])
            with pytest.raises(BrokerFull):
                transport.admin().declare([known, QueueSpec(name="new")])
            with pytest.raises(BrokerFull):
                transport.publisher().publish(numbered("known", [2]), time.monotonic() + 60)
            consumer = OnLoop(transport.consumer, [known], "w")
            [delivery] = received(consumer, 1)
            assert not consumer.settle([Settlement(delivery.receipt, ACK)])
            consumer.close()


def is_a_broker(transport: RedisTransport) -> None:
    """Everything once."""
    soon = time.monotonic() + 60
    admin, publisher, broadcast = transport.admin(), transport.publisher(), transport.broadcast()
    specs = [QueueSpec(name=name, exchange="e", exchange_type="topic", routing_key=f"{name}.#") for name in ("a", "b")]
    admin.declare(specs)
    assert {"a", "b"} <= set(admin.queues())
    consumer = OnLoop(transport.consumer, specs, "w")
    assert not consumer.receive(1, 0.05)
    publisher.publish([*numbered("a", [1, 2, 3]), message("", route=Route("e", "b.x", "topic"))], soon)
    publisher.publish(numbered("b", [4], not_before=time.time() + 0.2, priority=6), soon)
    one, two, three, *others = sorted(received(consumer, 5), key=lambda one: one.envelope.body)
    assert not consumer.renew([one.receipt, two.receipt])
    done = [Settlement(other.receipt, ACK) for other in (one, *others)]
    assert not consumer.commit(
        [stored("t", "SUCCESS")], numbered("next", [5]), [*done, Settlement(two.receipt, RELEASE)]
    )
    assert not consumer.settle([Settlement(three.receipt, Bury(reason="r"))])
    (again,) = received(consumer, 1)
    assert not consumer.settle([Settlement(again.receipt, Park(until=time.time() + 60))])
    counts = admin.counts("a")
    assert (counts.waiting, counts.delayed, counts.held, counts.dead) == (0, 1, 0, 1)
    (buried,) = admin.buried(["a"], 10)
    assert admin.replay([buried]) == 1
    assert admin.undelay("a") == 1
    assert not admin.stranded(0)
    assert not admin.rescue(0)
    consumer.inner._keeper.report()
    consumer.close()
    assert admin.purge("a") == 2
    assert admin.depth("next") == 1
    admin.delete("next")
    listening = broadcast.subscribe(ear("x", "fanout", "me"))
    replies = broadcast.subscribe(ear("r", "direct", "me", "k"))
    broadcast.publish([*casts("x", "fanout", [""]), *casts("r", "direct", ["k"])], soon)
    assert len(listening.receive(1, 60)) == 1
    assert len(replies.receive(1, 60)) == 1
    transport.add_revocations([Revocation("gone")], 60.0)
    assert [one.entry.value for one in transport.read_revocations(0, 10).standing] == ["gone"]
    for part in (listening, replies, broadcast, publisher, admin):
        part.close()


def test_the_rights_of_the_docs_suffice(server: RedisServer) -> None:
    found = re.search(r"<!-- acl: broker -->\n    (ACL SETUSER .*)\n", DOCS.read_text(encoding="utf-8"))
    assert found is not None
    with redis.Redis(port=server.port) as client:
        client.execute_command(*found[1].split())
        try:
            url = f"redis://broker:secret@127.0.0.1:{server.port}/0"
            with opened(url, global_keyprefix="shop:") as transport:
                is_a_broker(transport)
            with opened(url) as transport, pytest.raises(ImproperlyConfigured, match="broker_url"):
                is_a_broker(transport)
        finally:
            client.acl_deluser("broker")


def test_a_cluster_with_a_prefix_in_braces(cluster: ClusterServers) -> None:
    with opened(cluster.url(), global_keyprefix="{shop}:") as transport:
        is_a_broker(transport)
    with pytest.raises(ImproperlyConfigured, match="global_keyprefix"), opened(cluster.url()):
        pass


def test_a_fail_over_of_sentinels_is_followed(sentinels: SentinelGroup) -> None:
    with opened(sentinels.url(), master_name=sentinels.name) as transport:
        specs = [QueueSpec(name="q")]
        publisher = transport.publisher()
        consumer = OnLoop(transport.consumer, specs, "w")
        publisher.publish(numbered("q", [1, 2]), time.monotonic() + 60)
        received(consumer, 1)
        with redis.Redis(port=sentinels.servers[0].port) as client:
            client.wait(1, 5000)  # the replica has it
        sentinels.servers[0].kill()
        ends = time.monotonic() + 120
        while True:
            try:
                publisher.publish(numbered("q", [3]), time.monotonic() + 2)
                break
            except OperationalError:
                assert time.monotonic() < ends
                time.sleep(0.2)
        with contextlib.suppress(OperationalError):
            consumer.close()
        heir = OnLoop(transport.consumer, specs, "heir")
        bodies = {delivery.envelope.body for delivery in received(heir, 3, 120)}
        assert bodies == {b"1", b"2", b"3"}
        heir.close()
        publisher.close()
