"""The blocking shell: a connection and its channels for threads.

Waiting processes whatever arrives, for all channels; heartbeats are sent while waiting and by
:meth:`BlockingConnection.drain`. Every deadline is on ``time.monotonic()``. One lock per connection: methods may come
from several threads, but a waiting ``receive`` keeps the others waiting, so give each waiter its own connection.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
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
)  # fmt: skip
from celeriac.amqp.events import Call, ChannelEnded, ConsumerEnded, Event
from celeriac.amqp.messages import Fate, Message, Publication, QueueOk
from celeriac.amqp.parameters import Parameters
from celeriac.amqp.requests import Request
from celeriac.amqp.wire import Wire
from celeriac.clock import SYSTEM_CLOCK, Clock


class BlockingConnection:
    """An open connection. Made by :meth:`open`."""

    def __init__(self, parameters: Parameters, wire: Wire, clock: Clock) -> None:
        self.parameters = parameters
        self._wire = wire
        self._clock = clock
        self._core = Connection(parameters, clock.monotonic())
        self._lock = threading.RLock()
        self._channels: dict[Channel, BlockingChannel] = {}
        self._interrupted = False

    @classmethod
    def open(cls, parameters: Parameters, deadline: float, clock: Clock = SYSTEM_CLOCK) -> BlockingConnection:
        """Connect and log in. Raises ``ConnectFailed`` and its kin, or ``DeadlinePassed``."""
        connection = cls(parameters, Wire.connect(parameters, deadline, clock), clock)
        try:
            connection._result(connection._core.opening, deadline)
        except DeadlinePassed:
            connection._drop("")
            raise DeadlinePassed(f"{parameters.address} did not finish the AMQP handshake in time.") from None
        except BaseException:
            connection._drop("")
            raise
        return connection

    @property
    def is_blocked(self) -> bool:
        """Whether the broker takes no messages now, as far as it was heard (:meth:`drain` listens)."""
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

    def fileno(self) -> int:
        """For a selector: readable means that :meth:`drain` has something to do."""
        return self._wire.fileno()

    def channel(self, deadline: float) -> BlockingChannel:
        """Open a channel. Raises ``AmqpError`` and its kin."""
        with self._lock:
            core, call = self._core.open_channel()
            channel = self._channels[core] = BlockingChannel(self, core)
            self._result(call, deadline)
            return channel

    def drain(self, wait: float = 0.0) -> None:
        """Process what has arrived, waiting up to ``wait`` seconds for more, and send heartbeats that are due.

        Raises ``ConnectionClosed`` if the connection is over.
        """
        with self._lock:
            self._pump_once(wait)
            self._flush(self._clock.monotonic() + self.parameters.connect_timeout)
            if self._core.error is not None:
                raise self._core.error

    def next_heartbeat(self) -> float | None:
        """When :meth:`drain` should be called at the latest, on the monotonic clock; None: never."""
        return self._core.next_tick()

    def interrupt(self) -> None:
        """Make a waiting ``receive`` of this connection return soon. From any thread."""
        self._interrupted = True
        self._wire.wake()

    def update_secret(self, secret: str, reason: str, deadline: float) -> None:
        """Give the broker the new password of a login that expires."""
        with self._lock:
            self._result(self._core.update_secret(secret, reason), deadline)

    def close(self, deadline: float) -> None:
        """Say good-bye and hang up. Idempotent; errors are of no interest any more."""
        with self._lock:
            with contextlib.suppress(AmqpError):
                if self._core.is_open:
                    self._result(self._core.close(), deadline)
            self._drop("The connection is closed.")

    def abandon(self) -> None:
        """Hang up without a word, as a child process must whose parent still uses the connection. Idempotent."""
        self._core.lost("The connection was given up.", [])
        self._wire.close()

    # ── for the channels ─────────────────────────────────────────────────────────────────────────────────────

    def _result(self, call: Call, deadline: float) -> Call:
        if not self._until(lambda: call.is_done, deadline):
            raise DeadlinePassed(f"The broker did not answer {call.method} in time.")
        call.result()
        return call

    def _until(self, is_done: Callable[[], bool], deadline: float) -> bool:
        """Flush, and process what arrives until something is so; False when the deadline passed before."""
        self._flush(deadline)
        while not is_done():
            if self._core.error is not None:
                raise self._core.error
            remaining = deadline - self._clock.monotonic()
            if remaining <= 0:
                return False
            self._pump_once(remaining)
            self._flush(deadline)
        return True

    def _flush(self, deadline: float) -> None:
        """Write what there is. What arrives meanwhile is taken in, lest both sides wait for each other."""
        while self._core.pieces:
            data = memoryview(self._core.take_output(self._clock.monotonic()))
            try:
                while data:
                    data = data[self._wire.write(data) :]
                    if data:
                        self._wait_to_write(deadline)
            except ConnectionClosed as error:
                self._drop(error.text)
                return

    def _wait_to_write(self, deadline: float) -> None:
        remaining = deadline - self._clock.monotonic()
        if remaining <= 0:
            # half a frame is out: nothing else can be said on this connection
            self._drop("The broker did not take the data in time.")
            raise self._core.error or DeadlinePassed("The broker did not take the data in time.")
        self._wire.wait(remaining, writing=True)
        self._take_in()
        if self._core.error is not None:
            raise self._core.error

    def _pump_once(self, wait: float) -> bool:
        """Read what there is, waiting if there is nothing; True if :meth:`interrupt` ended the wait."""
        woken = False
        if not self._take_in() and wait > 0 and self._core.error is None:
            due = self._core.next_tick()
            now = self._clock.monotonic()
            woken = self._wire.wait(wait if due is None else min(wait, max(0.0, due - now)))
            self._take_in()
        self._dispatch(self._core.tick(self._clock.monotonic()))
        return woken

    def _take_in(self) -> bool:
        """Read once; whether there was something."""
        if self._core.error is not None:
            return False
        try:
            data = self._wire.read()
        except ConnectionClosed as error:
            self._drop(error.text)
            return True
        if data is None:
            return False
        self._dispatch(self._core.receive(data, self._clock.monotonic()))
        return True

    def _dispatch(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, ConsumerEnded) and event.channel in self._channels:
                self._channels[event.channel]._cancelled.append(event.consumer_tag)
            elif isinstance(event, ChannelEnded):
                self._channels.pop(event.channel, None)
        if self._core.error is not None:
            self._drop("")

    def _drop(self, reason: str) -> None:
        """Hang up, after a last attempt to say what is still to be said."""
        events: list[Event] = []
        if self._core.error is None:
            self._core.lost(reason, events)
        last_words = self._core.take_output(self._clock.monotonic())
        try:
            if last_words:
                self._wire.write(memoryview(last_words))
        except ConnectionClosed:
            pass
        self._wire.close()


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
            connection._pump_once(0.0)  # hear of a close or a block before speaking
            if connection.is_blocked:
                reason = connection.blocked_reason
                if not connection._until(lambda: not connection.is_blocked, deadline):
                    raise ConnectionBlocked(f"The broker takes no messages now: {reason}.")
            sent: Batch = self._core.publish(batch)
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
                    raise self._core.error
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
                raise self._core.error

    def close(self, deadline: float) -> None:
        """Idempotent; errors are of no interest any more."""
        with self.connection._lock:
            with contextlib.suppress(AmqpError):
                if not self.is_closed:
                    self.ask(requests.CLOSE_CHANNEL, deadline)
            self.connection._channels.pop(self._core, None)
