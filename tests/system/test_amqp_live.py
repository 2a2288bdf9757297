"""The AMQP shells and a real RabbitMQ: everything they do, and everything it does to them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from celeriac.amqp.asynchronous import AsyncChannel, AsyncConnection
from celeriac.amqp.blocking import BlockingChannel, BlockingConnection
from celeriac.amqp.errors import (
    ChannelClosed,
    ConnectFailed,
    ConnectionBlocked,
    ConnectionClosed,
    ConnectionLost,
    ConsumerCancelled,
    DeadlinePassed,
    LoginRefused,
    NotAmqp,
    TlsFailed,
    VhostRefused,
)  # fmt: skip
from celeriac.amqp.messages import CONFIRMED, Fate, Message, Publication
from celeriac.amqp.parameters import Parameters, parameters_of
from celeriac.testing.servers import RabbitServer, ServerMissing, free_port
from celeriac.transports.url import BrokerUrl

pytestmark = pytest.mark.system
RETURNED = Fate("returned", 312, "NO_ROUTE")
_names = itertools.count()


def soon(seconds: float = 60.0) -> float:
    return time.monotonic() + seconds


# ── the server, with certificates of its own ─────────────────────────────────────────────────────────────────


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem; server.pem for localhost, signed by it; client.pem; stranger.pem, an authority that signed nothing."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("ca", "stranger"):
        openssl(
            folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
            "-keyout", f"{name}.key", "-out", f"{name}.pem",
        )  # fmt: skip
    for name, extension in (("server", "subjectAltName=DNS:localhost"), ("client", "extendedKeyUsage=clientAuth")):
        (folder / "extensions").write_text(extension)
        openssl(
            folder, "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
            "-keyout", f"{name}.key", "-out", f"{name}.csr",
        )  # fmt: skip
        openssl(
            folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "2", "-extfile", "extensions", "-out", f"{name}.pem",
        )  # fmt: skip
        (folder / f"{name}.key").chmod(0o644)
    return folder


@pytest.fixture(scope="module")
def tls_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(certificates: Path, tls_port: int) -> Iterator[RabbitServer]:
    try:
        rabbit = RabbitServer(
            f"listeners.ssl.1 = 127.0.0.1:{tls_port}\n"
            f"ssl_options.cacertfile = {certificates}/ca.pem\n"
            f"ssl_options.certfile = {certificates}/server.pem\n"
            f"ssl_options.keyfile = {certificates}/server.key\n"
            "ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = false\n"
        )
    except ServerMissing as missing:
        pytest.skip(str(missing))
    rabbit.start()
    try:
        yield rabbit
    finally:
        rabbit.stop()


def parameters(url: str, **settings: Any) -> Parameters:
    return parameters_of(BrokerUrl.parse(url), **settings)


@pytest.fixture
def url(server: RabbitServer) -> Iterator[str]:
    name = f"live{next(_names)}"
    yield server.add_vhost(name)
    server.remove_vhost(name)


@pytest.fixture
def connection(url: str) -> Iterator[BlockingConnection]:
    opened = BlockingConnection.open(parameters(url), soon())
    yield opened
    opened.close(soon())


@pytest.fixture
def channel(connection: BlockingConnection) -> BlockingChannel:
    return connection.channel(soon())


def to(key: str, body: bytes = b"body", **more: Any) -> Publication:
    return Publication(more.pop("exchange", ""), key, {"delivery_mode": 2, **more}, {"n": 1}, body, True)


def collect(channel: BlockingChannel, count: int) -> list[Message]:
    found: list[Message] = []
    deadline = soon()
    while len(found) < count and time.monotonic() < deadline:
        found += channel.receive(count - len(found), 1.0)
    return found


# ── what it is for ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_whole_way_blocking(channel: BlockingChannel) -> None:
    declared = channel.declare_queue("q", deadline=soon(), arguments={"x-max-priority": 5})
    assert (declared.name, declared.messages, declared.consumers) == ("q", 0, 0)
    channel.confirm_select(soon())
    assert channel.publish([to("q", b"%d" % number) for number in range(500)], soon()) == [CONFIRMED] * 500
    assert channel.declare_queue("q", deadline=soon(), passive=True).messages == 500
    channel.qos(100, deadline=soon())
    tag = channel.consume("q", deadline=soon())
    first = collect(channel, 100)
    assert [message.body for message in first] == [b"%d" % number for number in range(100)]
    assert {message.consumer_tag for message in first} == {tag}
    assert first[0].decoded() == ({"delivery_mode": 2}, {"n": 1})
    assert channel.receive(10, 0.05) == []  # the prefetch is used up
    channel.ack(first[-1].delivery_tag, multiple=True)
    second = collect(channel, 100)
    channel.nack(second[0].delivery_tag, requeue=True)
    (again,) = collect(channel, 1)
    assert (again.body, again.redelivered) == (b"100", True)
    channel.cancel(tag, deadline=soon())
    channel.close(soon())


def test_the_whole_way_asyncio(url: str) -> None:
    async def run() -> None:
        connection = await AsyncConnection.open(parameters(url), soon())
        channel = await connection.channel(soon())
        await channel.declare_queue("q", deadline=soon())
        await channel.confirm_select(soon())
        batch = [to("q", b"%d" % number) for number in range(500)]
        assert await channel.publish(batch, soon()) == [CONFIRMED] * 500
        await channel.qos(100, deadline=soon())
        tag = await channel.consume("q", deadline=soon())
        found: list[Message] = []
        while len(found) < 500:
            messages = await channel.receive(50, 60.0)
            assert 0 < len(messages) <= 50
            found += messages
            for message in messages:
                channel.ack(message.delivery_tag)
        assert [message.body for message in found] == [publication.body for publication in batch]
        await channel.cancel(tag, deadline=soon())
        assert (await channel.declare_queue("q", deadline=soon(), passive=True)).messages == 0
        assert await channel.receive(1, 0.01) == []
        await channel.close(soon())
        await connection.close(soon())

    asyncio.run(run())


def test_exchanges_bindings_and_the_rest(channel: BlockingChannel) -> None:
    channel.declare_exchange("news", "topic", deadline=soon())
    channel.declare_exchange("all", "fanout", deadline=soon(), durable=False, auto_delete=True)
    channel.bind_exchange("all", "news", "a.#", deadline=soon())
    name = channel.declare_queue("", deadline=soon(), durable=False, exclusive=True).name
    assert name.startswith("amq.gen-")
    channel.bind_queue(name, "all", deadline=soon())
    channel.confirm_select(soon())
    fates = channel.publish([to("a.b", exchange="news"), to("b", exchange="news"), to("a", exchange="news")], soon())
    assert fates == [CONFIRMED, RETURNED, CONFIRMED]
    message = channel.get(name, deadline=soon())
    assert message is not None
    assert (message.exchange, message.routing_key, message.body) == ("news", "a.b", b"body")
    channel.ack(message.delivery_tag)
    assert channel.purge_queue(name, deadline=soon()) == 1
    assert channel.get(name, deadline=soon()) is None
    channel.unbind_queue(name, "all", deadline=soon())
    assert channel.delete_queue(name, deadline=soon()) == 0
    channel.delete_exchange("news", deadline=soon())


def test_bodies_of_all_sizes(channel: BlockingChannel) -> None:
    channel.declare_queue("q", deadline=soon())
    channel.confirm_select(soon())
    sizes = [0, 1, 131063, 131064, 131065, 262128, 262129, 5_000_000]
    bodies = [bytes(range(256)) * (size // 256) + b"x" * (size % 256) for size in sizes]
    assert channel.publish([to("q", body) for body in bodies], soon(90)) == [CONFIRMED] * len(bodies)
    channel.consume("q", deadline=soon(), no_ack=True)
    assert [message.body for message in collect(channel, len(bodies))] == bodies


def test_a_message_over_our_limit_is_told_apart(url: str) -> None:
    connection = BlockingConnection.open(parameters(url, message_limit=200_000), soon())
    channel = connection.channel(soon())
    channel.declare_queue("q", deadline=soon())
    channel.confirm_select(soon())
    channel.publish([to("q", b"x" * 200_001), to("q", b"y" * 200_000)], soon())
    channel.consume("q", deadline=soon())
    big, fitting = collect(channel, 2)
    assert (big.body, big.oversize) == (b"", 200_001)
    assert (len(fitting.body), fitting.oversize) == (200_000, 0)
    connection.close(soon())


def test_every_type_survives_the_broker(channel: BlockingChannel) -> None:
    headers = {
        "none": None, "true": True, "small": -7, "large": -(2**62), "float": 1.5, "text": "schön", "bytes": b"\xff\0",
        "decimal": Decimal("1.25"), "time": datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), "list": [1, ["x", None], {}],
        "table": {"a": {"b": [True]}}, "long": "x" * 3000,
    }  # fmt: skip
    properties = {
        "content_type": "a", "content_encoding": "b", "delivery_mode": 1, "priority": 3, "correlation_id": "c",
        "reply_to": "d", "expiration": "60000", "message_id": "e", "timestamp": 1700000000, "type": "f",
        "user_id": "guest", "app_id": "g",
    }  # fmt: skip
    channel.declare_queue("q", deadline=soon())
    # a header exchange makes the broker look into the table
    channel.declare_exchange("look", "headers", deadline=soon())
    channel.bind_queue("q", "look", deadline=soon(), arguments={"x-match": "all", "small": -7})
    channel.confirm_select(soon())
    assert channel.publish([Publication("look", "", properties, headers, b"", True)], soon()) == [CONFIRMED]
    message = channel.get("q", deadline=soon())
    assert message is not None
    assert message.decoded() == (properties, headers)
    # passed on as it came, it is the same
    channel.publish([Publication("", "q", properties, message.headers_bytes, b"", True)], soon())
    again = channel.get("q", deadline=soon())
    assert again is not None
    assert again.decoded() == (properties, headers)


def test_the_brokers_own_tables_are_read(channel: BlockingChannel) -> None:
    channel.declare_queue("dead", deadline=soon())
    channel.declare_queue(
        "q", deadline=soon(), arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    )
    channel.confirm_select(soon())
    channel.publish([to("q")], soon())
    message = channel.get("q", deadline=soon())
    assert message is not None
    channel.nack(message.delivery_tag, requeue=False)
    channel.consume("dead", deadline=soon())
    (buried,) = collect(channel, 1)
    (death,) = buried.headers["x-death"]
    assert (death["queue"], death["reason"], death["count"]) == ("q", "rejected", 1)
    assert isinstance(death["time"], datetime)


# ── what the broker does to us ───────────────────────────────────────────────────────────────────────────────


def test_what_comes_back(channel: BlockingChannel) -> None:
    channel.declare_queue("q", deadline=soon())
    channel.confirm_select(soon())
    batch = [to("q" if number % 3 else "nowhere", correlation_id=str(number)) for number in range(100)]
    fates = channel.publish(batch, soon())
    assert fates == [CONFIRMED if number % 3 else RETURNED for number in range(100)]


def test_a_full_queue_rejects(channel: BlockingChannel) -> None:
    channel.declare_queue("q", deadline=soon(), arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    channel.confirm_select(soon())
    kinds = [fate.kind for fate in channel.publish([to("q")] * 5, soon())]
    assert kinds[0] == "confirmed"
    assert "rejected" in kinds


@pytest.mark.parametrize("code", [404, 405, 406])
def test_a_channel_is_closed_by_the_broker(url: str, connection: BlockingConnection, code: int) -> None:
    channel = connection.channel(soon())
    if code == 405:
        other = BlockingConnection.open(parameters(url), soon())
        other.channel(soon()).declare_queue("mine", deadline=soon(), durable=False, exclusive=True)
    elif code == 406:
        channel.declare_queue("q", deadline=soon())
    names = {404: "none", 405: "mine", 406: "q"}
    with pytest.raises(ChannelClosed) as caught:
        channel.declare_queue(names[code], deadline=soon(), passive=code != 406, durable=False)
    assert caught.value.code == code
    with pytest.raises(ChannelClosed):
        channel.declare_queue("another", deadline=soon())
    # the connection and its other channels live on
    assert connection.channel(soon()).declare_queue("another", deadline=soon()).name == "another"
    if code == 405:
        other.close(soon())


def test_publishing_to_no_exchange_closes_the_channel(connection: BlockingConnection) -> None:
    channel = connection.channel(soon())
    channel.confirm_select(soon())
    fates = channel.publish([to("k", exchange="none")] * 3, soon())
    assert {(fate.kind, fate.code) for fate in fates} == {("unknown", 404)}
    assert isinstance(channel.error, ChannelClosed)
    assert not connection.is_closed


def test_a_wrong_acknowledgement_closes_the_channel(channel: BlockingChannel) -> None:
    channel.declare_queue("q", deadline=soon())
    channel.consume("q", deadline=soon())
    channel.ack(12345)
    with pytest.raises(ChannelClosed, match="unknown delivery tag") as caught:
        channel.receive(1, 60.0)
    assert caught.value.code == 406


def test_a_deleted_queue_cancels_its_consumer(url: str, connection: BlockingConnection) -> None:
    channel, other = connection.channel(soon()), connection.channel(soon())
    channel.declare_queue("q", deadline=soon())
    tag = channel.consume("q", deadline=soon())
    other.delete_queue("q", deadline=soon())
    with pytest.raises(ConsumerCancelled, match=tag):
        channel.receive(1, 60.0)

    async def run() -> None:
        opened = await AsyncConnection.open(parameters(url), soon())
        mine = await opened.channel(soon())
        await mine.declare_queue("q", deadline=soon())
        await mine.consume("q", deadline=soon())
        receiving = asyncio.ensure_future(mine.receive(1, 60.0))
        await asyncio.to_thread(other.delete_queue, "q", deadline=soon())
        with pytest.raises(ConsumerCancelled):
            await receiving
        await opened.close(soon())

    asyncio.run(run())


def close_as_an_operator(server: RabbitServer, names: set[str]) -> None:
    """The management plugin needs some seconds to know a connection."""
    deadline = soon(90)
    while names and time.monotonic() < deadline:
        for one in server.api("GET", "/connections"):
            name = one.get("client_properties", {}).get("connection_name")
            if name in names:
                names.discard(name)
                server.api("DELETE", f"/connections/{quote(one['name'])}")
        time.sleep(0.05)
    assert not names, "these are not listed"


def test_an_operator_closes_connections(server: RabbitServer, url: str) -> None:
    def named(name: str) -> Parameters:
        return parameters(url, options={"client_properties": {"connection_name": name}})

    def is_noticed(connection: BlockingConnection, wait: float) -> bool:
        with contextlib.suppress(ConnectionClosed):
            connection.drain(wait)
        return connection.is_closed

    receiving = BlockingConnection.open(named("receiving"), soon()).channel(soon())
    idle = BlockingConnection.open(named("idle"), soon())
    publishing = idle.channel(soon())
    publishing.confirm_select(soon())

    async def run() -> None:
        opened = await AsyncConnection.open(named("asyncio"), soon())
        mine = await opened.channel(soon())
        waiting = asyncio.ensure_future(mine.receive(1, 60.0))
        also_waiting = asyncio.ensure_future(asyncio.to_thread(receiving.receive, 1, 60.0))
        await asyncio.to_thread(close_as_an_operator, server, {"receiving", "idle", "asyncio"})
        for one in (waiting, also_waiting):
            with pytest.raises(ConnectionClosed) as caught:
                await one
            assert caught.value.code == 320
        assert opened.is_closed
        assert receiving.connection.is_closed

    asyncio.run(run())
    deadline = soon()
    while not is_noticed(idle, 0.05):
        assert time.monotonic() < deadline
    with pytest.raises(ConnectionClosed):  # and not a fate that is unknown
        publishing.publish([to("q")], soon())


def test_heartbeats_keep_it_open_and_find_a_hanging_broker(server: RabbitServer, url: str) -> None:
    kept = parameters(url, heartbeat=2.0)
    blocking = BlockingConnection.open(kept, soon())
    assert blocking.heartbeat == 2.0
    channel = blocking.channel(soon())

    async def idle() -> tuple[AsyncConnection, AsyncChannel]:
        opened = await AsyncConnection.open(kept, soon())
        mine = await opened.channel(soon())
        await asyncio.to_thread(channel.receive, 1, 5.0)
        assert not opened.is_closed
        assert (await mine.declare_queue("q", deadline=soon())).name == "q"
        return opened, mine

    async def run() -> None:
        opened, mine = await idle()
        assert channel.declare_queue("q", deadline=soon()).name == "q"
        server.pause()
        try:
            started = time.monotonic()
            receiving = asyncio.ensure_future(asyncio.to_thread(channel.receive, 1, 60.0))
            with pytest.raises(ConnectionLost, match="silent"):
                await mine.receive(1, 60.0)
            with pytest.raises(ConnectionLost, match="silent"):
                await receiving
            assert 2.0 < time.monotonic() - started < 50
            assert opened.is_closed
            assert blocking.is_closed
            with pytest.raises(DeadlinePassed, match="handshake in time"):
                BlockingConnection.open(kept, soon(0.3))
        finally:
            server.resume()

    asyncio.run(run())


def test_a_killed_broker_is_noticed_at_once(url: str, connection: BlockingConnection) -> None:
    """By the end of the socket; not the shared server is killed, but a relay in front of it."""
    import socket

    target = parameters(url)
    listener = socket.create_server(("127.0.0.1", 0))
    cut = threading.Event()

    def relay() -> None:
        near, _ = listener.accept()
        far = socket.create_connection((target.host, target.port))
        threading.Thread(target=pump, args=(far, near), daemon=True).start()
        threading.Thread(target=pump, args=(near, far), daemon=True).start()
        cut.wait(60)
        for end in (near, far):
            end.shutdown(socket.SHUT_RDWR)
            end.close()

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass

    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    near = parameters(url.replace(f":{target.port}", f":{listener.getsockname()[1]}"))
    behind = BlockingConnection.open(near, soon())
    channel = behind.channel(soon())
    cut.set()
    with pytest.raises(ConnectionLost):
        channel.receive(1, 60.0)
    thread.join(5)
    listener.close()


def test_a_blocked_broker_is_told_from_a_slow_one(server: RabbitServer, connection: BlockingConnection) -> None:
    channel = connection.channel(soon())
    channel.declare_queue("q", deadline=soon())
    channel.confirm_select(soon())
    consumer = BlockingConnection.open(connection.parameters, soon())
    consuming = consumer.channel(soon())
    assert channel.publish([to("q", b"before")], soon()) == [CONFIRMED]
    server.control("set_vm_memory_high_watermark", "0.00001")
    try:
        # the broker speaks of it when the first message comes
        fates = channel.publish([to("q", b"during")], soon(2))
        assert connection.is_blocked
        assert connection.blocked_reason is not None
        assert "memory" in connection.blocked_reason
        assert fates[0].kind in ("unknown", "confirmed")
        started = time.monotonic()
        with pytest.raises(ConnectionBlocked, match="memory"):
            channel.publish([to("q", b"after")], soon(0.5))
        assert time.monotonic() - started < 30
        # who consumes is not blocked
        message = consuming.get("q", deadline=soon())
        assert message is not None
        assert message.body == b"before"
    finally:
        server.control("set_vm_memory_high_watermark", "0.4")
    assert channel.publish([to("q", b"freed")], soon(90)) == [CONFIRMED]
    assert not connection.is_blocked
    consumer.close(soon())


def test_a_blocked_broker_asyncio(server: RabbitServer, url: str) -> None:
    async def run() -> None:
        connection = await AsyncConnection.open(parameters(url), soon())
        channel = await connection.channel(soon())
        await channel.declare_queue("q", deadline=soon())
        await channel.confirm_select(soon())
        await asyncio.to_thread(server.control, "set_vm_memory_high_watermark", "0.00001")
        try:
            await channel.publish([to("q", b"during")], soon(2))
            assert connection.is_blocked
            with pytest.raises(ConnectionBlocked, match="memory"):
                await channel.publish([to("q", b"after")], soon(0.5))
            waiting = asyncio.ensure_future(channel.publish([to("q", b"patient")], soon(60)))
        finally:
            await asyncio.to_thread(server.control, "set_vm_memory_high_watermark", "0.4")
        assert await waiting == [CONFIRMED]
        await connection.close(soon())

    asyncio.run(run())


def test_a_waiting_receive_is_interrupted(channel: BlockingChannel) -> None:
    channel.declare_queue("q", deadline=soon())
    channel.consume("q", deadline=soon())
    timer = threading.Timer(0.2, channel.connection.interrupt)
    timer.start()
    started = time.monotonic()
    assert channel.receive(1, 60.0) == []
    assert time.monotonic() - started < 50
    timer.join(5)


# ── logging in ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["PLAIN", "AMQPLAIN"])
def test_login_methods(server: RabbitServer, method: str) -> None:
    connection = BlockingConnection.open(parameters(server.url(), login_method=method), soon())
    assert connection.server_properties["product"] == "RabbitMQ"
    connection.close(soon())


def refused(given: Parameters) -> ConnectFailed:
    async def run() -> None:
        await AsyncConnection.open(given, soon())

    with pytest.raises(ConnectFailed) as blocking:
        BlockingConnection.open(given, soon())
    with pytest.raises(ConnectFailed) as async_:
        asyncio.run(run())
    assert str(blocking.value) == str(async_.value)
    assert type(blocking.value) is type(async_.value)
    return blocking.value


def test_what_is_refused_names_the_setting(server: RabbitServer) -> None:
    for method in ("PLAIN", "AMQPLAIN"):
        error = refused(parameters(server.url(password="wr0ng"), login_method=method))
        assert isinstance(error, LoginRefused)
        assert error.code == 403
        assert "user and password" in str(error)
        assert "wr0ng" not in str(error)
    error = refused(parameters(server.url(), login_method="EXTERNAL"))
    assert isinstance(error, LoginRefused)
    assert "broker_login_method" in str(error)
    error = refused(parameters(server.url("no such")))
    assert isinstance(error, VhostRefused)
    assert error.code == 530
    assert "'no such'" in str(error)
    error = refused(parameters(f"amqp://guest:guest@127.0.0.1:{server.api_port}/"))
    assert type(error) in (NotAmqp, ConnectFailed)  # this web server hangs up without a word
    assert "host and port" in str(error)


def test_a_new_password_is_handed_over(connection: BlockingConnection) -> None:
    """RabbitMQ takes it only where passwords expire (OAuth 2); with its own users it says so by closing."""
    with contextlib.suppress(ConnectionClosed):
        connection.update_secret("new", "expired", soon())
    assert connection.error is None or connection.error.code == 530


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────────────


def over_tls(port: int, host: str = "localhost", **options: Any) -> Parameters:
    return parameters(f"amqps://{host}:{port}//", use_ssl=options)


def test_tls_with_the_right_authority(certificates: Path, tls_port: int, server: RabbitServer) -> None:
    given = over_tls(tls_port, ca_certs=str(certificates / "ca.pem"))
    connection = BlockingConnection.open(given, soon())
    channel = connection.channel(soon())
    channel.declare_queue("tls", deadline=soon())
    channel.confirm_select(soon())
    batch = [to("tls", b"x" * 500_000) for _ in range(10)]
    assert channel.publish(batch, soon(90)) == [CONFIRMED] * 10
    channel.consume("tls", deadline=soon(), no_ack=True)
    assert {len(message.body) for message in collect(channel, 10)} == {500_000}
    channel.delete_queue("tls", deadline=soon())
    connection.close(soon())

    async def run() -> None:
        opened = await AsyncConnection.open(given, soon())
        mine = await opened.channel(soon())
        name = (await mine.declare_queue("", deadline=soon(), durable=False, exclusive=True)).name
        await mine.confirm_select(soon())
        assert await mine.publish([to(name, b"x" * 500_000)] * 3, soon(90)) == [CONFIRMED] * 3
        await opened.close(soon())

    asyncio.run(run())


def test_tls_with_our_own_certificate(certificates: Path, tls_port: int, server: RabbitServer) -> None:
    connection = BlockingConnection.open(
        over_tls(
            tls_port, ca_certs=str(certificates / "ca.pem"), certfile=str(certificates / "client.pem"),
            keyfile=str(certificates / "client.key"), cert_reqs=ssl.CERT_REQUIRED,
        ), soon(),
    )  # fmt: skip
    connection.close(soon())


def test_tls_with_the_wrong_authority_or_name(certificates: Path, tls_port: int, server: RabbitServer) -> None:
    for given in (
        over_tls(tls_port),
        over_tls(tls_port, ca_certs=str(certificates / "stranger.pem")),
        over_tls(tls_port, host="127.0.0.1", ca_certs=str(certificates / "ca.pem")),
        over_tls(tls_port, ca_certs=str(certificates / "ca.pem"), server_hostname="broker.example"),
    ):
        error = refused(given)
        assert isinstance(error, TlsFailed)
        assert "ca_certs and server_hostname" in str(error)


def test_tls_unverified_must_be_asked_for(certificates: Path, tls_port: int, server: RabbitServer) -> None:
    for options in ({"cert_reqs": ssl.CERT_NONE}, {"ca_certs": str(certificates / "ca.pem"), "check_hostname": False}):
        BlockingConnection.open(over_tls(tls_port, host="127.0.0.1", **options), soon()).close(soon())
    named = over_tls(tls_port, "127.0.0.1", ca_certs=str(certificates / "ca.pem"), server_hostname="localhost")
    BlockingConnection.open(named, soon()).close(soon())


def test_tls_at_the_wrong_port(certificates: Path, tls_port: int, server: RabbitServer) -> None:
    error = refused(over_tls(server.port, ca_certs=str(certificates / "ca.pem")))
    assert isinstance(error, TlsFailed)
    assert "scheme and port" in str(error)
    error = refused(parameters(f"amqp://127.0.0.1:{tls_port}//"))
    assert "127.0.0.1" in str(error)
