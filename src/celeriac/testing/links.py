"""One connection through the fault proxy: two pipes, each with the toxics of its direction.

Everything here runs in the proxy's thread, on its event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from typing import TYPE_CHECKING, Protocol

from celeriac.testing.toxics import Bandwidth, CutAt, How, Limit, Search, Slicer

if TYPE_CHECKING:
    from celeriac.testing.directions import Direction, Placed

#: bytes read at once
CHUNK_BYTES = 64 * 1024
#: chunks of a direction that may be under way inside the proxy, as in a network with this much room
_ROOM = 64


class House(Protocol):
    """What a connection needs of its proxy."""

    to_server: Direction
    to_client: Direction
    dice: random.Random
    unreachable: int
    ended: int

    async def connect(self) -> socket.socket: ...


class Ended(Exception):
    """The connection is over, by our will or an end's."""

    how: How

    def __init__(self, how: How, by_toxic: bool = False) -> None:
        self.how = how
        self.by_toxic = by_toxic


class Pipe:
    """One direction of one connection."""

    def __init__(
        self, source: socket.socket, sink: socket.socket, direction: Direction, back: Direction, dice: random.Random
    ) -> None:
        self._source = source
        self._sink = sink
        self._direction = direction
        self._back = back
        self._dice = dice
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_ROOM)
        self._searches: dict[Placed, Search] = {}
        self._sent = 0
        self.released = asyncio.Event()
        self.released.set()

    async def read(self) -> None:
        """Take bytes in as they come, with the time at which they may go on."""
        due = 0.0
        data = b"-"
        while data:
            await self._direction.flowing.wait()
            try:
                data = await self._loop.sock_recv(self._source, CHUNK_BYTES)
            except OSError:
                await self._direction.flowing.wait()  # the news of the reset would not have come through, either
                raise Ended("reset") from None
            due = max(due, self._loop.time() + self._direction.delay(self._dice))
            await self._queue.put((due, data))

    async def write(self) -> None:
        """Hand them on."""
        while True:
            due, data = await self._queue.get()
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            if not data:
                await self._open()
                with contextlib.suppress(OSError):
                    self._sink.shutdown(socket.SHUT_WR)
                return
            await self._pass(data)

    async def _pass(self, data: bytes) -> None:
        """Send ``data``, unless a toxic ends the connection within it."""
        await self._open()
        end = self._end_within(data)
        if end is None:
            await self._send(data)
            return
        placed, at, how = end
        await self._send(data[:at])
        placed.strike()
        if how != "stall":
            raise Ended(how, by_toxic=True)
        self.released.clear()
        await self._send(data[at:])

    def _end_within(self, data: bytes) -> tuple[Placed, int, How] | None:
        """The toxic that strikes first, and after how many bytes."""
        ends: list[tuple[int, Placed, How]] = []
        for placed, limit in self._direction.of_kind(Limit):
            if self._sent + len(data) >= limit.bytes_:
                ends.append((max(0, limit.bytes_ - self._sent), placed, limit.how))
        for placed, cut in self._direction.of_kind(CutAt):
            search = self._searches.setdefault(placed, Search(cut.marker))
            for end in search.ends(data):
                placed.seen += 1
                if cut.strikes(placed.seen):
                    ends.append((end if cut.after else max(0, end - len(cut.marker)), placed, cut.how))
                    break
        if not ends:
            return None
        at, placed, how = min(ends, key=lambda end: end[0])
        return placed, at, how

    async def _send(self, data: bytes) -> None:
        size = min((toxic.size for _, toxic in self._direction.of_kind(Slicer)), default=CHUNK_BYTES)
        rate = min((toxic.bytes_per_second for _, toxic in self._direction.of_kind(Bandwidth)), default=0.0)
        if rate:
            size = max(1, min(size, int(rate / 20)))
        pause = sum(toxic.pause for _, toxic in self._direction.of_kind(Slicer))
        for start in range(0, len(data), size):
            await self._open()
            piece = data[start : start + size]
            self._sent += len(piece)
            self._direction.passed += len(piece)
            try:
                await self._loop.sock_sendall(self._sink, piece)
            except OSError:
                await self._back.flowing.wait()  # that the sink is gone is news from the other side
                raise Ended("reset") from None
            if rate or pause:
                await asyncio.sleep(pause + (len(piece) / rate if rate else 0.0))

    async def _open(self) -> None:
        await self.released.wait()
        await self._direction.flowing.wait()


class Link:
    """One connection of a client, with ours to the server."""

    def __init__(self, house: House, client: socket.socket) -> None:
        self._house = house
        self._client = client
        self._server: socket.socket | None = None
        self._pipes: list[Pipe] = []
        self._how: How = "cut"
        self.task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        try:
            self._server = await self._house.connect()
        except OSError:
            self._house.unreachable += 1
            self._how = "reset"
        else:
            await self._carry(self._client, self._server)
        finally:
            for end in (self._client, self._server):
                if end is not None:
                    _close(end, self._how)

    async def _carry(self, client: socket.socket, server: socket.socket) -> None:
        house = self._house
        self._pipes = [
            Pipe(client, server, house.to_server, house.to_client, house.dice),
            Pipe(server, client, house.to_client, house.to_server, house.dice),
        ]
        try:
            async with asyncio.TaskGroup() as group:
                for pipe in self._pipes:
                    group.create_task(pipe.read())
                    group.create_task(pipe.write())
        except* Ended as ended:
            first = _first(ended)
            self._how = first.how
            house.ended += first.by_toxic

    def release(self) -> None:
        for pipe in self._pipes:
            pipe.released.set()

    def end(self, how: How) -> None:
        self._how = how
        if self.task is not None:
            self.task.cancel()


def _first(ended: BaseExceptionGroup[Ended]) -> Ended:
    first = ended.exceptions[0]
    return first if isinstance(first, Ended) else _first(first)


def _close(end: socket.socket, how: How) -> None:
    with contextlib.suppress(OSError):
        if how == "reset":
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            end.shutdown(socket.SHUT_WR)
            while end.recv(CHUNK_BYTES):  # bytes left unread would make a reset of the close
                pass
    end.close()
