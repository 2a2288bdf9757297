"""A blocking connection that several threads share, opened when it is needed and rebuilt when it is stale.

Fork-safe: a child process drops what its parent had open and opens its own. No thread serves it, so it has no
heartbeats: whether it still lives is found out before it is used.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

from celeriac.amqp.errors import AmqpError, ConnectionClosed
from celeriac.errors import BrokerUnavailable
from celeriac.transports.amqp.errors import operational

if TYPE_CHECKING:
    from celeriac.amqp.blocking import BlockingConnection
    from celeriac.amqp.blocking_channel import BlockingChannel
    from celeriac.transports.amqp.addresses import Addresses

#: seconds without use after which a word of good-bye may have come
_IDLE = 0.1
#: seconds without use after which the broker is asked whether it is still there: no word comes from a dead network
_LONG_IDLE = 30.0
#: seconds it has to answer
_PROBE_TIMEOUT = 2.0
#: seconds for saying good-bye, and when the process ends over messages that nobody has confirmed
_CLOSE_TIMEOUT, _EXIT_TIMEOUT = 1.0, 5.0


class Line:
    """One open connection: its channels, and what is known of the broker's queues since it was opened."""

    def __init__(self, connection: BlockingConnection) -> None:
        self.connection = connection
        self.used_at = time.monotonic()
        self._publishing: BlockingChannel | None = None
        self._asking: BlockingChannel | None = None
        #: queues that are there
        self.queues: set[str] = set()
        #: exchange and routing key of messages that have reached a queue
        self.proven: set[tuple[str, str]] = set()
        #: queues that are bound to the end of the ladder
        self.delayed: set[str] = set()
        self.has_ladder = False

    def publishing(self, confirms: bool, deadline: float) -> BlockingChannel:
        """The channel to publish on."""
        channel = self._publishing
        if channel is None or channel.is_closed:
            # whatever closed it may have been the loss of a queue or an exchange
            self.queues.clear()
            self.proven.clear()
            self.delayed.clear()
            self.has_ladder = False
            channel = self.connection.channel(deadline)
            if confirms:
                channel.confirm_select(deadline)
            self._publishing = channel
        return channel

    def asking(self, deadline: float) -> BlockingChannel:
        """A channel for declarations and questions, which the broker closes when the answer is no."""
        channel = self._asking
        if channel is None or channel.is_closed:
            channel = self._asking = self.connection.channel(deadline)
        return channel

    def is_alive(self) -> bool:
        """Whether it can be used; blocks for :data:`_PROBE_TIMEOUT` at most."""
        if self.connection.is_closed:
            return False
        now = time.monotonic()
        idle = now - self.used_at
        if idle < _IDLE:
            return True
        try:
            self.connection.drain(0.0)
            if idle >= _LONG_IDLE and not self.connection.is_blocked:
                self.asking(now + _PROBE_TIMEOUT).qos(0, deadline=now + _PROBE_TIMEOUT)
        except (AmqpError, OSError):
            return False
        return not self.connection.is_closed


class Link:
    """The place where a line is kept. ``purpose``: shown in RabbitMQ's management pages."""

    def __init__(self, addresses: Addresses, purpose: str) -> None:
        self._addresses = addresses
        self._purpose = purpose
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._line: Line | None = None

    @property
    def is_free(self) -> bool:
        """Nobody has the line at this moment."""
        return not self._lock.locked()

    def line(self, deadline: float) -> Using:
        """The line, for this thread alone while the context lasts. Errors of the AMQP room come out translated."""
        return Using(self, deadline)

    def take(self, deadline: float) -> Line:
        """What :meth:`line` begins with; :meth:`give_back` is due if it returns."""
        if self._pid != os.getpid():
            if self._line is not None:
                self._line.connection.abandon()
            self._reset()
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise BrokerUnavailable("Other threads kept the connection to RabbitMQ busy until the deadline.")
        try:
            return self._live(deadline)
        except BaseException:
            self._lock.release()
            raise

    def give_back(self, line: Line, *, is_broken: bool) -> None:
        line.used_at = time.monotonic()
        if is_broken:
            self._drop()
        self._lock.release()

    def _live(self, deadline: float) -> Line:
        line = self._line
        if line is not None and not line.is_alive():
            self._drop()
            line = None
        if line is None:
            line = self._line = Line(self._addresses.open(self._purpose, deadline))
        return line

    def _drop(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.connection.abandon()

    def give_up(self, line: Line) -> None:
        """The line does not answer; the next use opens another. Inside of :meth:`line` only."""
        if self._line is line:
            self._drop()

    def close_at_exit(self) -> None:
        """Say good-bye when the process ends: RabbitMQ drops what it has read but not yet queued when a connection
        just breaks off, and nobody waits for confirms of it."""
        _close_at_exit.add(self)

    def close(self, timeout: float = _CLOSE_TIMEOUT) -> None:
        """Close the connection; the next use opens another."""
        if self._pid != os.getpid() or not self._lock.acquire(timeout=timeout):
            return
        try:
            line, self._line = self._line, None
            if line is not None:
                with contextlib.suppress(AmqpError, OSError):
                    line.connection.close(time.monotonic() + timeout)
        finally:
            self._lock.release()


class Using:
    """``with link.line(deadline) as line``. By hand, since every publish passes here: a generator costs twice that."""

    __slots__ = ("_deadline", "_line", "_link")

    def __init__(self, link: Link, deadline: float) -> None:
        self._link = link
        self._deadline = deadline

    def __enter__(self) -> Line:
        try:
            self._line = self._link.take(self._deadline)
        except (AmqpError, OSError) as error:
            raise operational(error) from error
        return self._line

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._link.give_back(self._line, is_broken=isinstance(error, ConnectionClosed))
        if isinstance(error, AmqpError | OSError):
            raise operational(error) from error


_close_at_exit: weakref.WeakSet[Link] = weakref.WeakSet()


@atexit.register
def _say_good_bye() -> None:
    for link in list(_close_at_exit):
        link.close(_EXIT_TIMEOUT)
