"""From a call to a message that the broker has: encode, publish, within a deadline.

Blocking-native, thread-safe, fork-safe: no thread and no event loop starts because somebody called ``delay()``.
Knows the wire and the seam of the brokers; does not know apps, tasks or settings objects.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec

from celeriac.errors import BrokerUnavailable, OperationalError, PublishRejected, QueueNotFound
from celeriac.signals import after_task_publish, before_task_publish
from celeriac.transports.base import Begins
from celeriac.wire.envelope import Envelope, Outgoing, Route
from celeriac.wire.limits import DEFAULT_LIMITS
from celeriac.wire.task_message import TaskCall, encode_task, load_body, timestamp_of

if TYPE_CHECKING:
    from celeriac.clock import Clock
    from celeriac.transports.base import Publisher, QueueSpec, Transport

#: messages per publish: one transaction each on an SQL broker, small enough to stay within a deadline
BULK = 1000


class PublishPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how long to try to hand a batch to the broker (Celery's ``retry_policy``)."""

    timeout: float = 10.0  #: seconds for everything: connecting, waiting, trying again
    #: how often to try again; None: until the time is over; 0: not at all
    max_retries: int | None = 3
    interval_start: float = 0.0
    interval_step: float = 0.2
    interval_max: float = 1.0

    def pause(self, attempt: int) -> float:
        return min(self.interval_start + self.interval_step * attempt, self.interval_max)


def encode_call(call: TaskCall, route: Route, now: float) -> Envelope:
    """The message of a call, after whoever listens to ``before_task_publish`` has had a hand in it."""
    if not before_task_publish.receivers:
        return encode_task(call, now)

    def tell(body: Any, headers: dict[str, Any], properties: dict[str, Any]) -> None:
        before_task_publish.send(
            sender=call.task, body=body, exchange=route.exchange, routing_key=route.routing_key, headers=headers,
            properties=properties, declare=[], retry_policy=None,
        )  # fmt: skip

    return encode_task(call, now, tell)


def _body_of(envelope: Envelope) -> Any:
    """As Celery's receivers get it: ``(args, kwargs, embed)``. It was written by this very process."""
    content_type = str(envelope.properties.get("content_type"))
    body = load_body(envelope, frozenset({content_type}), DEFAULT_LIMITS)
    return tuple(body) if isinstance(body, list) else body


def _tell_sent(batch: Sequence[Outgoing]) -> None:
    for outgoing in batch:
        headers = outgoing.envelope.headers
        after_task_publish.send(
            sender=headers.get("task"), body=_body_of(outgoing.envelope), headers=headers,
            exchange=outgoing.route.exchange, routing_key=outgoing.route.routing_key,
        )  # fmt: skip


class Sender:
    """Encodes and publishes. One per app; shared by all threads."""

    def __init__(
        self, transport: Callable[[], Transport], policy: PublishPolicy, clock: Clock,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self.policy = policy
        self._transport = transport
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._publisher: Publisher | None = None
        self._owner = 0  # pid of the process that made the publisher
        self._declared: set[str] = set()
        #: called with every batch that the broker has taken; must not raise
        self.on_sent: Callable[[Sequence[Outgoing]], None] | None = None

    def prepare(self, call: TaskCall, route: Route) -> Outgoing:
        """The message of a call: encoded, addressed and timed, not yet sent."""
        envelope = encode_call(call, route, self._clock.time())
        if call.eta is None and call.expires is None:
            return Outgoing(envelope, route)
        return Outgoing(envelope, route, timestamp_of(call.eta), timestamp_of(call.expires))

    def send(self, batch: Sequence[Outgoing], policy: PublishPolicy | None = None) -> None:
        """Hand the batch to the broker; returns when every message is accepted.

        Tries again as the policy says, never beyond its timeout. Raises ``OperationalError`` and its kin.
        """
        policy = policy or self.policy
        deadline = self._clock.monotonic() + policy.timeout
        try:
            self._connected().publish(batch, deadline)
        except (OperationalError, OSError) as error:
            self._send_again(batch, policy, deadline, error)
        self.tell(batch)

    def _send_again(
        self, batch: Sequence[Outgoing], policy: PublishPolicy, deadline: float, error: OperationalError | OSError
    ) -> None:  # fmt: skip
        """``error``: why the first attempt failed."""
        for attempt in count():
            if isinstance(error, PublishRejected | QueueNotFound):
                raise error  # the broker's answer would be the same
            if not isinstance(error, OperationalError):
                raise BrokerUnavailable(f"the broker cannot be reached: {error}") from error
            pause = policy.pause(attempt)
            if policy.max_retries is not None and attempt >= policy.max_retries:
                raise error
            if self._clock.monotonic() + pause >= deadline:
                raise error
            self._sleep(pause)
            try:
                self._connected().publish(batch, deadline)
            except (OperationalError, OSError) as again:
                error = again
            else:
                return

    def tell(self, batch: Sequence[Outgoing]) -> None:
        """The broker has taken it: whoever wants to know is told."""
        if after_task_publish.receivers:
            _tell_sent(batch)
        if self.on_sent is not None:
            self.on_sent(batch)

    def begin(self, batch: Sequence[Outgoing], policy: PublishPolicy) -> Callable[[], None] | None:
        """:meth:`send` in two steps, for brokers that can: what is returned waits for the broker's answer.

        ``None``: it is sent.
        """
        publisher = self._connected()
        if not isinstance(publisher, Begins):
            self.send(batch, policy)
            return None
        deadline = self._clock.monotonic() + policy.timeout
        try:
            ended = publisher.begin(batch, deadline)
        except (OperationalError, OSError) as error:
            self._send_again(batch, policy, deadline, error)
            self.tell(batch)
            return None

        def finish() -> None:
            try:
                ended()
            except (OperationalError, OSError) as error:
                # a new deadline: what the caller did meanwhile may have taken any time
                self._send_again(batch, policy, self._clock.monotonic() + policy.timeout, error)
            self.tell(batch)

        return finish

    def send_bulk(self, batch: Sequence[Outgoing], policy: PublishPolicy | None = None) -> None:
        """:meth:`send` for any number of messages, in batches the broker takes.

        When a batch fails, those before it are sent and those after it are not.
        """
        size = min(BULK, self._transport().capabilities.max_batch)
        for start in range(0, len(batch), size):
            self.send(batch[start : start + size], policy)

    def stream(self, policy: PublishPolicy | None = None) -> Stream:
        """For batches that are still to be made."""
        return Stream(self, policy or self.policy, min(BULK, self._transport().capabilities.max_batch))

    def declare(self, queue: QueueSpec) -> None:
        """Make sure that a queue and its binding exist; asks the broker once per queue and process."""
        if queue.name not in self._declared:
            self._transport().admin().declare([queue])
            self._declared.add(queue.name)

    def _connected(self) -> Publisher:
        publisher = self._publisher
        if publisher is None or self._owner != os.getpid():
            publisher = self._connect()
        return publisher

    def _connect(self) -> Publisher:
        pid = os.getpid()
        if self._owner not in (0, pid):
            self._lock = threading.Lock()  # a fork may have caught it held by a thread that is not here
            self._publisher = None
        with self._lock:
            if self._publisher is None:
                self._publisher = self._transport().publisher()
                self._owner = pid
            return self._publisher

    def close(self) -> None:
        """Close the connection; the next send opens another."""
        publisher, self._publisher = self._publisher, None
        self._declared.clear()
        if publisher is not None and self._owner == os.getpid():
            publisher.close()


class Stream:
    """Sends batches in order, and lets the caller make the next one while the broker is at work on the last.

    At most one is under way: when it fails, those before it are sent and those after it are not. Use as a context
    manager; leaving it waits for the last one. One thread.
    """

    def __init__(self, sender: Sender, policy: PublishPolicy, size: int) -> None:
        self._sender = sender
        self._policy = policy
        self._size = size
        self._finish: Callable[[], None] | None = None

    def send(self, batch: Sequence[Outgoing]) -> None:
        """Returns when the batch before this one is accepted; raises what went wrong with that."""
        for start in range(0, len(batch), self._size):
            self._end()
            self._finish = self._sender.begin(batch[start : start + self._size], self._policy)

    def _end(self) -> None:
        finish, self._finish = self._finish, None
        if finish is not None:
            finish()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
