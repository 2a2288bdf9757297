"""A connection whose answers come through the event loop, in the order of the calls.

Connecting is blocking and stays with ``connect.py``; after that everything happens on the loop, where a large answer
is read without a fight for the interpreter and a short one costs no change of threads.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import TYPE_CHECKING, Any

import hiredis

from celeriac.redis.connect import NOTHING, READ_SIZE, pack
from celeriac.redis.errors import Fault, LinkBroken, ReplyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.redis.connect import Argument, Link

#: what a socket says that has nothing to read, or no room to write, now
_NOT_NOW = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class AsyncLink:
    """One connection to one server, for the event loop that runs when it is made. After any trouble of no more use."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._socket, self._reader = link.for_loop()
        self._pending = getattr(self._socket, "pending", None)  # decrypted bytes that no selector would tell of
        self._descriptor = self._socket.fileno()
        self._loop = asyncio.get_running_loop()
        #: who waits for which reply: a future, or somebody to be told that there is one
        self._due: deque[asyncio.Future[Any] | Callable[[], None]] = deque()
        self._later = b""
        self._unsent = bytearray()
        self._heard_at = 0.0
        self._guard: asyncio.TimerHandle | None = None
        self.patience = link.patience
        self.scripts = link.scripts
        self.is_closed = False
        self._loop.add_reader(self._descriptor, self._read)

    def call(self, *command: Argument) -> asyncio.Future[Any]:
        """Send a command. The future brings its reply, ``ReplyError`` or ``LinkBroken``; to cancel it gives up the
        reply and nothing else. A server that is silent for longer than ``patience`` breaks the link."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._begin(future, command)
        return future

    def call_later(self, *command: Argument) -> asyncio.Future[Any]:
        """As :meth:`call`, but sent in one write with the next one."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._due.append(future)
        self._later += pack(command)
        return future

    def listen(self, command: tuple[Argument, ...], told: Callable[[], None]) -> None:
        """Send a command whose reply is of no interest: ``told`` is called when it is there, or when the link broke.
        Raises ``LinkBroken``."""
        self._begin(told, command)

    def _begin(self, waiting: asyncio.Future[Any] | Callable[[], None], command: tuple[Argument, ...]) -> None:
        if self.is_closed:
            raise LinkBroken("the connection is closed", Fault.UNREACHABLE, sent=False)
        packed = self._later + pack(command)
        if self._later or not self._due:
            self._later = b""
            self._heard_at = self._loop.time()
            if self._guard is None:
                self._guard = self._loop.call_later(self.patience, self._look_at_the_time)
        self._due.append(waiting)
        if self._unsent:
            self._unsent += packed
        elif (sent := self._write(packed)) < len(packed) and not self.is_closed:
            self._unsent += memoryview(packed)[sent:]
            self._loop.add_writer(self._descriptor, self._write_on)

    def _write(self, data: bytes | bytearray) -> int:
        try:
            return self._socket.send(data)
        except _NOT_NOW:
            return 0
        except OSError as error:
            self._break(_lost(error))
            return 0

    def _write_on(self) -> None:
        del self._unsent[: self._write(self._unsent)]
        if not self._unsent and not self.is_closed:
            self._loop.remove_writer(self._descriptor)

    def _read(self) -> None:
        try:
            self._feed()
            self._tell()
        except LinkBroken as error:
            self._break(error)
        except hiredis.HiredisError as error:
            self._break(LinkBroken(f"not the protocol of Redis: {error}", Fault.MISPLACED, sent=True))
        except OSError as error:
            self._break(_lost(error))

    def _feed(self) -> None:
        try:
            while True:
                data = self._socket.recv(READ_SIZE)
                if not data:
                    raise LinkBroken("the server closed the connection", Fault.UNREACHABLE, sent=True)
                self._reader.feed(data)
                if len(data) < READ_SIZE and not (self._pending is not None and self._pending()):
                    return
        except _NOT_NOW:
            return

    def _tell(self) -> None:
        take, due = self._reader.gets, self._due
        while (reply := take()) is not NOTHING:
            if isinstance(reply, hiredis.PushNotification):
                continue
            if not due:
                raise LinkBroken(f"an unexpected reply: {str(reply)[:100]}", Fault.OTHER, sent=False)
            waiting = due.popleft()
            if not isinstance(waiting, asyncio.Future):
                waiting()
            elif waiting.done():
                pass  # given up
            elif isinstance(reply, ReplyError):
                waiting.set_exception(reply)
            else:
                waiting.set_result(reply)
        self._heard_at = self._loop.time()

    def _look_at_the_time(self) -> None:
        self._guard = None
        if not self._due:
            return
        left = self._heard_at + self.patience - self._loop.time()
        if left > 0:
            self._guard = self._loop.call_later(left, self._look_at_the_time)
        else:
            self._break(LinkBroken("the server did not answer in time", Fault.SLOW, sent=True))

    def _break(self, error: LinkBroken) -> None:
        """Close, and tell everybody who waits."""
        if self.is_closed:
            return
        self.is_closed = True
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_writer(self._descriptor)
        if self._guard is not None:
            self._guard.cancel()
            self._guard = None
        self._link.close()
        error.with_traceback(None)  # it leads here, and by the futures back to itself
        due, self._due = self._due, deque()
        for waiting in due:
            if not isinstance(waiting, asyncio.Future):
                waiting()
            elif not waiting.done():
                waiting.set_exception(error)

    def close(self) -> None:
        """Idempotent. Whoever waits for a reply gets ``LinkBroken``."""
        self._break(LinkBroken("the connection was closed here", Fault.UNREACHABLE, sent=True))


def _lost(error: OSError) -> LinkBroken:
    return LinkBroken(error.strerror or str(error), Fault.UNREACHABLE, sent=True)
