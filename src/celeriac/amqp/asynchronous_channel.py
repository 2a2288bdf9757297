"""A channel of the asyncio shell: the verbs of AMQP as coroutines. Sockets and waiting are the connection's."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from celeriac.amqp import requests
from celeriac.amqp.errors import AmqpError, ChannelClosed, ConnectionClosed, ConsumerCancelled
from celeriac.amqp.messages import Fate, Message, Publication, QueueOk

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence, Set

    from celeriac.amqp.asynchronous import AsyncConnection
    from celeriac.amqp.channel import Channel
    from celeriac.amqp.events import Call
    from celeriac.amqp.requests import Request


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
            raise self._core.error.again()
        if self._cancelled:
            raise ConsumerCancelled(self._cancelled.pop(0))

    def put_back(self, message: Message) -> None:
        """Have a message received once more, as the last of those that are here."""
        self._core.inbox.append(message)

    def interrupt(self) -> None:
        """Make a waiting :meth:`receive` return now. From the loop's thread."""
        self._wake()

    def _wake(self) -> None:
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)
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
