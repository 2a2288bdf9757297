"""What crosses the socket between parent and child: frames, the batches in them, and the parent's end.

A frame is a head (length of the payload, kind) and a MessagePack payload. Both directions carry batches: one system
call and one decoder call for many messages. The second, tiny socket of every child is its *bell*: fixed-size orders
that are heeded even while user code runs.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import struct
from collections.abc import Callable, Iterator, Sequence

import msgspec

from celeriac.executors.base import Outcome, Request
from celeriac.executors.time_limits import CAUSES, Cause

_HEAD = struct.Struct("<IB")
HEAD_BYTES = _HEAD.size
#: msgpack's array with a 32-bit count, so that items can be laid behind it one by one
_BATCH_HEAD = struct.Struct(">BI")
BATCH_HEAD_BYTES = HEAD_BYTES + _BATCH_HEAD.size

_READ_BYTES = 1 << 18


class Kind(enum.IntEnum):
    """What a frame is."""

    GIVE = 1  #: to the child: [[number, request], …]
    LEAVE = 2  #: to the child: finish what you have and exit
    OUTCOMES = 3  #: from the child: [[number, outcome], …]
    RECALLED = 4  #: from the child: [number, …], certainly not started
    READY = 5  #: from the child: it takes work
    LEAVING = 6  #: from the child: why it will take no more work
    FAILED = 7  #: from the child: why it could not start


Item = tuple[int, Request]
Ended = tuple[int, Outcome]

_encoder = msgspec.msgpack.Encoder()
_encode_request_batch = _encoder.encode
_decode_requests = msgspec.msgpack.Decoder(list[Item]).decode
_decode_outcomes = msgspec.msgpack.Decoder(list[Ended]).decode
_decode_numbers = msgspec.msgpack.Decoder(list[int]).decode
_decode_number = msgspec.msgpack.Decoder(int).decode
_decode_text = msgspec.msgpack.Decoder(str).decode


def frame(kind: Kind, payload: object) -> bytes:
    """A frame of any kind, as bytes."""
    body = _encoder.encode(payload)
    return _HEAD.pack(len(body), kind) + body


def encode_outcome(number: int, outcome: Outcome) -> bytes:
    """One item of an OUTCOMES batch."""
    return _encoder.encode((number, outcome))


def write_batch_head(room: memoryview, count: int) -> None:
    """Turn a buffer with :data:`BATCH_HEAD_BYTES` in front of ``count`` items into an OUTCOMES frame, in place."""
    _HEAD.pack_into(room, 0, len(room) - HEAD_BYTES, Kind.OUTCOMES)
    _BATCH_HEAD.pack_into(room, HEAD_BYTES, 0xDD, count)


def batch_of(items: bytes, count: int) -> bytes:
    """A whole OUTCOMES frame from items laid end to end."""
    room = bytearray(BATCH_HEAD_BYTES) + items
    write_batch_head(memoryview(room), count)
    return bytes(room)


def decode_requests(payload: memoryview | bytes) -> list[Item]:
    return _decode_requests(payload)


def decode_outcomes(payload: memoryview | bytes) -> list[Ended]:
    return _decode_outcomes(payload)


def decode_numbers(payload: memoryview | bytes) -> list[int]:
    return _decode_numbers(payload)


def decode_number(payload: memoryview | bytes) -> int:
    return _decode_number(payload)


def decode_text(payload: memoryview | bytes) -> str:
    return _decode_text(payload)


def requests_frame(items: Sequence[Item]) -> bytes:
    """A GIVE frame. Raises what the encoder raises."""
    body = _encode_request_batch(items)
    return _HEAD.pack(len(body), Kind.GIVE) + body


class FrameBuffer:
    """Cuts a byte stream into frames without copying those that arrive whole."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._awaited = 0  #: length at which the rest has its first whole frame

    def feed(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """The frames that are complete now. Their payloads are valid until the next call."""
        view = data
        if self._rest:
            self._rest += data
            if len(self._rest) < self._awaited:  # a large frame is gathered without copying it again and again
                return
            view = memoryview(self._rest)
            self._rest = bytearray()
        position, end = 0, len(view)
        self._awaited = HEAD_BYTES
        while end - position >= HEAD_BYTES:
            length, kind = _HEAD.unpack_from(view, position)
            stop = position + HEAD_BYTES + length
            if stop > end:
                self._awaited = stop - position
                break
            yield kind, view[position + HEAD_BYTES : stop]
            position = stop
        if position < end:
            self._rest = bytearray(view[position:])


# ── the bell ─────────────────────────────────────────────────────────────────────────────────────────────────

_ORDER = struct.Struct("<QB")
ORDER_BYTES = _ORDER.size
#: an order with this code asks for everything that is not started, and for what is finished
_RECALL = 255


def recall_order() -> bytes:
    return _ORDER.pack(0, _RECALL)


def interrupt_order(number: int, cause: Cause) -> bytes:
    return _ORDER.pack(number, CAUSES.index(cause))


def read_order(data: bytes) -> tuple[int, Cause | None]:
    """``(number, cause)`` of an interruption, ``(0, None)`` for a recall."""
    number, code = _ORDER.unpack(data)
    return (0, None) if code == _RECALL else (number, CAUSES[code])


# ── the parent's end ─────────────────────────────────────────────────────────────────────────────────────────


class ParentPipe:
    """The parent's end of a child's socket, driven by the loop. Never blocks.

    ``on_frame(kind, payload)`` is called for every frame, ``on_end()`` once when the other side is gone.
    """

    def __init__(
        self, sock: socket.socket, loop: asyncio.AbstractEventLoop,
        on_frame: Callable[[int, memoryview], None], on_end: Callable[[], None],
    ) -> None:  # fmt: skip
        sock.setblocking(False)
        self._sock = sock
        self._loop = loop
        self._on_frame = on_frame
        self._on_end = on_end
        self._frames = FrameBuffer()
        self._room = memoryview(bytearray(_READ_BYTES))
        self._unsent = bytearray()
        self._is_open = True
        loop.add_reader(sock, self._on_readable)

    @property
    def is_open(self) -> bool:
        return self._is_open

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def send(self, kind: Kind, payload: object = None) -> None:
        self.send_frame(frame(kind, payload))

    def send_frame(self, data: bytes) -> None:
        """Usually one system call. May call ``on_end`` before it returns."""
        if not self._is_open:
            return
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._end()
            return
        if sent < len(data):
            self._unsent += memoryview(data)[sent:]
            self._loop.add_writer(self._sock, self._on_writable)

    def _on_writable(self) -> None:
        try:
            sent = self._sock.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self._end()
            return
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.remove_writer(self._sock)

    def _on_readable(self) -> None:
        self._read()

    def _read(self) -> bool:
        """Read once; whether there may be more."""
        try:
            count = self._sock.recv_into(self._room)
        except BlockingIOError:
            return False
        except OSError:
            count = 0
        if count == 0:
            self._end()
            return False
        for kind, payload in self._frames.feed(self._room[:count]):
            self._on_frame(kind, payload)
        return self._is_open

    def drain(self) -> None:
        """Read everything the child has written. For when it is known to be dead."""
        while self._is_open and self._read():
            pass

    def _end(self) -> None:
        if self._is_open:
            self._stop()
            self._on_end()

    def _stop(self) -> None:
        self._is_open = False
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._unsent.clear()

    def close(self) -> None:
        if self._is_open:
            self._stop()
        self._sock.close()
