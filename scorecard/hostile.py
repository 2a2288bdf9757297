"""Servers that speak AMQP or RESP wrongly, on purpose: what they say when somebody connects."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING, Self

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator


class Manners(msgspec.Struct, frozen=True, kw_only=True):
    """What a server says to every connection, and how. Afterwards it is silent, or it closes."""

    name: str
    says: bytes = b""
    #: says it again after each message of the client
    answers: bool = False
    #: seconds between two bytes; 0: all at once
    drip: float = 0.0
    closes: bool = False


def _frame(kind: int, channel: int, payload: bytes, end: bytes = b"\xce") -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + end


def _start(table: bytes) -> bytes:
    """Connection.Start with these server properties, length and all."""
    return (
        struct.pack(">HHBB", 10, 10, 0, 9) + table + struct.pack(">I", 5) + b"PLAIN" + struct.pack(">I", 5) + b"en_US"
    )


def _nested(depth: int) -> bytes:
    table = b""
    for _ in range(depth):
        table = b"\x01aF" + struct.pack(">I", len(table)) + table
    return struct.pack(">I", len(table)) + table


AMQP = [
    Manners(name="silence"),
    Manners(name="closes", closes=True),
    Manners(name="garbage", says=bytes(range(256)) * 20),
    Manners(name="another protocol", says=b"AMQP\x00\x01\x00\x00", closes=True),
    Manners(name="frame of 4 GiB", says=struct.pack(">BHI", 1, 0, 0xFFFFFFFF) + b"x" * 100_000),
    Manners(name="wrong frame end", says=_frame(1, 0, _start(b"\0\0\0\0"), b"\x00")),
    Manners(name="table that lies", says=_frame(1, 0, _start(struct.pack(">I", 0x7FFFFFFF) + b"\x01aI"))),
    Manners(name="tables 10,000 deep", says=_frame(1, 0, _start(_nested(10_000)))),
    Manners(name="unknown field type", says=_frame(1, 0, _start(struct.pack(">I", 3) + b"\x01a\x07"))),
    Manners(name="unknown method", says=_frame(1, 0, struct.pack(">HH", 10, 99))),
    Manners(name="content before a channel", says=_frame(2, 7, struct.pack(">HHQH", 60, 0, 1 << 63, 0x0040))),
    Manners(name="slow-loris", says=_frame(1, 0, _start(b"\0\0\0\0")), drip=0.3),
]
RESP = [
    Manners(name="silence"),
    Manners(name="closes", closes=True),
    Manners(name="garbage", says=bytes(range(256)) * 20, answers=True),
    Manners(name="text of 1 TB", says=b"$999999999999\r\nabc", answers=True),
    Manners(name="list of 100 million", says=b"*100000000\r\n:1\r\n", answers=True),
    Manners(name="lists 100,000 deep", says=b"*1\r\n" * 100_000, answers=True),
    Manners(name="number of a million digits", says=b":" + b"9" * 1_000_000 + b"\r\n", answers=True),
    Manners(name="negative length", says=b"$-5\r\n", answers=True),
    Manners(name="error without an end", says=b"-ERR " + b"x" * 100_000, answers=True),
    Manners(name="OK to everything", says=b"+OK\r\n", answers=True),
    Manners(name="slow-loris", says=b"+OK\r\n" * 100, drip=0.3),
]


class HostileServer:
    """Listens on the loopback address with the manners it is given. A context manager."""

    def __init__(self, manners: Manners) -> None:
        self._manners = manners
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self.port = int(self._listener.getsockname()[1])
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._serve, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(timeout=5)
        self._listener.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._talk, args=(client,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _talk(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(0.1)
            self._say(client)
            while not self._manners.closes and not self._over.is_set():
                with contextlib.suppress(TimeoutError):
                    if not client.recv(65536):
                        return
                    if self._manners.answers:
                        self._say(client)

    def _say(self, client: socket.socket) -> None:
        for piece in self._pieces():
            client.settimeout(5.0)
            client.sendall(piece)
            client.settimeout(0.1)

    def _pieces(self) -> Iterator[bytes]:
        if not self._manners.drip:
            yield self._manners.says
            return
        for byte in self._manners.says:
            if self._over.wait(timeout=self._manners.drip):
                return
            yield bytes([byte])
