"""A channel of the blocking shell: the verbs of AMQP for threads. Sockets and waiting are the connection's."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from celeriac.amqp import requests
from celeriac.amqp.errors import AmqpError, ChannelClosed, ConnectionBlocked, ConnectionClosed, ConsumerCancelled
from celeriac.amqp.messages import Fate, Message, Publication, QueueOk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celeriac.amqp.blocking import BlockingConnection
    from celeriac.amqp.channel import Channel
    from celeriac.amqp.events import Call
    from celeriac.amqp.requests import Request

#: seconds within which what was heard is not asked for again before something is published
_JUST = 0.005


class BlockingChannel:
    """A channel. Its operations raise ``ChannelClosed`` once the broker has closed it, ``ConnectionClosed`` and kin."""

    def __init__(self, connection: BlockingConnection, core: Channel) -> None:
        self.connection = connection
        self._core = core
        self._cancelled: list[str] = []
        self._tags = 0

    @property
    def is_closed(self) -> bool:
        return self._core.error is not None

    @property
    def error(self) -> ChannelClosed | ConnectionClosed | None:
        """Why it is closed."""
        return self._core.error

    def ask(self, request: Request, deadline: float) -> Call:
        """Any method that is answered (``requests.py`` has those with a verb of their own below)."""
        with self.connection._lock:
            call = self._core.call(request.method, request.arguments, *request.expects)
            return self.connection._result(call, deadline)

    # ── what there is ────────────────────────────────────────────────────────────────────────────────────────

    def declare_queue(
        self, name: str, *, deadline: float, durable: bool = True, auto_delete: bool = False, exclusive: bool = False,
        arguments: Mapping[str, Any] | None = None, passive: bool = False,
    ) -> QueueOk:  # fmt: skip
        """``passive``: only look whether it is there (404 if not). An empty ``name``: the broker invents one."""
        reply = self.ask(
            requests.declare_queue(name, durable, auto_delete, exclusive, arguments, passive), deadline
        ).result()  # fmt: skip
        return QueueOk(reply["queue"], reply["message_count"], reply["consumer_count"])

    def declare_exchange(
        self, name: str, kind: str, *, deadline: float, durable: bool = True, auto_delete: bool = False,
        internal: bool = False, arguments: Mapping[str, Any] | None = None, passive: bool = False,
    ) -> None:  # fmt: skip
        self.ask(
            requests.declare_exchange(name, kind, durable, auto_delete, internal, arguments, passive), deadline
        )  # fmt: skip

    def bind_queue(
        self, queue: str, exchange: str, routing_key: str = "", *, deadline: float,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.ask(requests.bind_queue(queue, exchange, routing_key, arguments), deadline)

    def unbind_queue(
        self, queue: str, exchange: str, routing_key: str = "", *, deadline: float,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.ask(requests.unbind_queue(queue, exchange, routing_key, arguments), deadline)

    def bind_exchange(
        self, destination: str, source: str, routing_key: str = "", *, deadline: float,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.ask(requests.bind_exchange(destination, source, routing_key, arguments), deadline)

    def delete_queue(self, name: str, *, deadline: float, if_unused: bool = False, if_empty: bool = False) -> int:
        """How many messages went with it."""
        call = self.ask(requests.delete_queue(name, if_unused, if_empty), deadline)
        return int(call.result()["message_count"])

    def delete_exchange(self, name: str, *, deadline: float, if_unused: bool = False) -> None:
        self.ask(requests.delete_exchange(name, if_unused), deadline)

    def purge_queue(self, name: str, *, deadline: float) -> int:
        return int(self.ask(requests.purge_queue(name), deadline).result()["message_count"])

    def qos(self, count: int, global_: bool = False, *, deadline: float) -> None:
        self.ask(requests.qos(count, global_), deadline)

    # ── publishing ───────────────────────────────────────────────────────────────────────────────────────────

    def confirm_select(self, deadline: float) -> None:
        with self.connection._lock:
            self.connection._result(self._core.confirm_select(), deadline)

    def publish(self, batch: Sequence[Publication], deadline: float) -> Sequence[Fate]:
        """Write the batch at once and wait for its confirms; without :meth:`confirm_select` written is confirmed.

        Raises, before anything is written: ``Unencodable``, ``ConnectionBlocked`` (still at the deadline),
        ``ChannelClosed``, ``ConnectionClosed``. After that it returns, and what is not known is unknown.
        """
        connection = self.connection
        with connection._lock:
            if not connection._core.heard_since(connection._clock.monotonic() - _JUST):
                connection._pump_once(0.0)  # hear of a close or a block before speaking
            if connection.is_blocked:
                reason = connection.blocked_reason
                if not connection._until(lambda: not connection.is_blocked, deadline):
                    raise ConnectionBlocked(f"The broker takes no messages now: {reason}.")
            sent = self._core.publish(batch)
            with contextlib.suppress(ConnectionClosed):  # the fates tell
                connection._until(lambda: sent.is_done, deadline)
            return sent.results()

    # ── consuming ────────────────────────────────────────────────────────────────────────────────────────────

    def get(self, queue: str, *, deadline: float, no_ack: bool = False) -> Message | None:
        return self.ask(requests.get(queue, no_ack), deadline).message

    def consume(
        self, queue: str, *, deadline: float, no_ack: bool = False, exclusive: bool = False,
        arguments: Mapping[str, Any] | None = None, consumer_tag: str | None = None,
    ) -> str:  # fmt: skip
        """Have the messages of a queue sent here; the consumer's tag."""
        with self.connection._lock:
            self._tags += 1
            tag = consumer_tag or f"celeriac-{self._core.number}-{self._tags}"
            call = self._core.consume(requests.consume(queue, tag, no_ack, exclusive, arguments))
            self.connection._result(call, deadline)
            return tag

    def cancel(self, consumer_tag: str, *, deadline: float) -> None:
        """After it nothing new comes; what came before is still received."""
        self.ask(requests.cancel(consumer_tag), deadline)

    def receive(self, limit: int, wait: float) -> Sequence[Message]:
        """Up to ``limit`` messages; waits up to ``wait`` seconds for the first, then returns what there is.

        Raises ``ConsumerCancelled`` once what came before is received; ``ChannelClosed``, ``ConnectionClosed``.
        """
        connection = self.connection
        inbox = self._core.inbox
        with connection._lock:
            end = connection._clock.monotonic() + wait
            connection._pump_once(0.0)
            connection._flush(end + connection.parameters.connect_timeout)
            while not inbox:
                if self._core.error is not None:
                    raise self._core.error.again()
                if self._cancelled:
                    raise ConsumerCancelled(self._cancelled.pop(0))
                remaining = end - connection._clock.monotonic()
                if remaining <= 0 or connection._interrupted:
                    connection._interrupted = False
                    return []
                connection._pump_once(remaining)
                connection._flush(end + connection.parameters.connect_timeout)
            if len(inbox) <= limit:
                found = list(inbox)
                inbox.clear()
                return found
            return [inbox.popleft() for _ in range(limit)]

    def ack(self, tag: int, multiple: bool = False) -> None:
        """Written with the next operation that waits, or by :meth:`flush`."""
        with self.connection._lock:
            self._core.ack(tag, multiple)

    def nack(self, tag: int, requeue: bool, multiple: bool = False) -> None:
        """As :meth:`ack`. Not requeued, a message is dead-lettered or gone."""
        with self.connection._lock:
            self._core.nack(tag, requeue, multiple)

    def flush(self, deadline: float) -> None:
        """Write acknowledgements. Raises ``ConnectionClosed`` if they could not be."""
        with self.connection._lock:
            self.connection._flush(deadline)
            if self._core.error is not None:
                raise self._core.error.again()

    def close(self, deadline: float) -> None:
        """Idempotent; errors are of no interest any more."""
        with self.connection._lock:
            with contextlib.suppress(AmqpError):
                if not self.is_closed:
                    self.ask(requests.CLOSE_CHANNEL, deadline)
            self.connection._channels.pop(self._core, None)
