"""The least that a worker with child processes can be: what bounds draining on this machine, whatever one writes.

The parent pops batches of 64 and notes them as held, hands them to two children over sockets, and forgets what they
have done; a child decodes message and body and calls a function. No routing, no time limits, no results, no errors,
no renewal, no log. Its rate is the goal's yardstick where the machine is too small for the goal.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import sys
import time
import traceback
from base64 import b64decode
from collections import deque
from typing import Any

import hiredis
import msgspec

import limits

BATCH = 64
CHILDREN = 2
#: batches under way in each child
AHEAD = 4
_LENGTH = struct.Struct("<I")
_decode = msgspec.json.Decoder().decode


def rate(port: int, seconds: float) -> float:
    """Tasks per second; the queue is filled first."""
    count = max(BATCH * 20, int(120_000 * min(1.0, seconds)) // BATCH * BATCH)
    with limits.connected(port) as link:
        fill = limits.resp(b"LPUSH", limits.QUEUE, *(limits.message() for _ in range(BATCH)))
        reader = hiredis.Reader()
        for _ in range(count // BATCH):
            link.sendall(fill)
            reader.feed(link.recv(1 << 16))
        pairs = [socket.socketpair() for _ in range(CHILDREN)]
        children = [_forked(pair[1], [one[0] for one in pairs]) for pair in pairs]
        for _, end in pairs:
            end.close()
        try:
            return _drain(link, [pair[0] for pair in pairs], count)
        finally:
            for pair in pairs:
                pair[0].close()
            for pid in children:
                os.waitpid(pid, 0)


def _forked(end: socket.socket, parents_ends: list[socket.socket]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            for one in parents_ends:
                one.close()  # or their children would never see the end
            _be_child(end)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return pid


def _be_child(sock: socket.socket) -> None:
    def function(n: int) -> int:
        return n

    def exactly(size: int) -> bytearray:
        data = bytearray()
        while len(data) < size:
            more = sock.recv(size - len(data))
            if not more:
                os._exit(0)
            data += more
        return data

    while True:
        names, texts = msgspec.msgpack.decode(exactly(_LENGTH.unpack(exactly(4))[0]))
        for text in texts:
            args, kwargs, _ = _decode(b64decode(_decode(text)["body"]))
            function(*args, **kwargs)
        sock.sendall(_framed(names))


def _framed(value: object) -> bytes:
    body = msgspec.msgpack.encode(value)
    return _LENGTH.pack(len(body)) + body


def _drain(link: socket.socket, pipes: list[socket.socket], count: int) -> float:
    pop, reader = limits.resp(b"RPOP", limits.QUEUE, str(BATCH).encode()), hiredis.Reader()
    selector = selectors.DefaultSelector()
    for one in pipes:
        selector.register(one, selectors.EVENT_READ)
    under_way = dict.fromkeys(pipes, 0)
    rest = {pipe: bytearray() for pipe in pipes}
    finished: deque[list[str]] = deque()
    done, popped, began = 0, 0, time.perf_counter()

    def ask(command: bytes, answers: int) -> list[object]:
        link.sendall(command)
        found: list[object] = []
        while len(found) < answers:
            reader.feed(link.recv(1 << 18))
            while (answer := reader.gets()) is not False:
                found.append(answer)
        return found

    while done < count:
        for one in pipes:
            while under_way[one] < AHEAD and popped < count:
                forget = b"".join(limits.resp(b"ZREM", b"held", *map(str.encode, names)) for names in finished)
                texts = ask(forget + pop, len(finished) + 1)[-1]
                finished.clear()
                assert isinstance(texts, list)
                popped += len(texts)
                names = [f"{popped}.{place}" for place in range(len(texts))]
                # a round trip of its own, as names have to be known before they can be noted
                ask(limits.resp(b"ZADD", b"held", *(word for n in names for word in (b"1790000000", n.encode()))), 1)
                one.sendall(_framed((names, texts)))
                under_way[one] += 1
        for key, _ in selector.select(1.0):
            pipe: Any = key.fileobj
            data, more = rest[pipe], pipe.recv(1 << 18)
            if not more:
                raise RuntimeError("a child of the bare worker has ended")
            data += more
            while len(data) >= 4 and len(data) >= 4 + (size := _LENGTH.unpack_from(data)[0]):
                names = msgspec.msgpack.decode(bytes(data[4 : 4 + size]))
                del data[: 4 + size]
                finished.append(names)
                done += len(names)
                under_way[pipe] -= 1
    return done / (time.perf_counter() - began)


if __name__ == "__main__":  # bare_worker.py PORT SECONDS: forks, so it wants a process without threads
    print(rate(int(sys.argv[1]), float(sys.argv[2])))
