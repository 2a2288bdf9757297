"""The blocking shell: a connection and its channels for threads.

Waiting processes whatever arrives, for all channels; heartbeats are sent while waiting and by
:meth:`BlockingConnection.drain`. Every deadline is on ``time.monotonic()``. One lock per connection: methods may come
from several threads, but a waiting ``receive`` keeps the others waiting, so give each waiter its own connection.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from celeriac.amqp.blocking_channel import BlockingChannel
from celeriac.amqp.channel import Channel
from celeriac.amqp.connection import Connection
from celeriac.amqp.errors import (
    AmqpError,
    ConnectionClosed,
    DeadlinePassed,
)  # fmt: skip
from celeriac.amqp.events import Call, ChannelEnded, ConsumerEnded, Event
from celeriac.amqp.parameters import Parameters
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
                raise self._core.error.again()

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
                raise self._core.error.again()
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
            error = self._core.error
            raise DeadlinePassed("The broker did not take the data in time.") if error is None else error.again()
        self._wire.wait(remaining, writing=True)
        self._take_in()
        if self._core.error is not None:
            raise self._core.error.again()

    def _pump_once(self, wait: float) -> None:
        """Read what there is, waiting if there is nothing."""
        # nothing is there mostly, and to be told so by a poll costs less than by an exception; but no poll tells of
        # what TLS has decrypted already
        if not (self._wire.is_secured and self._take_in()) and self._core.error is None:
            due = self._core.next_tick()
            if due is not None:
                wait = min(wait, due - self._clock.monotonic())
            if self._wire.wait(wait):
                self._take_in()
        self._dispatch(self._core.tick(self._clock.monotonic()))

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
        self._channels.clear()
