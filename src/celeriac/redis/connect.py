"""Connections to Redis: one :class:`Link` is one socket, a :class:`Links` keeps the idle ones of a process.

redis-py connects (TCP, TLS, credentials); after that the socket is driven here, since a call through its client costs
more than the round trip. Every read and write has a deadline, nothing is sent twice, and a link that met any trouble
is of no more use. Raises what ``errors.py`` translates.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import hiredis
from redis import connection as vendor
from redis import exceptions

from celeriac.polling import READABLE, poller
from celeriac.redis.address import Address, Endpoint, Login
from celeriac.redis.errors import VENDOR_ERRORS, Fault, LinkBroken, ReplyError, fault_of
from celeriac.redis.locate import servers

#: what a command is made of
Argument = str | bytes | int | float
Command = Sequence[Argument]

_CHUNK = 1 << 18
#: what breaks a link, in words of others
_TROUBLES = (OSError, hiredis.HiredisError)
#: bytes that one look at a socket reads at most
READ_SIZE = 1 << 16
#: what a reader says when there is no whole reply
NOTHING = object()
#: its stub asks for a tuple of one
pack: Callable[[tuple[Argument, ...]], bytes] = cast("Any", hiredis.pack_command)


class Wake:
    """Rung from any thread, heard by a link that listens. Outlives links."""

    def __init__(self) -> None:
        self._ear, self._mouth = socket.socketpair()
        for end in (self._ear, self._mouth):
            end.setblocking(False)

    def ring(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake already; closed: nobody listens
            self._mouth.send(b"\0")

    def drain(self) -> bool:
        """Whether it was rung since the last time."""
        try:
            return bool(self._ear.recv(4096))
        except OSError:
            return False

    def fileno(self) -> int:
        return self._ear.fileno()

    def close(self) -> None:
        self._mouth.close()
        self._ear.close()


class Link:
    """One connection to one server. Blocking; one thread at a time."""

    def __init__(self, connection: Any, endpoint: Endpoint, answer_timeout: float) -> None:
        #: redis-py's, connected; we speak on its socket
        self._connection = connection
        self._socket: socket.socket = connection._sock
        self._reader = hiredis.Reader(replyError=ReplyError, notEnoughData=NOTHING)
        #: seconds that the server may be silent when an answer is due
        self.patience = answer_timeout
        self._pending = getattr(self._socket, "pending", None)  # decrypted bytes that no poll would tell of
        self._poll = poller()
        self._poll.register(self._socket.fileno(), READABLE)
        self._wake: Wake | None = None
        #: messages that came between replies (subscriptions)
        self._pushed: deque[list[Any]] = deque()
        self._timeout: float | None = -1.0
        self.endpoint = endpoint
        self.pid = os.getpid()
        self.used_at = time.monotonic()
        #: it was idle before: what broke it may have happened long ago
        self.reused = False
        #: the server says that it is not the one to ask: see whom to ask before the next use
        self.misplaced = False
        #: of no more use
        self.broken = False
        #: names of the scripts that this server is known to have
        self.scripts: set[str] = set()

    # ── calls ────────────────────────────────────────────────────────────────────────────────────────────────

    def call(self, *command: Argument, deadline: float | None = None) -> Any:
        """Send a command and return its reply. Raises ``ReplyError`` for an error reply.

        ``deadline``: on ``time.monotonic()``; None: as long as the server is never silent for longer than ``patience``.
        """
        self.send(pack(command), deadline)
        reply = self.receive(deadline)
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def call_many(self, commands: Sequence[Command], deadline: float | None = None) -> list[Any]:
        """Send them in one go and return their replies; error replies stand among them as ``ReplyError``."""
        self.send_many(commands, deadline)
        return self.receive_many(len(commands), deadline)

    def send_many(self, commands: Sequence[Command], deadline: float | None = None) -> None:
        """Send them in one go; their replies are due."""
        self.send(b"".join([pack(tuple(command)) for command in commands]), deadline)

    def send(self, packed: bytes, deadline: float | None = None) -> None:
        """Write what ``pack`` made; as many replies are due as there are commands in it."""
        try:
            self._limit(deadline, sent=False)
            if len(packed) <= _CHUNK:
                self._socket.sendall(packed)
                return
            parts = memoryview(packed)
            for start in range(0, len(packed), _CHUNK):
                # one deadline for each part: a large value on a slow line is no silence
                self._limit(deadline)
                self._socket.sendall(parts[start : start + _CHUNK])
        except BaseException as error:
            self.close()
            if not isinstance(error, _TROUBLES):
                raise
            raise _broken(error, sent=True) from error

    def send_unheard(self, command: Command) -> None:
        """Write a command that has no reply of its own (RESP3's UNSUBSCRIBE), under the limit of the last call."""
        try:
            self._socket.sendall(pack(tuple(command)))
        except BaseException as error:
            self.close()
            if not isinstance(error, _TROUBLES):
                raise
            raise _broken(error, sent=True) from error

    def receive(self, deadline: float | None = None) -> Any:
        """The next reply that is due; an error reply is returned."""
        return self.receive_many(1, deadline)[0]

    def receive_many(self, count: int, deadline: float | None = None) -> list[Any]:
        """The next replies that are due; error replies stand among them as ``ReplyError``."""
        take = self._reader.gets
        found: list[Any] = []
        try:
            while len(found) < count:
                reply = take()
                if reply is NOTHING:
                    self._limit(deadline)
                    self._feed()
                elif isinstance(reply, hiredis.PushNotification):
                    self._note(reply)
                else:
                    found.append(reply)
                    if isinstance(reply, ReplyError) and fault_of(reply) is Fault.STANDBY:
                        self.misplaced = True
        except BaseException as error:
            self.close()
            if not isinstance(error, _TROUBLES):
                raise
            raise _broken(error, sent=True) from error
        self.used_at = time.monotonic()
        return found

    # ── listening ────────────────────────────────────────────────────────────────────────────────────────────

    def listen(self, wait: float) -> list[list[Any]]:
        """Messages of subscriptions: those that are there, else wait up to ``wait`` seconds for some.

        Returns early with nothing when its :class:`Wake` was rung. Nothing else may be due.
        """
        try:
            self._parse_pushed()
            if not self._pushed and self._readable(wait):
                self._feed_at_once()
                self._parse_pushed()
        except BaseException as error:
            self.close()
            if not isinstance(error, _TROUBLES):
                raise
            raise _broken(error, sent=False) from error
        found = list(self._pushed)
        self._pushed.clear()
        return found

    def _parse_pushed(self) -> None:
        while (reply := self._reader.gets()) is not NOTHING:
            if not isinstance(reply, hiredis.PushNotification):
                raise LinkBroken(f"an unexpected reply: {str(reply)[:100]}", Fault.OTHER, sent=False)
            self._note(reply)

    def _note(self, push: list[Any]) -> None:
        if not push[0].endswith(b"subscribe"):  # that one is (un)subscribed: nobody waits for that
            self._pushed.append(push)

    def _readable(self, wait: float) -> bool:
        if self._pending is not None and self._pending():
            return True
        ready = self._poll.poll(max(0.0, wait) * 1000)
        if self._wake is not None and len(ready) > 0 and self._wake.drain():
            return any(fd != self._wake.fileno() for fd, _ in ready)
        return bool(ready)

    def wake_by(self, wake: Wake) -> None:
        """From now on ``wake.ring()`` makes a :meth:`listen` that waits, or else the next one, return soon."""
        self._wake = wake
        self._poll.register(wake.fileno(), READABLE)

    # ── state ────────────────────────────────────────────────────────────────────────────────────────────────

    def for_loop(self) -> tuple[socket.socket, hiredis.Reader]:
        """The socket, which does not block any more, and what reads its replies, for an event loop to drive.

        Nothing may be due, and no call be made here again but :meth:`close`.
        """
        self._socket.settimeout(0.0)
        return self._socket, self._reader

    def fileno(self) -> int:
        """To wait for an answer with others; -1 once closed."""
        return self._socket.fileno()

    def is_stale(self) -> bool:
        """Whether an idle link has been closed by the other side, or has something to say that nobody asked for."""
        try:
            if self._pending is None:
                return self.broken or len(self._poll.poll(0)) > 0
            if not self.broken and self._readable(0):
                self._feed_at_once()
                return self._reader.has_data()
            return self.broken
        except (*VENDOR_ERRORS, ValueError):
            return True

    def _feed(self) -> None:
        data = self._socket.recv(READ_SIZE)
        if not data:
            raise LinkBroken("the server closed the connection", Fault.UNREACHABLE, sent=True)
        self._reader.feed(data)

    def _feed_at_once(self) -> None:
        """What can be read; TLS may have had something to say of its own, and no data with it."""
        if self._pending is None:
            self._limit(None)
            self._feed()
            return
        self._timeout = 0.0
        self._socket.settimeout(0.0)
        with contextlib.suppress(ssl.SSLWantReadError):
            self._feed()

    def _limit(self, deadline: float | None, *, sent: bool = True) -> None:
        timeout = self.patience
        if deadline is not None:
            left = deadline - time.monotonic()
            if left < timeout:
                if left <= 0:
                    raise LinkBroken("the time is over", Fault.SLOW, sent=sent)
                # in steps, since telling the socket costs a system call
                timeout = left if left < 2.0 else int(left * 2.0) / 2.0
        if timeout != self._timeout:
            self._timeout = timeout
            self._socket.settimeout(timeout)

    def close(self) -> None:
        """Idempotent. In a forked child the parent's connection stays as it is."""
        self.broken = True
        self._connection.disconnect()


def _broken(error: BaseException, *, sent: bool) -> LinkBroken:
    """What a socket or a parser raised, as we say it."""
    if isinstance(error, TimeoutError):
        return LinkBroken("the server did not answer in time", Fault.SLOW, sent=sent)
    if isinstance(error, OSError):
        return LinkBroken(error.strerror or str(error), Fault.UNREACHABLE, sent=sent)
    return LinkBroken(f"not the protocol of Redis: {error}", Fault.MISPLACED, sent=sent)


def open_link(address: Address, deadline: float | None = None, *, answer_timeout: float | None = None) -> Link:
    """Connect and log in: to the first server that answers, and is the master where there are several.

    ``answer_timeout``: for calls that block in the server longer than the address allows.
    """
    timeout = answer_timeout or address.answer_timeout
    last: BaseException | None = None
    for endpoint in servers(address, _connect, deadline):
        try:
            link = _connect(address, endpoint, deadline, timeout)
        except (exceptions.RedisError, OSError) as error:
            last = error
            continue
        try:
            if len(address.endpoints) == 1 and address.kind != "sentinel":
                return link
            # after a fail-over the old master still answers, as a replica
            role = link.call("ROLE", deadline=_soon(address, deadline))
            if role[0] == b"master":
                return link
            last = LinkBroken(f"{endpoint} is no master", Fault.STANDBY, sent=False)
        except (exceptions.RedisError, OSError) as error:
            last = error
        link.close()
    raise last or LinkBroken("no server is known", Fault.UNREACHABLE, sent=False)


def _soon(address: Address, deadline: float | None) -> float:
    soon = time.monotonic() + address.connect_timeout
    return soon if deadline is None else min(soon, deadline)


def _connect(
    address: Address, endpoint: Endpoint, deadline: float | None, answer_timeout: float | None = None
) -> Link:  # fmt: skip
    limit = _soon(address, deadline) - time.monotonic()
    if limit <= 0:
        raise LinkBroken("the time is over", Fault.SLOW, sent=False)
    connection: Any = _connection_class(endpoint)(**connection_arguments(address, endpoint, limit))
    try:
        connection.connect()
    except BaseException as error:
        connection.disconnect()
        explained = _explained(error, endpoint)
        if explained is None:
            raise
        raise explained from error
    return Link(connection, endpoint, answer_timeout or address.answer_timeout)


def _explained(error: BaseException, endpoint: Endpoint) -> LinkBroken | None:
    """Who speaks TLS to a plain port, or plainly to one of TLS, gets silence or a slammed door."""
    if isinstance(error, Exception) and not isinstance(error, VENDOR_ERRORS):
        # redis-py takes the answer to its greeting for what it asked for, whatever it is
        return LinkBroken(f"not the protocol of Redis: {error}", Fault.MISPLACED, sent=False)
    fault = fault_of(error)
    if endpoint.login.security is not None and fault is Fault.SLOW:
        return LinkBroken("no TLS was agreed upon in time; a port without TLS is silent, too", fault, sent=False)
    closed = isinstance(error.__context__, ConnectionResetError) or "closed by server" in str(error)
    if endpoint.login.security is None and fault is Fault.UNREACHABLE and closed:
        text = "the server closed the connection when it was greeted; if it speaks TLS, write rediss://"
        return LinkBroken(text, fault, sent=False)
    return None


def _connection_class(endpoint: Endpoint) -> Any:
    if endpoint.path is not None:
        return vendor.UnixDomainSocketConnection
    return vendor.Connection if endpoint.login.security is None else vendor.SSLConnection


def connection_arguments(address: Address, endpoint: Endpoint, limit: float) -> dict[str, Any]:
    """Keyword arguments for redis-py's connection classes, the asyncio ones too. ``limit``: seconds per step."""
    login: Login = endpoint.login
    arguments: dict[str, Any] = {
        "db": endpoint.db, "username": login.username, "password": login.password,
        "credential_provider": login.provider, "client_name": address.client_name, "protocol": 3,
        "socket_timeout": limit, "socket_connect_timeout": limit, "health_check_interval": 0,
        **_QUIET,
    }  # fmt: skip
    if endpoint.path is not None:
        return {**arguments, "path": endpoint.path}
    arguments |= {"host": endpoint.host, "port": endpoint.port, "socket_keepalive": address.keepalive}
    if address.keepalive_options:
        arguments["socket_keepalive_options"] = address.keepalive_options
    return arguments if login.security is None else {**arguments, **login.security}


def _quiet() -> dict[str, Any]:
    """What keeps redis-py from asking more of the server than to log in; its releases differ in how they are told."""
    known = inspect.signature(vendor.AbstractConnection.__init__).parameters
    quiet: dict[str, Any] = dict.fromkeys(("driver_info",) if "driver_info" in known else ("lib_name", "lib_version"))
    if "maint_notifications_config" in known:
        from redis.maint_notifications import MaintNotificationsConfig

        quiet["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
    return quiet


_QUIET = _quiet()


class Links:
    """The idle links of a process to one address. Thread-safe, fork-safe; opens at most ``limit`` at a time."""

    def __init__(self, address: Address, limit: int | None = None) -> None:
        self.address = address
        #: at most so many at a time
        self.limit = limit or address.max_connections
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._idle: list[Link] = []
        self._free = threading.BoundedSemaphore(self.limit) if self.limit else None

    def take(self, deadline: float | None = None) -> Link:
        """A link that is yours until you :meth:`give_back`."""
        if self._pid != os.getpid():  # what is idle belongs to the parent, and goes on in it
            self.close()
            self._reset()
        if self._free is not None:
            left = self.address.answer_timeout if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._free.acquire(timeout=left):
                raise LinkBroken(f"all {self.limit} connections are in use", Fault.SLOW, sent=False)
        try:
            while (link := self._idle_one()) is not None:
                if self._is_fresh(link, deadline):
                    return link
                link.close()
            return open_link(self.address, deadline)
        except BaseException:
            if self._free is not None:
                self._free.release()
            raise

    def give_back(self, link: Link) -> None:
        """For the next one to use; a broken link is forgotten, and one to a server that is no master now, closed."""
        if self._pid != os.getpid() or link.pid != self._pid:
            return
        if link.misplaced:
            link.close()
        if not link.broken:
            link.reused = True
            link.patience = self.address.answer_timeout
            self._idle.append(link)
        if self._free is not None:
            self._free.release()

    @contextlib.contextmanager
    def borrow(self, deadline: float | None = None) -> Iterator[Link]:
        link = self.take(deadline)
        try:
            yield link
        finally:
            self.give_back(link)

    def _idle_one(self) -> Link | None:
        try:
            return self._idle.pop()
        except IndexError:  # asked for, not looked up: threads share the list
            return None

    def _is_fresh(self, link: Link, deadline: float | None) -> bool:
        if link.is_stale():
            return False
        interval = self.address.health_check_interval
        if not interval or time.monotonic() - link.used_at < interval:
            return True
        try:
            link.call("PING", deadline=_soon(self.address, deadline))
        except (exceptions.RedisError, OSError):
            return False
        return True

    def close(self) -> None:
        """Close the idle ones. May be used again."""
        idle, self._idle = self._idle, []
        for link in idle:
            link.close()
