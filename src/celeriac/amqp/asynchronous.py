"""The asyncio shell: the same verbs as ``blocking.py`` as coroutines, on one loop.

Acknowledgements are only noted and leave together, once per round of the loop. Deadlines are on ``time.monotonic()``.
When the broker closes a channel or cancels a consumer, a waiting ``receive`` raises it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from celeriac.amqp import requests
from celeriac.amqp.channel import Channel
from celeriac.amqp.confirms import Batch
from celeriac.amqp.connection import Connection
from celeriac.amqp.errors import (
    AmqpError,
    ChannelClosed,
    ConnectionBlocked,
    ConnectionClosed,
    ConsumerCancelled,
    DeadlinePassed,
)
from celeriac.amqp.events import Arrived, Blocked, Call, ChannelEnded, ConnectionEnded, ConsumerEnded, Event, Unblocked
from celeriac.amqp.messages import Fate, Message, Publication, QueueOk
from celeriac.amqp.parameters import Parameters
from celeriac.amqp.requests import Request
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

    @classmethod
    async def open(cls, parameters: Parameters, deadline: float, clock: Clock = SYSTEM_CLOCK) -> AsyncConnection:
        """Connect and log in. Raises ``ConnectFailed`` and its kin, or ``DeadlinePassed``."""
        connection = cls(parameters, clock)
        try:
            await connection._connect(deadline)
            await connection._result(connection._core.opening, deadline)
        except DeadlinePassed:
            connection._drop()
            raise DeadlinePassed(f"{parameters.address} did not finish the AMQP handshake in time.") from None
        except BaseException:
            connection._drop()
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
        self._drop()

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
                raise self._core.error
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
            # a peer that reads nothing must not keep the socket open
            transport.abort() if transport.get_write_buffer_size() else transport.close()

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
        assert isinstance(transport, asyncio.Transport)
        self._connection._connected(transport)

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


class AsyncChannel:
    """A channel. Its operations raise ``ChannelClosed`` once the broker has closed it, ``ConnectionClosed`` and kin."""

    def __init__(self, connection: AsyncConnection, core: Channel) -> None:
        self.connection = connection
        self._core = core
        self._cancelled: list[str] = []
        self._tags = 0
        self._receiver: asyncio.Future[None] | None = None
        #: called when messages have come after there were none, and when the channel or a consumer of it has ended
        self.on_news: Callable[[], None] | None = None

    @property
    def waiting(self) -> int:
        """How many messages have come and were not received."""
        return len(self._core.inbox)

    @property
    def consumer_tags(self) -> Set[str]:
        """The consumers that stand."""
        return self._core.consumer_tags

    @property
    def is_closed(self) -> bool:
        return self._core.error is not None

    @property
    def error(self) -> ChannelClosed | ConnectionClosed | None:
        """Why it is closed."""
        return self._core.error

    async def ask(self, request: Request, deadline: float) -> Call:
        """Any method that is answered (``requests.py`` has those with a verb of their own below)."""
        call = self._core.call(request.method, request.arguments, *request.expects)
        return await self.connection._result(call, deadline)

    # ── what there is ────────────────────────────────────────────────────────────────────────────────────────

    async def declare_queue(
        self, name: str, *, deadline: float, durable: bool = True, auto_delete: bool = False, exclusive: bool = False,
        arguments: Mapping[str, Any] | None = None, passive: bool = False,
    ) -> QueueOk:  # fmt: skip
        """``passive``: only look whether it is there (404 if not). An empty ``name``: the broker invents one."""
        request = requests.declare_queue(name, durable, auto_delete, exclusive, arguments, passive)
        reply = (await self.ask(request, deadline)).result()
        return QueueOk(reply["queue"], reply["message_count"], reply["consumer_count"])

    async def declare_exchange(
        self, name: str, kind: str, *, deadline: float, durable: bool = True, auto_delete: bool = False,
        internal: bool = False, arguments: Mapping[str, Any] | None = None, passive: bool = False,
    ) -> None:  # fmt: skip
        request = requests.declare_exchange(name, kind, durable, auto_delete, internal, arguments, passive)
        await self.ask(request, deadline)

    async def bind_queue(
        self, queue: str, exchange: str, routing_key: str = "", *, deadline: float,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        await self.ask(requests.bind_queue(queue, exchange, routing_key, arguments), deadline)

    async def unbind_queue(
        self, queue: str, exchange: str, routing_key: str = "", *, deadline: float,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        await self.ask(requests.unbind_queue(queue, exchange, routing_key, arguments), deadline)

    async def bind_exchange(
        self, destination: str, source: str, routing_key: str = "", *, deadline: float,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        await self.ask(requests.bind_exchange(destination, source, routing_key, arguments), deadline)

    async def delete_queue(
        self, name: str, *, deadline: float, if_unused: bool = False, if_empty: bool = False
    ) -> int:  # fmt: skip
        """How many messages went with it."""
        call = await self.ask(requests.delete_queue(name, if_unused, if_empty), deadline)
        return int(call.result()["message_count"])

    async def delete_exchange(self, name: str, *, deadline: float, if_unused: bool = False) -> None:
        await self.ask(requests.delete_exchange(name, if_unused), deadline)

    async def purge_queue(self, name: str, *, deadline: float) -> int:
        return int((await self.ask(requests.purge_queue(name), deadline)).result()["message_count"])

    async def qos(self, count: int, global_: bool = False, *, deadline: float) -> None:
        await self.ask(requests.qos(count, global_), deadline)

    # ── publishing ───────────────────────────────────────────────────────────────────────────────────────────

    async def confirm_select(self, deadline: float) -> None:
        await self.connection._result(self._core.confirm_select(), deadline)

    async def publish(self, batch: Sequence[Publication], deadline: float) -> Sequence[Fate]:
        """Write the batch at once and wait for its confirms; without :meth:`confirm_select` written is confirmed.

        Raises, before anything is written: ``Unencodable``, ``ConnectionBlocked`` (still at the deadline),
        ``ChannelClosed``, ``ConnectionClosed``. After that it returns, and what is not known is unknown.
        """
        connection = self.connection
        if connection._core.is_blocked or connection._is_full:
            await connection._room_to_publish(deadline)
        sent = self._core.publish(batch)
        connection._flush()
        if not sent.is_done:
            await connection._done(sent, deadline)
        return sent.results()

    # ── consuming ────────────────────────────────────────────────────────────────────────────────────────────

    async def get(self, queue: str, *, deadline: float, no_ack: bool = False) -> Message | None:
        return (await self.ask(requests.get(queue, no_ack), deadline)).message

    async def consume(
        self, queue: str, *, deadline: float, no_ack: bool = False, exclusive: bool = False,
        arguments: Mapping[str, Any] | None = None, consumer_tag: str | None = None,
    ) -> str:  # fmt: skip
        """Have the messages of a queue sent here; the consumer's tag."""
        self._tags += 1
        tag = consumer_tag or f"celeriac-{self._core.number}-{self._tags}"
        call = self._core.consume(requests.consume(queue, tag, no_ack, exclusive, arguments))
        await self.connection._result(call, deadline)
        return tag

    async def cancel(self, consumer_tag: str, *, deadline: float) -> None:
        """After it nothing new comes; what came before is still received."""
        await self.ask(requests.cancel(consumer_tag), deadline)

    async def receive(self, limit: int, wait: float) -> Sequence[Message]:
        """Up to ``limit`` messages; waits up to ``wait`` seconds for the first, then returns what there is.

        One caller at a time. Raises ``ConsumerCancelled`` once what came before is received; ``ChannelClosed``,
        ``ConnectionClosed``.
        """
        inbox = self._core.inbox
        if not inbox:
            self._raise_what_ended()
            if wait > 0:
                connection = self.connection
                self._receiver = connection._loop.create_future()
                try:
                    await connection._wait(self._receiver, connection._clock.monotonic() + wait)
                finally:
                    self._receiver = None
            if not inbox:
                self._raise_what_ended()
                return []
        if len(inbox) <= limit:
            found = list(inbox)
            inbox.clear()
            return found
        return [inbox.popleft() for _ in range(limit)]

    def _raise_what_ended(self) -> None:
        if self._core.error is not None:
            raise self._core.error
        if self._cancelled:
            raise ConsumerCancelled(self._cancelled.pop(0))

    def put_back(self, message: Message) -> None:
        """Have a message received once more, as the last of those that are here."""
        self._core.inbox.append(message)

    def interrupt(self) -> None:
        """Make a waiting :meth:`receive` return now. From the loop's thread."""
        self._wake()

    def _wake(self) -> None:
        if self._receiver is not None:
            _finish(self._receiver)
        if self.on_news is not None:
            self.on_news()

    def ack(self, tag: int, multiple: bool = False) -> None:
        """Noted; written at the end of this round of the loop. Raises if the channel is over."""
        self._core.ack(tag, multiple)
        self.connection._write_soon()

    def nack(self, tag: int, requeue: bool, multiple: bool = False) -> None:
        """As :meth:`ack`. Not requeued, a message is dead-lettered or gone."""
        self._core.nack(tag, requeue, multiple)
        self.connection._write_soon()

    async def close(self, deadline: float) -> None:
        """Idempotent; errors are of no interest any more."""
        with contextlib.suppress(AmqpError):
            if not self.is_closed:
                await self.ask(requests.CLOSE_CHANNEL, deadline)
        self.connection._channels.pop(self._core, None)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
