"""The asyncio shell: the same verbs as ``blocking.py`` as coroutines, on one loop.

Acknowledgements are only noted and leave together, once per round of the loop. Deadlines are on ``time.monotonic()``.
When the broker closes a channel or cancels a consumer, a waiting ``receive`` raises it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any, cast

from celeriac.amqp.asynchronous_channel import AsyncChannel
from celeriac.amqp.channel import Channel
from celeriac.amqp.confirms import Batch
from celeriac.amqp.connection import Connection
from celeriac.amqp.errors import (
    AmqpError,
    ConnectionBlocked,
    ConnectionClosed,
    ConnectionLost,
    DeadlinePassed,
)
from celeriac.amqp.events import Arrived, Blocked, Call, ChannelEnded, ConnectionEnded, ConsumerEnded, Event, Unblocked
from celeriac.amqp.parameters import Parameters
from celeriac.amqp.wire import connect_failed, lost, tls_failed
from celeriac.clock import SYSTEM_CLOCK, Clock


class AsyncConnection:
    """An open connection. Made by :meth:`open`; belongs to the loop it was opened on."""

    def __init__(self, parameters: Parameters, clock: Clock) -> None:
        self.parameters = parameters
        self._clock = clock
        self._core = Connection(parameters, clock.monotonic())
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._channels: dict[Channel, AsyncChannel] = {}
        self._waiters: dict[Call | Batch, asyncio.Future[None]] = {}
        #: those who wait for the state of the whole connection to change: blocked, writable
        self._watchers: set[asyncio.Future[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._flush_is_due = False
        self._is_full = False
        #: a transport that was told to close and has not ended yet
        self._leaving: asyncio.Transport | None = None

    @classmethod
    async def open(cls, parameters: Parameters, deadline: float, clock: Clock = SYSTEM_CLOCK) -> AsyncConnection:
        """Connect and log in. Raises ``ConnectFailed`` and its kin, or ``DeadlinePassed``."""
        connection = cls(parameters, clock)
        try:
            await connection._connect(deadline)
            await connection._result(connection._core.opening, deadline)
        except DeadlinePassed:
            await connection._hang_up()
            raise DeadlinePassed(f"{parameters.address} did not finish the AMQP handshake in time.") from None
        except BaseException:
            await connection._hang_up()
            raise
        return connection

    @property
    def is_blocked(self) -> bool:
        """Whether the broker takes no messages now."""
        return self._core.is_blocked

    @property
    def blocked_reason(self) -> str | None:
        return self._core.blocked_reason

    @property
    def is_closed(self) -> bool:
        return self._core.error is not None

    @property
    def error(self) -> ConnectionClosed | None:
        """Why it is closed."""
        return self._core.error

    @property
    def server_properties(self) -> dict[str, Any]:
        return self._core.server_properties

    @property
    def heartbeat(self) -> float:
        """The interval that was agreed on, in seconds; 0: none."""
        return self._core.heartbeat

    async def channel(self, deadline: float) -> AsyncChannel:
        """Open a channel. Raises ``AmqpError`` and its kin."""
        core, call = self._core.open_channel()
        channel = self._channels[core] = AsyncChannel(self, core)
        await self._result(call, deadline)
        return channel

    async def update_secret(self, secret: str, reason: str, deadline: float) -> None:
        """Give the broker the new password of a login that expires."""
        await self._result(self._core.update_secret(secret, reason), deadline)

    async def close(self, deadline: float) -> None:
        """Say good-bye and hang up. Idempotent; errors are of no interest any more."""
        with contextlib.suppress(AmqpError):
            if self._core.is_open:
                await self._result(self._core.close(), deadline)
        await self._hang_up()

    # ── for the channels ─────────────────────────────────────────────────────────────────────────────────────

    async def _result(self, call: Call, deadline: float) -> Call:
        self._flush()
        if not call.is_done and not await self._done(call, deadline):
            raise DeadlinePassed(f"The broker did not answer {call.method} in time.")
        call.result()
        return call

    async def _done(self, what: Call | Batch, deadline: float) -> bool:
        """Wait for an answer or for confirms; False when the deadline passed before."""
        future = self._waiters[what] = self._loop.create_future()
        try:
            await self._wait(future, deadline)
        finally:
            self._waiters.pop(what, None)
        return what.is_done

    async def _changed(self, deadline: float) -> None:
        """Wait for the connection to be blocked or unblocked, full or empty, or closed."""
        future = self._loop.create_future()
        self._watchers.add(future)
        try:
            await self._wait(future, deadline)
        finally:
            self._watchers.discard(future)

    async def _wait(self, future: asyncio.Future[None], deadline: float) -> None:
        """A timer of its own is a fifth of the price of ``asyncio.timeout``."""
        timer = self._loop.call_later(max(0.0, deadline - self._clock.monotonic()), _finish, future)
        try:
            await future
        finally:
            timer.cancel()

    def _write_soon(self) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        if self._transport is not None and self._core.pieces:
            self._transport.write(self._core.take_output(self._clock.monotonic()))

    async def _room_to_publish(self, deadline: float) -> None:
        """Wait while the broker takes nothing, or the socket is full. Raises ``ConnectionBlocked``."""
        while self._core.is_blocked or self._is_full:
            if self._core.error is not None:
                raise self._core.error.again()
            if self._clock.monotonic() >= deadline:
                reason = self._core.blocked_reason or "it does not read what was sent"
                raise ConnectionBlocked(f"The broker takes no messages now: {reason}.")
            await self._changed(deadline)

    # ── the socket ───────────────────────────────────────────────────────────────────────────────────────────

    async def _connect(self, deadline: float) -> None:
        parameters = self.parameters
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock.monotonic())):
                await self._loop.create_connection(
                    lambda: _Socket(self), parameters.host, parameters.port, ssl=parameters.tls,
                    server_hostname=parameters.server_name if parameters.tls else None,
                )  # fmt: skip
        except TimeoutError:
            raise DeadlinePassed(f"{parameters.address} did not accept the connection in time.") from None
        except (ssl.SSLError, ConnectionResetError, ConnectionAbortedError) as error:
            raise (tls_failed if parameters.tls else connect_failed)(parameters, error) from None
        except OSError as error:
            raise connect_failed(parameters, error) from None

    def _connected(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        connected = transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._flush()

    def _received(self, data: bytes) -> None:
        self._dispatch(self._core.receive(data, self._clock.monotonic()))

    def _ended(self, error: Exception | None) -> None:
        self._transport = self._leaving = None
        self._tell_watchers()
        events: list[Event] = []
        self._core.lost(
            lost(error).text if error is not None else "The broker closed the connection without a word.", events
        )
        self._dispatch(events)

    def _full(self, is_full: bool) -> None:
        self._is_full = is_full
        self._tell_watchers()

    def _on_timer(self) -> None:
        self._timer = None
        self._dispatch(self._core.tick(self._clock.monotonic()))

    def _drop(self) -> None:
        """Hang up, after the last words are written."""
        if self._core.error is None:
            events: list[Event] = []
            self._core.lost("The connection is closed.", events)
            self._dispatch(events)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        transport, self._transport = self._transport, None
        if transport is not None:
            last_words = self._core.take_output(self._clock.monotonic())
            if last_words:
                transport.write(last_words)
            self._leaving = transport
            # a peer that reads nothing must not keep the socket open
            is_deaf = isinstance(self._core.error, ConnectionLost) or transport.get_write_buffer_size()
            transport.abort() if is_deaf else transport.close()
        self._channels.clear()

    async def _hang_up(self) -> None:
        """:meth:`_drop`, and see the socket closed: TLS wants some words about it, within a second."""
        self._drop()
        for patience in (1.0, 0.1):
            end = self._clock.monotonic() + patience
            while self._leaving is not None and self._clock.monotonic() < end:
                await self._changed(end)
            if self._leaving is None:
                return
            self._leaving.abort()

    # ── what came in ─────────────────────────────────────────────────────────────────────────────────────────

    def _dispatch(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Call | Batch):
                future = self._waiters.get(event)
                if future is not None:
                    _finish(future)
            elif isinstance(event, Arrived | ChannelEnded | ConsumerEnded):
                self._tell_channel(event)
            elif isinstance(event, Blocked | Unblocked):
                self._tell_watchers()
            elif isinstance(event, ConnectionEnded):
                self._tell_watchers()
                for channel in self._channels.values():
                    channel._wake()
        if self._core.error is not None:
            self._drop()
            return
        if self._core.pieces:
            self._flush()
        if self._timer is None:
            self._set_timer()

    def _tell_channel(self, event: Arrived | ChannelEnded | ConsumerEnded) -> None:
        channel = self._channels.get(event.channel)
        if channel is None:  # closed by us meanwhile
            return
        if isinstance(event, ConsumerEnded):
            channel._cancelled.append(event.consumer_tag)
        elif isinstance(event, ChannelEnded):
            del self._channels[event.channel]
        channel._wake()

    def _set_timer(self) -> None:
        due = self._core.next_tick()
        if due is not None:
            # looked at when it fires: activity moves the date, and moving a timer costs more than one needless look
            self._timer = self._loop.call_later(max(0.05, due - self._clock.monotonic()), self._on_timer)

    def _tell_watchers(self) -> None:
        for future in self._watchers:
            _finish(future)


class _Socket(asyncio.Protocol):
    """What asyncio talks to."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none by its class
        self._connection._connected(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        self._connection._received(data)

    def eof_received(self) -> None:
        self._connection._received(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection._ended(exc)

    def pause_writing(self) -> None:
        self._connection._full(True)

    def resume_writing(self) -> None:
        self._connection._full(False)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
