"""Servers that lie, stall and hang up: each ends in one clear error, within the deadline, in both shells."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from celeriac.amqp.asynchronous import AsyncConnection
from celeriac.amqp.blocking import BlockingConnection
from celeriac.amqp.errors import (
    AmqpError,
    ConnectFailed,
    ConnectionClosed,
    ConnectionLost,
    DeadlinePassed,
    LoginRefused,
    NotAmqp,
    ProtocolViolation,
    TlsFailed,
    VhostRefused,
)  # fmt: skip
from celeriac.amqp.frames import HEARTBEAT_FRAME, method_frame
from celeriac.amqp.messages import Publication
from celeriac.amqp.methods import encode_method
from celeriac.amqp.parameters import Parameters

PATIENCE = 1.0
#: what a loaded machine may need on top
SLACK = 50.0
START = method_frame(0, encode_method("connection.start", {"minor": 9, "mechanisms": "PLAIN", "locales": "en_US"}))
OPEN_OK = method_frame(0, encode_method("connection.open-ok"))


def tune(heartbeat: int = 0) -> bytes:
    arguments = {"channel_max": 10, "frame_max": 131072, "heartbeat": heartbeat}
    return method_frame(0, encode_method("connection.tune", arguments))


class Peer:
    """The server's end of one connection."""

    def __init__(self, connected: socket.socket, leave: threading.Event) -> None:
        self.socket = connected
        self._leave = leave

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def hear(self, method: str) -> None:
        """Read until the client has said so."""
        index = encode_method(method)[:4]
        seen = b""
        while index not in seen:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError
            seen = seen[-8:] + data

    def stay(self) -> None:
        """Keep the socket open till the test is over."""
        self._leave.wait(30)

    @property
    def is_over(self) -> bool:
        return self._leave.is_set()

    def open(self, heartbeat: int = 0) -> None:
        self.send(START)
        self.hear("connection.start-ok")
        self.send(tune(heartbeat))
        self.hear("connection.open")
        self.send(OPEN_OK)

    def open_channel(self) -> None:
        self.hear("channel.open")
        self.send(method_frame(1, encode_method("channel.open-ok")))


Behaviour = Callable[[Peer], None]


@contextlib.contextmanager
def serving(behave: Behaviour) -> Iterator[int]:
    """A server that does so to whoever connects; its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    leave = threading.Event()

    def run() -> None:
        with contextlib.suppress(OSError):
            listener.settimeout(30)
            connected, _ = listener.accept()
            with connected:
                connected.settimeout(30)
                with contextlib.suppress(OSError):
                    behave(Peer(connected, leave))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        leave.set()
        listener.close()
        thread.join(60)


# ── while connecting ─────────────────────────────────────────────────────────────────────────────────────────


def silent(peer: Peer) -> None:
    peer.stay()


def slow_loris(peer: Peer) -> None:
    for octet in START * 100:
        if peer.is_over:
            return
        peer.send(bytes((octet,)))
        time.sleep(0.02)


def heartbeats_only(peer: Peer) -> None:
    peer.send(START)
    while not peer.is_over:
        peer.send(HEARTBEAT_FRAME * 100)


def garbage(peer: Peer) -> None:
    peer.send(bytes(range(256)) * 10)
    peer.stay()


def web_server(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def redis(peer: Peer) -> None:
    peer.send(b"-ERR unknown command 'AMQP'\r\n")


def other_version(peer: Peer) -> None:
    peer.send(b"AMQP\x03\x01\x00\x00")


def hangs_up(peer: Peer) -> None:
    pass


def resets(peer: Peer) -> None:
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def truncates(peer: Peer) -> None:
    peer.send(START[:-9])


def huge_frame(peer: Peer) -> None:
    peer.send(struct.pack(">BHI", 1, 0, 0xFFFFFFFF) + b"x" * 1000)
    peer.stay()


def hostile_table(peer: Peer) -> None:
    table = b""
    for _ in range(3000):
        table = b"\x01kF" + struct.pack(">I", len(table)) + table
    payload = encode_method("connection.start")[:4] + b"\0\x09" + struct.pack(">I", len(table)) + table
    peer.send(method_frame(0, payload + b"\0\0\0\x05PLAIN\0\0\0\x05en_US"))
    peer.stay()


def refuses_login(peer: Peer) -> None:
    peer.send(START)
    peer.hear("connection.start-ok")
    close = {"reply_code": 403, "reply_text": "ACCESS_REFUSED - Login was refused"}
    peer.send(method_frame(0, encode_method("connection.close", close)))
    peer.hear("connection.close-ok")


def hangs_up_at_login(peer: Peer) -> None:
    peer.send(START)
    peer.hear("connection.start-ok")


def refuses_vhost(peer: Peer) -> None:
    peer.send(START)
    peer.hear("connection.start-ok")
    peer.send(tune())
    peer.hear("connection.open")
    close = {"reply_code": 530, "reply_text": "NOT_ALLOWED - vhost den not found"}
    peer.send(method_frame(0, encode_method("connection.close", close)))
    peer.hear("connection.close-ok")


def hangs_up_at_vhost(peer: Peer) -> None:
    peer.send(START)
    peer.hear("connection.start-ok")
    peer.send(tune())
    peer.hear("connection.open")


def stalls_at_vhost(peer: Peer) -> None:
    peer.send(START)
    peer.hear("connection.start-ok")
    peer.send(tune())
    peer.stay()


WHILE_CONNECTING: list[tuple[Behaviour, type[AmqpError], str]] = [
    (silent, DeadlinePassed, "in time"), (slow_loris, DeadlinePassed, "in time"),
    (heartbeats_only, DeadlinePassed, "in time"), (garbage, NotAmqp, "host and port"),
    (web_server, NotAmqp, "host and port"), (redis, NotAmqp, "host and port"), (other_version, NotAmqp, "0-9-1"),
    (hangs_up, ConnectFailed, "before the broker said a word"), (resets, ConnectFailed, ""),
    (truncates, ConnectFailed, "before the broker said a word"), (huge_frame, ProtocolViolation, "limit"),
    (hostile_table, ProtocolViolation, "nested"), (refuses_login, LoginRefused, "user and password"),
    (hangs_up_at_login, LoginRefused, "user and password"), (refuses_vhost, VhostRefused, "vhost den not found"),
    (hangs_up_at_vhost, VhostRefused, "'den'"), (stalls_at_vhost, DeadlinePassed, "in time"),
]  # fmt: skip


def parameters(port: int, **more: Any) -> Parameters:
    return Parameters(host="127.0.0.1", port=port, vhost="den", password="s3cret", **more)


def open_blocking(given: Parameters, patience: float) -> None:
    BlockingConnection.open(given, time.monotonic() + patience)


def open_async(given: Parameters, patience: float) -> None:
    async def run() -> None:
        await AsyncConnection.open(given, time.monotonic() + patience)

    asyncio.run(run())


SHELLS = [pytest.param(open_blocking, id="blocking"), pytest.param(open_async, id="asyncio")]


def fails(
    opening: Callable[[Parameters, float], None], given: Parameters, kind: type[AmqpError], word: str,
    patience: float = PATIENCE,
) -> None:  # fmt: skip
    started = time.monotonic()
    with pytest.raises(AmqpError) as caught:
        opening(given, patience)
    assert time.monotonic() - started < patience + SLACK
    assert isinstance(caught.value, kind), caught.value
    text = str(caught.value)
    assert word in text
    assert "s3cret" not in text
    if kind is not ProtocolViolation:
        assert f"127.0.0.1:{given.port}" in text


@pytest.mark.parametrize("opening", SHELLS)
@pytest.mark.parametrize(
    ("behave", "kind", "word"), WHILE_CONNECTING, ids=[behave.__name__ for behave, _, _ in WHILE_CONNECTING]
)
def test_while_connecting(
    opening: Callable[[Parameters, float], None], behave: Behaviour, kind: type[AmqpError], word: str
) -> None:
    with serving(behave) as port:
        # a deadline that nobody waits for may be far away
        fails(opening, parameters(port), kind, word, 0.4 if kind is DeadlinePassed else 60.0)


@pytest.mark.parametrize("opening", SHELLS)
def test_nobody_listens(opening: Callable[[Parameters, float], None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    fails(opening, parameters(port), ConnectFailed, "Check host and port")


@pytest.mark.parametrize("opening", SHELLS)
def test_a_host_that_does_not_exist(opening: Callable[[Parameters, float], None]) -> None:
    with pytest.raises(ConnectFailed, match="Check host and port"):
        opening(Parameters(host="no-such-host.invalid"), 60.0)


@pytest.mark.parametrize("opening", SHELLS)
@pytest.mark.parametrize(
    ("behave", "kind", "word"),
    [
        (garbage, TlsFailed, "TLS"),
        (hangs_up, TlsFailed, "TLS"),
        (silent, DeadlinePassed, "in time"),
        (resets, ConnectFailed, "127.0.0.1"),  # perhaps before TLS begins
    ],
)
def test_no_tls_there(
    opening: Callable[[Parameters, float], None], behave: Behaviour, kind: type[AmqpError], word: str
) -> None:
    with serving(behave) as port:
        given = parameters(port, tls=ssl.create_default_context(), server_name="localhost")
        fails(opening, given, kind, word, 0.5 if behave is silent else 60.0)


# ── afterwards ───────────────────────────────────────────────────────────────────────────────────────────────


def half_open(peer: Peer) -> None:
    peer.open(heartbeat=1)
    peer.open_channel()
    peer.stay()


def breaks_off(peer: Peer) -> None:
    peer.open()
    peer.open_channel()
    peer.hear("queue.declare")
    peer.send(method_frame(1, encode_method("queue.declare-ok", {"queue": "q"}))[:-4])


def talks_nonsense(peer: Peer) -> None:
    peer.open()
    peer.open_channel()
    peer.hear("queue.declare")
    peer.send(b"\x01\x00\x01\x00\x00\x00\x04\xde\xad\xbe\xef\xce")
    peer.stay()


def floods(peer: Peer) -> None:
    peer.open()
    peer.open_channel()
    while not peer.is_over:
        peer.send(HEARTBEAT_FRAME * 1000)


def answers_something_else(peer: Peer) -> None:
    peer.open()
    peer.open_channel()
    peer.hear("queue.declare")
    peer.send(method_frame(1, encode_method("queue.bind-ok")))
    peer.stay()


AFTERWARDS: list[tuple[Behaviour, type[AmqpError]]] = [
    (half_open, DeadlinePassed), (breaks_off, ConnectionLost), (talks_nonsense, ProtocolViolation),
    (floods, DeadlinePassed), (answers_something_else, ProtocolViolation),
]  # fmt: skip


@pytest.mark.parametrize(("behave", "kind"), AFTERWARDS, ids=[behave.__name__ for behave, _ in AFTERWARDS])
def test_a_call_blocking(behave: Behaviour, kind: type[AmqpError]) -> None:
    with serving(behave) as port:
        connection = BlockingConnection.open(parameters(port), time.monotonic() + 60)
        channel = connection.channel(time.monotonic() + 60)
        started = time.monotonic()
        with pytest.raises(kind):
            channel.declare_queue("q", deadline=started + (0.4 if kind is DeadlinePassed else 60))
        assert time.monotonic() - started < 0.4 + SLACK
        assert connection.is_closed is (kind is not DeadlinePassed)
        connection.close(time.monotonic() + 0.2)
        assert connection.is_closed
        connection.close(time.monotonic() + 0.2)


@pytest.mark.parametrize(("behave", "kind"), AFTERWARDS, ids=[behave.__name__ for behave, _ in AFTERWARDS])
def test_a_call_asyncio(behave: Behaviour, kind: type[AmqpError]) -> None:
    async def run(port: int) -> None:
        connection = await AsyncConnection.open(parameters(port), time.monotonic() + 60)
        channel = await connection.channel(time.monotonic() + 60)
        started = time.monotonic()
        with pytest.raises(kind):
            await channel.declare_queue("q", deadline=started + (0.4 if kind is DeadlinePassed else 60))
        assert time.monotonic() - started < 0.4 + SLACK
        assert connection.is_closed is (kind is not DeadlinePassed)
        await connection.close(time.monotonic() + 0.2)
        assert connection.is_closed
        await connection.close(time.monotonic() + 0.2)

    with serving(behave) as port:
        asyncio.run(run(port))


def test_a_silent_peer_is_found_dead_while_receiving() -> None:
    with serving(half_open) as port:
        connection = BlockingConnection.open(parameters(port, heartbeat=1.0), time.monotonic() + 60)
        channel = connection.channel(time.monotonic() + 60)
        started = time.monotonic()
        with pytest.raises(ConnectionLost, match="silent"):
            channel.receive(1, 60.0)
        assert time.monotonic() - started < 2 + SLACK
        assert isinstance(connection.error, ConnectionLost)


def test_a_silent_peer_is_found_dead_while_receiving_asyncio() -> None:
    async def run(port: int) -> None:
        connection = await AsyncConnection.open(parameters(port, heartbeat=1.0), time.monotonic() + 60)
        channel = await connection.channel(time.monotonic() + 60)
        started = time.monotonic()
        with pytest.raises(ConnectionLost, match="silent"):
            await channel.receive(1, 60.0)
        assert time.monotonic() - started < 2 + SLACK
        assert isinstance(connection.error, ConnectionLost)

    with serving(half_open) as port:
        asyncio.run(run(port))


def reads_nothing(peer: Peer) -> None:
    peer.open()
    peer.open_channel()
    peer.hear("confirm.select")
    peer.send(method_frame(1, encode_method("confirm.select-ok")))
    peer.stay()


BIG = [Publication("", "q", {}, None, b"x" * 1_000_000)] * 16


def test_a_peer_that_reads_nothing_leaves_fates_unknown() -> None:
    with serving(reads_nothing) as port:
        connection = BlockingConnection.open(parameters(port), time.monotonic() + 60)
        channel = connection.channel(time.monotonic() + 60)
        channel.confirm_select(time.monotonic() + 60)
        started = time.monotonic()
        fates = channel.publish(BIG, started + 0.4)
        assert time.monotonic() - started < 0.4 + SLACK
        assert {fate.kind for fate in fates} == {"unknown"}
        # half a frame is out: this connection is of no use any more
        assert connection.is_closed
        with pytest.raises(ConnectionClosed):
            channel.publish(BIG, time.monotonic() + 1)


def test_a_peer_that_reads_nothing_leaves_fates_unknown_asyncio() -> None:
    async def run(port: int) -> None:
        connection = await AsyncConnection.open(parameters(port), time.monotonic() + 60)
        channel = await connection.channel(time.monotonic() + 60)
        await channel.confirm_select(time.monotonic() + 60)
        started = time.monotonic()
        fates = await channel.publish(BIG, started + 0.4)
        assert time.monotonic() - started < 0.4 + SLACK
        assert {fate.kind for fate in fates} == {"unknown"}
        with pytest.raises(AmqpError):  # nothing more is written to it
            await channel.publish(BIG, time.monotonic() + 0.2)
        await connection.close(time.monotonic() + 0.2)

    with serving(reads_nothing) as port:
        asyncio.run(run(port))


# ── what is left ─────────────────────────────────────────────────────────────────────────────────────────────


def hangs_up_at_a_question(peer: Peer) -> None:
    peer.open()
    peer.open_channel()
    peer.hear("queue.declare")


@pytest.mark.usefixtures("uncollected")
def test_a_lost_connection_goes_without_the_garbage_collector() -> None:
    """A worker has it run seldom: what met the end must not hold, by its traceback, what has ended."""
    with serving(hangs_up_at_a_question) as port:
        deadline = time.monotonic() + 30
        connection = BlockingConnection.open(Parameters(host="127.0.0.1", port=port, heartbeat=0.0), deadline)
        channel = connection.channel(deadline)
        with pytest.raises(ConnectionLost):
            channel.declare_queue("q", deadline=deadline)
        with pytest.raises(ConnectionLost):
            connection.drain()
        connection.close(deadline)
        gone = weakref.ref(connection), weakref.ref(channel)
        del connection, channel
        assert [each() for each in gone] == [None, None]


@pytest.mark.usefixtures("uncollected")
def test_a_lost_connection_goes_without_the_garbage_collector_on_a_loop_too() -> None:
    async def lose(port: int) -> list[weakref.ref[Any]]:
        deadline = time.monotonic() + 30
        connection = await AsyncConnection.open(Parameters(host="127.0.0.1", port=port, heartbeat=0.0), deadline)
        channel = await connection.channel(deadline)
        with pytest.raises(ConnectionLost):
            await channel.declare_queue("q", deadline=deadline)
        await connection.close(deadline)
        return [weakref.ref(connection), weakref.ref(channel)]

    with serving(hangs_up_at_a_question) as port:
        assert [each() for each in asyncio.run(lose(port))] == [None, None]
