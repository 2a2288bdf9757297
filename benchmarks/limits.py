"""What this machine's brokers allow at all: the smallest exchange of bytes that could do the work, by bare sockets.

No product is in it. Each function takes the address of an empty broker, runs for about ``seconds`` and returns
operations per second. The figures of ``redis-py`` and ``py-amqp`` beside them say what a client library leaves of it.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Callable

QUEUE = b"celery"
BODY = b'[[1], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
#: messages in one write where messages may travel together
BATCH = 64


def envelope() -> tuple[dict[str, Any], dict[str, Any]]:
    """Headers and properties of a task message, as Celery and we write it."""
    identity = str(uuid4())
    headers: dict[str, Any] = {
        "lang": "py", "task": "celeriac_app.noop", "id": identity, "shadow": None, "eta": None, "expires": None,
        "group": None, "group_index": None, "retries": 0, "timelimit": [None, None], "root_id": identity,
        "parent_id": None, "argsrepr": "(1,)", "kwargsrepr": "{}", "origin": "gen1234@localhost",
        "ignore_result": True, "replaced_task_nesting": 0, "stamped_headers": None, "stamps": {},
    }  # fmt: skip
    properties = {
        "content_type": "application/json", "content_encoding": "utf-8", "correlation_id": identity, "reply_to": "",
        "delivery_mode": 2, "priority": 0,
    }  # fmt: skip
    return headers, properties


def per_second(seconds: float, step: Callable[[], int]) -> float:
    """``step`` again and again; the sum of what it returns, per second."""
    step()  # connections and caches are warm
    count, began = 0, time.perf_counter()
    ends = began + seconds
    while (now := time.perf_counter()) < ends:
        count += step()
    return count / (now - began)


def connected(port: int) -> socket.socket:
    link = socket.create_connection(("127.0.0.1", port), 10)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


# ── Redis ────────────────────────────────────────────────────────────────────────────────────────────────────


def resp(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def message() -> bytes:
    from celeriac.transports.base import Envelope, Route
    from celeriac.wire.kombu_json import encode_envelope

    return encode_envelope(Envelope(BODY, *envelope()), Route("", "celery"))


def lpush_bare(port: int, seconds: float) -> float:
    """One LPUSH, wait for its answer, again: no client can send one at a time faster."""
    with connected(port) as link:
        command = resp(b"LPUSH", QUEUE, message())

        def step() -> int:
            link.sendall(command)
            link.recv(64)
            return 1

        return per_second(seconds, step)


def lpush_client(port: int, seconds: float) -> float:
    """The same through redis-py with hiredis."""
    import redis

    with redis.Redis(port=port, socket_timeout=10) as client:
        text = message()

        def step() -> int:
            client.execute_command("LPUSH", QUEUE, text)
            return 1

        return per_second(seconds, step)


def lpush_pipelined(port: int, seconds: float) -> float:
    """A thousand LPUSHes in one write."""
    count = 1000
    with connected(port) as link:
        command = resp(b"LPUSH", QUEUE, message()) * count

        def step() -> int:
            link.sendall(command)
            answers = 0
            while answers < count:
                answers += link.recv(1 << 16).count(b"\n")
            return count

        return per_second(seconds, step)


def claim_and_acknowledge(port: int, seconds: float) -> float:
    """Batches of 64: pop them and note them as held; in the same write, forget those of the batch before.

    Two clients at work, as two commands are always under way; no script and no lease, so it is a little more than
    any queue that loses nothing can do.
    """
    texts = [message() for _ in range(BATCH)]
    names = [str(uuid4()).encode() for _ in range(BATCH)]
    refill = resp(b"LPUSH", QUEUE, *texts)
    pop = resp(b"RPOP", QUEUE, str(BATCH).encode())
    hold = resp(b"ZADD", b"held", *(word for name in names for word in (b"1790000000", name)))
    forget = resp(b"ZREM", b"held", *names)
    import hiredis

    with connected(port) as link:
        reader = hiredis.Reader()

        def ask(command: bytes, answers: int) -> None:
            link.sendall(command)
            while answers:
                reader.feed(link.recv(1 << 18))
                while reader.gets() is not False:
                    answers -= 1

        total, spent, ends = 0, 0.0, time.perf_counter() + seconds
        while time.perf_counter() < ends:
            ask(refill * 50, 50)
            began = time.perf_counter()
            for _ in range(50):
                ask(forget + pop + hold, 3)
            spent += time.perf_counter() - began
            total += 50 * BATCH
        return total / spent


# ── RabbitMQ ─────────────────────────────────────────────────────────────────────────────────────────────────


class Bare:
    """Just enough of AMQP 0-9-1 to open a channel and to move ready-made frames."""

    def __init__(self, port: int, vhost: str, queue: str = "celery") -> None:
        self.link = connected(port)
        self.buffer = bytearray()
        self.link.sendall(b"AMQP\x00\x00\x09\x01")
        self.wait(10, 10)
        capabilities = struct.pack(">I", 0)
        login = b"\x00guest\x00guest"
        self.method(0, 10, 11, capabilities + short(b"PLAIN") + long(login) + short(b"en_US"))
        self.wait(10, 30)
        self.method(0, 10, 31, struct.pack(">HIH", 1, 131072, 0))
        self.method(0, 10, 40, short(vhost.encode()) + b"\x00\x00")
        self.wait(10, 41)
        self.method(1, 20, 10, b"\x00")
        self.wait(20, 11)
        self.queue = queue.encode()
        # durable, no arguments
        self.method(1, 50, 10, b"\x00\x00" + short(self.queue) + b"\x02" + struct.pack(">I", 0))
        self.wait(50, 11)

    def __enter__(self) -> Bare:
        return self

    def __exit__(self, *_: object) -> None:
        self.link.close()

    def method(self, channel: int, group: int, number: int, arguments: bytes) -> None:
        self.link.sendall(frame(1, channel, struct.pack(">HH", group, number) + arguments))

    def wait(self, group: int, number: int) -> bytes:
        """The arguments of the next such method; frames before it are dropped."""
        while True:
            for kind, payload in self.frames():
                if kind == 1 and struct.unpack_from(">HH", payload) == (group, number):
                    return payload[4:]

    def frames(self) -> list[tuple[int, bytes]]:
        """What one read brings; at least one frame."""
        found: list[tuple[int, bytes]] = []
        while not found:
            data = self.link.recv(1 << 18)
            if not data:
                raise RuntimeError("the broker closed the connection")
            self.buffer += data
            start = 0
            while len(self.buffer) - start >= 8:
                kind, _, size = struct.unpack_from(">BHI", self.buffer, start)
                if len(self.buffer) - start < size + 8:
                    break
                found.append((kind, bytes(self.buffer[start + 7 : start + 7 + size])))
                start += size + 8
            del self.buffer[:start]
        return found

    def publication(self) -> bytes:
        """The frames of one persistent task message."""
        given, known = envelope()
        headers = table(given)
        flags = 0x8000 | 0x4000 | 0x2000 | 0x1000 | 0x0800 | 0x0400  # up to correlation id
        properties = (
            struct.pack(">H", flags) + short(b"application/json") + short(b"utf-8") + headers + b"\x02\x00"
            + short(known["correlation_id"].encode())
        )  # fmt: skip
        publish = struct.pack(">HH", 60, 40) + b"\x00\x00" + short(b"") + short(self.queue) + b"\x00"
        header = struct.pack(">HHQ", 60, 0, len(BODY)) + properties
        return frame(1, 1, publish) + frame(2, 1, header) + frame(3, 1, BODY)

    def confirmed(self, first: int, last: int) -> None:
        """Wait until the broker has confirmed every message from the first to the last."""
        waiting = set(range(first, last + 1))
        while waiting:
            for kind, payload in self.frames():
                if kind == 1 and payload[:4] == b"\x00\x3c\x00\x50":  # basic.ack
                    tag, multiple = struct.unpack_from(">QB", payload, 4)
                    if multiple:
                        waiting.difference_update(range(first, tag + 1))
                        first = tag + 1
                    else:
                        waiting.discard(tag)


def short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def long(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def table(values: dict[str, object]) -> bytes:
    def coded(value: object) -> bytes:
        match value:
            case None:
                return b"V"
            case bool():
                return b"t" + bytes([value])
            case int():
                return b"I" + struct.pack(">i", value)
            case str():
                return b"S" + long(value.encode())
            case list():
                return b"A" + long(b"".join(map(coded, value)))
            case dict():
                return b"F" + table(value)
        raise TypeError(value)

    return long(b"".join(short(key.encode()) + coded(value) for key, value in values.items()))


def publish_confirmed(port: int, vhost: str, seconds: float) -> float:
    """One persistent message, wait for its confirm, again."""
    with Bare(port, vhost) as broker:
        broker.method(1, 85, 10, b"\x00")
        broker.wait(85, 11)
        text, tag = broker.publication(), 0

        def step() -> int:
            nonlocal tag
            tag += 1
            broker.link.sendall(text)
            broker.confirmed(tag, tag)
            return 1

        return per_second(seconds, step)


def publish_pipelined(port: int, vhost: str, seconds: float) -> float:
    """A thousand persistent messages in one write, wait for all their confirms."""
    count = 1000
    with Bare(port, vhost) as broker:
        broker.method(1, 85, 10, b"\x00")
        broker.wait(85, 11)
        text, tag = broker.publication() * count, 0

        def step() -> int:
            nonlocal tag
            tag += count
            broker.link.sendall(text)
            broker.confirmed(tag - count + 1, tag)
            return count

        return per_second(seconds, step)


def publish_unconfirmed(port: int, vhost: str, seconds: float) -> float:
    """One persistent message per write, no confirms: as fast as the broker's socket takes them."""
    with Bare(port, vhost) as broker:
        text = broker.publication()

        def step() -> int:
            broker.link.sendall(text)
            return 1

        return per_second(seconds, step)


def consume_and_acknowledge(port: int, vhost: str, seconds: float) -> float:
    """Prefetch 1000, split the frames, count the bodies, acknowledge about a hundred at once."""
    with Bare(port, vhost, "drained") as broker:
        text = broker.publication()
        total = int(40_000 * min(1.0, seconds))
        for _ in range(0, total, 100):
            broker.link.sendall(text * 100)
        broker.method(1, 50, 10, b"\x00\x00" + short(broker.queue) + b"\x03" + struct.pack(">I", 0))
        broker.wait(50, 11)
        broker.method(1, 60, 10, struct.pack(">IHB", 0, 1000, 0))
        broker.wait(60, 11)
        began, count, acknowledged = time.perf_counter(), 0, 0
        consume = b"\x00\x00" + short(broker.queue) + short(b"c") + b"\x00" + struct.pack(">I", 0)
        broker.method(1, 60, 20, consume)
        while count < total:
            count += sum(kind == 3 for kind, _ in broker.frames())
            if count - acknowledged >= 100 or count == total:
                acknowledged = count
                broker.method(1, 60, 80, struct.pack(">QB", count, 1))
        return total / (time.perf_counter() - began)


def py_amqp(port: int, vhost: str, seconds: float) -> float:
    """One confirmed publish at a time through py-amqp, which is Celery's; runs in the peers' environment."""
    import amqp  # type: ignore[import-not-found]  # the peers' environment has it

    with amqp.Connection(f"127.0.0.1:{port}", virtual_host=vhost, confirm_publish=True) as connection:
        channel = connection.channel()
        channel.queue_declare("celery", durable=True, auto_delete=False)
        headers, properties = envelope()
        del properties["reply_to"], properties["priority"]
        text = amqp.Message(BODY, application_headers=headers, **properties)

        def step() -> int:
            channel.basic_publish_confirm(text, exchange="", routing_key="celery")
            return 1

        return per_second(seconds, step)


if __name__ == "__main__":  # limits.py NAME PORT [VHOST] SECONDS: one limit, in another process
    name, port, *more, seconds = sys.argv[1:]
    print(globals()[name](int(port), *more, float(seconds)))
