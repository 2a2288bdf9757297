"""A TCP proxy that does to connections what networks do: late, slow, torn, silent, cut, reset, refused.

It stands between any client and any server on the loopback address and knows nothing of what they say. Faults are
switched from the test's thread while bytes flow; the proxy runs on an event loop in a thread of its own.

    with FaultProxy("127.0.0.1", server.port) as proxy:
        client = connect(proxy.url(server.url()))
        proxy.to_client.add(Latency(0.05))
        cut = proxy.to_client.add(CutAt(b"reply", nth=3))
        cut.wait(10.0)
        proxy.heal()
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit, urlunsplit

import msgspec

from celeriac.testing.directions import Direction, Placed
from celeriac.testing.links import Link
from celeriac.testing.toxics import Bandwidth, CutAt, Hold, How, Latency, Limit, Slicer, Toxic

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Bandwidth", "Counters", "CutAt", "Direction", "FaultProxy", "Hold", "Latency", "Limit", "Placed", "Slicer",
    "Toxic",
]  # fmt: skip

#: seconds that an order to the proxy's thread may take
_ORDER_TIMEOUT = 10.0
_CONNECT_TIMEOUT = 5.0
_LOOPBACK = "127.0.0.1"


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """What has passed since the proxy was started."""

    accepted: int  #: connections of clients
    unreachable: int  #: of these, how many found no server
    ended: int  #: connections that the proxy cut or reset
    open: int  #: now
    bytes_to_server: int
    bytes_to_client: int


class FaultProxy:
    """Between clients and one server. A context manager, or ``start`` and ``stop``. Thread-safe.

    ``to_server`` and ``to_client`` take toxics; the verbs below act on all connections at once.
    """

    def __init__(self, host: str, port: int, *, seed: int = 0) -> None:
        """``seed``: of the jitter."""
        self.dice = random.Random(seed)
        self._server = (host, port)
        #: holds the port while nobody listens on it
        self._seat = _bound(0)
        self.host = _LOOPBACK
        self.port = int(self._seat.getsockname()[1])
        self.to_server = Direction(self.order)
        self.to_client = Direction(self.order)
        self.unreachable = 0
        self.ended = 0
        self._accepted = 0
        self._links: set[Link] = set()
        self._paused: list[Placed] = []
        self._listener: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self.accept()

    def stop(self) -> None:
        """End every connection and the thread. Idempotent."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._await(self._end_all("cut", for_good=True))
        self._loop = self._thread = None
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=_ORDER_TIMEOUT)
        loop.close()
        self._seat.close()

    def url(self, url: str) -> str:
        """``url`` with this proxy's address in the place of its host and port."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}{self.host}:{self.port}"))

    @property
    def counters(self) -> Counters:
        return Counters(
            accepted=self._accepted, unreachable=self.unreachable, ended=self.ended, open=len(self._links),
            bytes_to_server=self.to_server.passed, bytes_to_client=self.to_client.passed,
        )  # fmt: skip

    # ── what can be done to all connections ─────────────────────────────────────────────────────────────────────

    def cut(self) -> int:
        """Close every connection in order (FIN to both ends); how many there were."""
        return self._end("cut")

    def reset(self) -> int:
        """Reset every connection (RST to both ends); how many there were."""
        return self._end("reset")

    def pause(self) -> None:
        """A black hole: nothing passes in either direction until :meth:`resume`; nothing is lost."""
        self._paused += [self.to_server.add(Hold()), self.to_client.add(Hold())]

    def resume(self) -> None:
        while self._paused:
            self._paused.pop().remove()

    def refuse(self) -> None:
        """Stop listening: new connections are refused, open ones stay."""
        self._await(self._stop_listening())

    def accept(self) -> None:
        """Listen again."""
        self._await(self._listen())

    def heal(self) -> None:
        """Take all faults away: no toxics, no stall, no pause, no refusal. What was cut stays cut."""
        self._paused.clear()
        self.to_server.clear()
        self.to_client.clear()
        self.order(self._release_all)
        self.accept()

    # ── in the proxy's thread ───────────────────────────────────────────────────────────────────────────────────

    def order(self, action: Callable[[], None]) -> None:
        """Do ``action`` in the proxy's thread; before it was started or after it has ended, here."""
        if self._loop is None:
            action()
            return

        async def act() -> None:
            action()

        self._await(act())

    def _await(self, doing: Any) -> Any:
        if self._loop is None:
            doing.close()
            raise RuntimeError("the proxy is not running")
        return asyncio.run_coroutine_threadsafe(doing, self._loop).result(_ORDER_TIMEOUT)

    def _end(self, how: How) -> int:
        count: int = self._await(self._end_all(how))
        return count

    async def connect(self) -> socket.socket:
        server = socket.socket()
        server.setblocking(False)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                await asyncio.get_running_loop().sock_connect(server, self._server)
        except BaseException:
            server.close()
            raise
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return server

    async def _listen(self) -> None:
        if self._listener is None:
            listener = _bound(self.port)
            listener.listen(128)
            self._listener = asyncio.get_running_loop().create_task(self._serve(listener))

    async def _stop_listening(self) -> None:
        task, self._listener = self._listener, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task], timeout=_ORDER_TIMEOUT)

    async def _serve(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                client, _ = await loop.sock_accept(listener)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._accepted += 1
                link = Link(self, client)
                self._links.add(link)
                link.task = loop.create_task(link.run())
                link.task.add_done_callback(lambda _, link=link: self._links.discard(link))  # type: ignore[misc]

    def _release_all(self) -> None:
        for link in self._links:
            link.release()

    async def _end_all(self, how: How, for_good: bool = False) -> int:
        if for_good:
            await self._stop_listening()
        links = list(self._links)
        for link in links:
            link.end(how)
        self.ended += len(links)
        tasks = [link.task for link in links if link.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=_ORDER_TIMEOUT)
        return len(links)


def _bound(port: int) -> socket.socket:
    """A socket at ``port``; several may sit there, one of them may listen."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((_LOOPBACK, port))
    made.setblocking(False)
    return made
