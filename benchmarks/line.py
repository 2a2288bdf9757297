"""A TCP line with a long way: ``line.py PORT TARGET DELAY`` forwards to TARGET, every byte DELAY seconds later.

Its own process and one thread, so that it takes no time from those that it joins. What arrived together leaves
together; order is kept. ``select`` waits with microseconds (``epoll`` of Python rounds up to milliseconds).
"""

import select
import socket
import sys
import time
from collections import deque

#: bytes under way in one direction before reading stops: bandwidth times delay of a fast network
ROOM = 16 << 20


class Way:
    """One direction of a connection."""

    def __init__(self, source, target):
        self.source, self.target = source, target
        self.pieces = deque()  # (due, bytes); empty bytes: the sender has closed
        self.size = 0
        self.is_open = True

    def take(self, due):
        try:
            data = self.source.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.is_open = False
        self.pieces.append((due, memoryview(data)))
        self.size += len(data)

    def pass_on(self, now):
        """Whether the target takes no more for now."""
        while self.pieces and self.pieces[0][0] <= now:
            due, data = self.pieces.popleft()
            try:
                if not data:
                    self.target.shutdown(socket.SHUT_WR)
                    continue
                sent = self.target.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                continue  # the other direction notices
            self.size -= sent
            if sent < len(data):
                self.pieces.appendleft((due, data[sent:]))
                return True
        return False


def joined(accepted, target):
    onward = socket.create_connection(("127.0.0.1", target), 10)
    for one in (accepted, onward):
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.setblocking(False)
    return [Way(accepted, onward), Way(onward, accepted)]


def main():
    port, target, delay = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    listener = socket.create_server(("127.0.0.1", port))
    print("ready", flush=True)
    ways = []
    while True:
        now = time.monotonic()
        full = [way.target for way in ways if way.pass_on(now)]
        ended = [way for way in ways if not way.is_open and not way.pieces]
        if ended:
            gone = {id(way.source) for way in ended}
            over = [way for way in ways if id(way.source) in gone and id(way.target) in gone]
            for way in over:
                way.source.close()
            ways = [way for way in ways if way not in over]
        due = min((way.pieces[0][0] for way in ways if way.pieces and way.target not in full), default=now + 1.0)
        readable = [listener, *(way.source for way in ways if way.is_open and way.size < ROOM)]
        ready, _, _ = select.select(readable, full, [], max(0.0, due - time.monotonic()))
        arrived = time.monotonic() + delay
        for one in ready:
            if one is listener:
                ways += joined(listener.accept()[0], target)
        sources = set(ready)
        for way in ways:
            if way.source in sources:
                way.take(arrived)


main()
