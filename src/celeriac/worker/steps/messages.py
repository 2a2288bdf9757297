"""What steps receive messages with: a channel, consumers on it, and messages, in the shapes that kombu gives them.

These objects belong to the thread that steps run in; whatever they want of the broker goes through the :class:`Post`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from celeriac.errors import ImproperlyConfigured
from celeriac.transports.base import ACK, RELEASE, Bury, Delivery, QueueSpec, Verdict
from celeriac.wire.limits import Limits
from celeriac.wire.task_message import load_body

__all__ = ["Channel", "Consumer", "Message"]

_READING = "celeriac's brokers have no channels; in a ConsumerStep, receive with celeriac.bootsteps.Consumer"


class Post(Protocol):
    """What the engine does for consumers. Thread-safe, blocking."""

    limits: Limits
    accept: frozenset[str]

    def queue(self, given: Any) -> QueueSpec:
        """What was given for a queue, as its declaration."""
        ...

    def begin(self, consumer: Consumer) -> None: ...
    def end(self, consumer: Consumer) -> None: ...
    def settle(self, consumer: Consumer, delivery: Delivery, verdict: Verdict) -> None:
        """Returns when the broker knows. Raises ``OperationalError``."""
        ...


class Channel:
    """What ``get_consumers`` is given, to be handed on to :class:`Consumer`."""

    def __init__(self, post: Post) -> None:
        self._post = post

    def close(self) -> None:
        """Consumers are closed one by one."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ImproperlyConfigured(f"channel.{name}: {_READING}")


class Consumer:
    """Receives from queues. ``queues``: names, mappings as in ``task_queues``, or objects with kombu's attributes.

    ``callbacks`` are called with the decoded body and the message; ``on_message`` instead with the message alone.
    A message that nobody has acknowledged is delivered again when the consumer ends. One whose callback raises goes to
    the dead letters; one that cannot be decoded to quarantine, unless ``on_decode_error`` sees to it.
    """

    def __init__(
        self, channel: Any, queues: Any = None, no_ack: bool | None = None, auto_declare: bool | None = None,
        callbacks: Sequence[Callable[[Any, Message], Any]] | None = None,
        on_decode_error: Callable[[Message, Exception], Any] | None = None,
        on_message: Callable[[Message], Any] | None = None, accept: Iterable[str] | None = None,
        prefetch_count: int | None = None, tag_prefix: str | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(channel, Channel):
            raise ImproperlyConfigured(f"{type(channel).__name__} is not the channel that get_consumers was given")
        from celeriac.wire.serializers import accept_set

        self.post = channel._post  # pyright: ignore[reportPrivateUsage]  # one room
        self.queues: list[QueueSpec] = []
        self.callbacks = list(callbacks or ())
        self.on_message = on_message
        self.on_decode_error = on_decode_error
        self.no_ack = bool(no_ack)
        self.accept = self.post.accept if accept is None else accept_set(accept)
        self.prefetch_count = prefetch_count or 10
        for queue in _listed(queues):
            self.add_queue(queue)

    def add_queue(self, queue: Any) -> QueueSpec:
        """One more, from the next :meth:`consume` on."""
        spec = self.post.queue(queue)
        self.queues.append(spec)
        return spec

    def register_callback(self, callback: Callable[[Any, Message], Any]) -> None:
        self.callbacks.append(callback)

    def qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        """How many unacknowledged messages to hold."""
        self.prefetch_count = prefetch_count or self.prefetch_count

    def consume(self, no_ack: bool | None = None) -> None:
        """Begin to receive."""
        self.no_ack = self.no_ack if no_ack is None else no_ack
        if not self.queues:
            raise ImproperlyConfigured("this Consumer has no queues")
        if not self.callbacks and self.on_message is None:
            raise ImproperlyConfigured("this Consumer has neither callbacks nor on_message")
        self.post.begin(self)

    def consuming_from(self, queue: Any) -> bool:
        return any(spec.name == getattr(queue, "name", queue) for spec in self.queues)

    def cancel(self) -> None:
        """Receive no more; what is not acknowledged goes back."""
        self.post.end(self)

    close = cancel

    def receive(self, message: Message) -> None:
        """Give a message to whoever waits for it."""
        if self.on_message is not None:
            self.on_message(message)
            return
        try:
            body = message.payload
        except Exception as error:
            if self.on_decode_error is None:
                message.bury(f"not understood: {error}", quarantine=True)
            else:
                self.on_decode_error(message, error)
            return
        for callback in self.callbacks:
            callback(body, message)


def _listed(queues: Any) -> list[Any]:
    if queues is None:
        return []
    if isinstance(queues, str | Mapping) or not isinstance(queues, Iterable):
        return [queues]
    return list(queues)


class Message:
    """One that was received."""

    def __init__(self, delivery: Delivery, consumer: Consumer) -> None:
        self._delivery = delivery
        self._consumer = consumer
        self.body = delivery.envelope.body  #: bytes
        self.headers: dict[str, Any] = delivery.envelope.headers
        self.properties: dict[str, Any] = delivery.envelope.properties
        self.delivery_tag = delivery.receipt
        self.delivery_info: dict[str, Any] = {
            "exchange": delivery.route.exchange, "routing_key": delivery.route.routing_key, "queue": delivery.queue,
            "redelivered": delivery.redelivered, "priority": self.properties.get("priority"),
        }  # fmt: skip
        self.acknowledged = consumer.no_ack

    def __repr__(self) -> str:
        return f"<Message from {self._delivery.queue}, {len(self.body)} bytes, {self.content_type}>"

    @property
    def content_type(self) -> str:
        return str(self.properties.get("content_type") or "")

    @property
    def content_encoding(self) -> str:
        return str(self.properties.get("content_encoding") or "")

    @property
    def payload(self) -> Any:
        """The decoded body. Raises ``MessageError``, also for content types that are not accepted."""
        if not hasattr(self, "_payload"):
            self._payload = load_body(self._delivery.envelope, self._consumer.accept, self._consumer.post.limits)
        return self._payload

    def decode(self) -> Any:
        return self.payload

    def ack(self, multiple: bool = False) -> None:
        """Done with it. Raises ``OperationalError`` when the broker cannot be told: it will be delivered again."""
        if multiple:
            raise NotImplementedError("messages are acknowledged one by one")
        self._settle(ACK)

    def reject(self, requeue: bool = False) -> None:
        """Set it aside, among the dead letters; or as :meth:`requeue`."""
        self._settle(RELEASE if requeue else Bury("rejected by a bootstep"))

    def requeue(self) -> None:
        """Give it back to the head of its queue."""
        self._settle(RELEASE)

    def bury(self, reason: str, quarantine: bool = False) -> None:
        """Set it aside, with a reason."""
        self._settle(Bury(reason, quarantine))

    def _settle(self, verdict: Verdict) -> None:
        if self.acknowledged:
            raise RuntimeError(f"{self!r} is acknowledged already")
        self._consumer.post.settle(self._consumer, self._delivery, verdict)
        self.acknowledged = True

    def ack_log_error(self, logger: Any, errors: Any, multiple: bool = False) -> None:
        try:
            self.ack(multiple)
        except errors as error:
            logger.critical("couldn't ack %r, reason: %r", self.delivery_tag, error)

    def reject_log_error(self, logger: Any, errors: Any, requeue: bool = False) -> None:
        try:
            self.reject(requeue)
        except errors as error:
            logger.critical("couldn't reject %r, reason: %r", self.delivery_tag, error)
