"""The shortest way from a call to its result on this machine: bare sockets, no product.

The caller stores a message, waits for the broker's answer, then for the result. The worker's parent takes the message
without losing it, hands it to a child over a socket; the child decodes it, calls the function and encodes the result;
the parent stores and announces it, and acknowledges. No routing, no leases, no time limits, no errors: what is left is
ten wake-ups of sleeping processes, which is what a machine with few cores is slow at. What celeriac does beyond is
measured against this.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import struct
import sys
import time
import traceback
from base64 import b64decode
from typing import TYPE_CHECKING, Any

import hiredis
import msgspec

import limits

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = b"celery-task-meta-"
#: what stands before the id in the header table of AMQP
IDENTITY = b"\x02idS\x00\x00\x00\x24"
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Line:
    """One connection to Redis, RESP3: replies and news may come over the same."""

    def __init__(self, port: int) -> None:
        self.link = limits.connected(port)
        self.reader = hiredis.Reader()
        self.ask(limits.resp(b"HELLO", b"3"), 1)

    def ask(self, commands: bytes, replies: int) -> list[Any]:
        """``replies`` that are due; announcements are passed over."""
        self.link.sendall(commands)
        found: list[Any] = []
        while len(found) < replies:
            one = self.next()
            if not isinstance(one, hiredis.PushNotification):
                found.append(one)
        return found

    def next(self) -> Any:
        while (one := self.reader.gets()) is False:
            data = self.link.recv(1 << 16)
            if not data:
                raise RuntimeError("Redis closed the connection")
            self.reader.feed(data)
        return one

    def result(self, identity: bytes, before: bytes) -> None:
        """Listen for a result, look for it, and wait until it is there; in the same write, listen to ``before`` no
        more."""
        key = KEY + identity
        leave = limits.resp(b"UNSUBSCRIBE", KEY + before) if before else b""
        if self.ask(leave + limits.resp(b"SUBSCRIBE", key) + limits.resp(b"MGET", key), 1) != [[None]]:
            return
        while True:
            one = self.next()
            if one[0] == b"message" and one[1] == key:
                return


# ── the worker ───────────────────────────────────────────────────────────────────────────────────────────────


def child(sock: socket.socket) -> None:
    def function(n: int) -> int:
        return n

    while True:
        data = sock.recv(1 << 16)
        if not data:
            os._exit(0)
        identity, body = msgspec.msgpack.decode(data)
        args, kwargs, _ = _decode(body)
        meta = {
            "status": "SUCCESS", "result": function(*args, **kwargs), "traceback": None, "children": [],
            "date_done": "2026-11-22T12:00:00+00:00", "task_id": identity,
        }  # fmt: skip
        sock.sendall(_encode(meta))


def forked(work: Callable[..., None], *arguments: Any) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work(*arguments)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return pid


def with_child() -> socket.socket:
    """A child of the worker's, at the other end."""
    ours, theirs = socket.socketpair()

    def work() -> None:
        ours.close()
        child(theirs)

    forked(work)
    theirs.close()
    return ours


def run(pipe: socket.socket, identity: str, body: bytes) -> bytes:
    pipe.sendall(msgspec.msgpack.encode((identity, body)))
    done = pipe.recv(1 << 16)
    if not done:
        os._exit(1)
    return done


def stored(identity: str, value: bytes) -> bytes:
    key = KEY + identity.encode()
    return limits.resp(b"SET", key, value, b"EX", b"86400") + limits.resp(b"PUBLISH", key, value)


def redis_worker(port: int) -> None:
    pipe, line = with_child(), Line(port)
    take, done = limits.resp(b"BLMOVE", limits.QUEUE, b"held", b"RIGHT", b"LEFT", b"0"), b""
    while True:
        text = line.ask(done + take, 4 if done else 1)[-1]
        message = _decode(text)
        identity = message["headers"]["id"]
        value = run(pipe, identity, b64decode(message["body"]))
        done = stored(identity, value) + limits.resp(b"LREM", b"held", b"1", text)


def rabbit_worker(port: int, vhost: str, redis_port: int) -> None:
    pipe, line = with_child(), Line(redis_port)
    broker = limits.Bare(port, vhost)
    broker.method(1, 60, 10, struct.pack(">IHB", 0, 100, 0))
    broker.wait(60, 11)
    consume = b"\x00\x00" + limits.short(broker.queue) + limits.short(b"c") + b"\x00" + struct.pack(">I", 0)
    broker.method(1, 60, 20, consume)
    tag = 0
    while True:
        for kind, payload in broker.frames():
            if kind == 1 and payload[:4] == b"\x00\x3c\x00\x3c":  # basic.deliver
                tag = struct.unpack_from(">Q", payload, 5 + payload[4])[0]
            elif kind == 2:
                start = payload.index(IDENTITY) + len(IDENTITY)
                identity = payload[start : start + 36].decode()
            elif kind == 3:
                value = run(pipe, identity, payload)
                line.ask(stored(identity, value), 2)
                broker.method(1, 60, 80, struct.pack(">QB", tag, 0))


# ── the caller ───────────────────────────────────────────────────────────────────────────────────────────────


def trips(send: Callable[[str], None], line: Line, seconds: float) -> float:
    """Trips per second, from the median of the trips."""
    times: list[float] = []
    before, ends = b"", time.perf_counter() + seconds + 0.1
    while time.perf_counter() < ends:
        began = time.perf_counter()
        identity = str(limits.uuid4())
        send(identity)
        line.result(identity.encode(), before)
        times.append(time.perf_counter() - began)
        before = identity.encode()
    return 1 / statistics.median(times[len(times) // 10 :])


def over_redis(port: int, seconds: float) -> float:
    line = Line(port)
    text = limits.message()
    marker = str(_decode(text)["headers"]["id"]).encode()

    def send(identity: str) -> None:
        line.ask(limits.resp(b"LPUSH", limits.QUEUE, text.replace(marker, identity.encode())), 1)

    return trips(send, line, seconds)


def over_rabbit(port: int, vhost: str, redis_port: int, seconds: float) -> float:
    line = Line(redis_port)
    broker = limits.Bare(port, vhost)
    broker.method(1, 85, 10, b"\x00")
    broker.wait(85, 11)
    frames, tag = broker.publication(), 0
    start = frames.index(IDENTITY) + len(IDENTITY)
    marker = frames[start : start + 36]

    def send(identity: str) -> None:
        nonlocal tag
        tag += 1
        broker.link.sendall(frames.replace(marker, identity.encode()))
        broker.confirmed(tag, tag)

    return trips(send, line, seconds)


def measured(worker: Callable[..., None], caller: Callable[..., float], seconds: float, *place: Any) -> float:
    pid = forked(worker, *place)
    try:
        return caller(*place, seconds)
    finally:
        os.kill(pid, signal.SIGKILL)  # its child ends with it
        os.waitpid(pid, 0)


if __name__ == "__main__":  # bare_round_trip.py PORT [VHOST REDIS_PORT] SECONDS; forks, so it wants no threads
    port, *more, wanted = sys.argv[1:]
    if more:
        print(measured(rabbit_worker, over_rabbit, float(wanted), int(port), more[0], int(more[1])))
    else:
        print(measured(redis_worker, over_redis, float(wanted), int(port)))
