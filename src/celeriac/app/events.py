"""``app.events``: hear what workers and clients tell, send events, keep a picture of the cluster. Celery's API.

Events are told at most once and never a reason to fail: without a broker that can carry them they are not told.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from celeriac.app.cluster import State as ClusterState
from celeriac.clock import SYSTEM_CLOCK
from celeriac.current import get_current_app
from celeriac.errors import CeleriacError, ImproperlyConfigured, MessageError
from celeriac.transports.base import QueueSpec
from celeriac.wire.envelope import Outgoing, Route
from celeriac.wire.event_message import (
    EventFields,
    Sender,
    decode_events,
    encode_batch,
    encode_event,
    event,
    routing_key_of,
    utc_offset,
)  # fmt: skip
from celeriac.wire.serializers import accept_set

if TYPE_CHECKING:
    from celeriac.app.celery import Celeriac
    from celeriac.transports.base import Broadcast, Subscription

Handlers = Mapping[str, Callable[[EventFields], Any]]

logger = logging.getLogger("celeriac")

#: seconds that sending an event may take
_PATIENCE = 2.0
#: seconds without trying after the broker refused an event
_PAUSE = 5.0
_AT_ONCE = 500


def current_app() -> Celeriac:
    """For classes that ported code makes itself. Raises ``ImproperlyConfigured``."""
    app: Celeriac | None = get_current_app()
    if app is None:
        raise ImproperlyConfigured("There is no current app: say which with app=…, or make it with app.events")
    return app


class Events:
    """What ``app.events`` is."""

    def __init__(self, app: Celeriac) -> None:
        self.app = app
        self._lock = threading.Lock()
        self._broadcast: Broadcast | None = None
        self._owner = 0  # pid of the process that opened it
        self._silent_until = 0.0

    def Receiver(self, channel: Any = None, handlers: Handlers | None = None, **options: Any) -> Receiver:
        """Hears events: ``app.events.Receiver(handlers={"task-failed": print}).capture()``. No channel is needed."""
        return Receiver(channel, handlers, app=self.app, **options)

    def Dispatcher(self, connection: Any = None, hostname: str | None = None, **options: Any) -> EventDispatcher:
        """Sends events. No connection is needed."""
        return EventDispatcher(connection, hostname, app=self.app, **options)

    def State(self, **options: Any) -> ClusterState:
        """A picture of the cluster, fed with events."""
        return ClusterState(**options)

    @contextlib.contextmanager
    def default_dispatcher(
        self, hostname: str | None = None, enabled: bool = True, buffer_while_offline: bool = False
    ) -> Iterator[EventDispatcher]:
        dispatcher = self.Dispatcher(None, hostname, enabled=enabled, buffer_while_offline=buffer_while_offline)
        with dispatcher:
            yield dispatcher

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────────

    def tell(self, kind: str, fields: EventFields) -> bool:
        """One event, now; False: the broker did not take it."""
        made = self._event(kind, fields)
        return self.publish([(routing_key_of(kind), made)])

    def tell_sent(self, batch: Sequence[Outgoing]) -> None:
        """``task-sent`` of messages that the broker has (the ``Sender`` calls it where the setting asks for them)."""
        made = [("task.sent", self._event("task-sent", _sent(outgoing))) for outgoing in batch]
        self.publish(made)

    def _event(self, kind: str, fields: EventFields) -> EventFields:
        sender = Sender(self.app.origin, os.getpid(), utc_offset(time.localtime().tm_gmtoff))
        return event(sender, kind, self.app.clock.forward(), SYSTEM_CLOCK.time(), fields)

    def publish(self, events: Sequence[tuple[str, EventFields | list[EventFields]]]) -> bool:
        """Hand events (or lists of them), each with its routing key, to the broker."""
        if not events or SYSTEM_CLOCK.monotonic() < self._silent_until:
            return not events
        settings = self.app.settings
        serializer = "json" if settings.event_serializer == "pickle" else settings.event_serializer
        try:
            batch = [
                Outgoing(
                    encode_batch(made, serializer) if isinstance(made, list) else encode_event(made, serializer),
                    Route(settings.event_exchange, key, "topic"),
                )
                for key, made in events
            ]
            self._opened().publish(batch, SYSTEM_CLOCK.monotonic() + _PATIENCE)
        except (CeleriacError, OSError) as error:
            self._silent_until = SYSTEM_CLOCK.monotonic() + _PAUSE
            logger.debug("events are not sent: %s", error)
            self.close()
            return False
        return True

    def subscribe(self, queue: QueueSpec, key: str) -> Subscription:
        """Blocking."""
        return self._opened().subscribe(queue, [key])

    def _opened(self) -> Broadcast:
        pid = os.getpid()
        if self._owner not in (0, pid):  # a fork: the lock may be held by a thread that is not here
            self._lock, self._broadcast = threading.Lock(), None
        with self._lock:
            if self._broadcast is None:
                self._broadcast = self.app.transport.broadcast()
                self._owner = pid
            return self._broadcast

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        broadcast, self._broadcast = self._broadcast, None
        if broadcast is not None and self._owner == os.getpid():
            with contextlib.suppress(CeleriacError):
                broadcast.close()


def _sent(outgoing: Outgoing) -> EventFields:
    headers, route = outgoing.envelope.headers, outgoing.route
    return {
        "uuid": headers.get("id"), "root_id": headers.get("root_id"), "parent_id": headers.get("parent_id"),
        "name": headers.get("task"), "args": headers.get("argsrepr"), "kwargs": headers.get("kwargsrepr"),
        "retries": headers.get("retries"), "eta": headers.get("eta"), "expires": headers.get("expires"),
        "queue": route.routing_key, "exchange": route.exchange, "routing_key": route.routing_key,
    }  # fmt: skip


class EventDispatcher:
    """Sends events of this process, at once or gathered by group. Use as a context manager, or close it."""

    def __init__(
        self, connection: Any = None, hostname: str | None = None, enabled: bool = True, channel: Any = None,
        buffer_while_offline: bool = True, app: Celeriac | None = None, serializer: str | None = None,
        groups: Iterable[str] | None = None, delivery_mode: int = 1, buffer_group: Iterable[str] | None = None,
        buffer_limit: int = 24, on_send_buffered: Callable[[], Any] | None = None,
    ) -> None:  # fmt: skip
        app = app if app is not None else current_app()
        self.app = app
        self.hostname = hostname or app.origin
        self.enabled = enabled
        self.groups = set(groups or ())
        self.buffer_group = frozenset(buffer_group or ())
        self.buffer_limit = buffer_limit
        self.buffer_while_offline = buffer_while_offline
        self.on_send_buffered = on_send_buffered
        self._gathered: dict[str, list[EventFields]] = {}
        self._unsent: list[tuple[str, EventFields | list[EventFields]]] = []

    def __enter__(self) -> EventDispatcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, type: str, blind: bool = False, retry: bool = False, **fields: Any) -> None:  # noqa: A002
        """One event of this type with these fields; ``blind``: without a number of the logical clock."""
        group = type.partition("-")[0]
        if not self.enabled or (self.groups and group not in self.groups):
            return
        sender = Sender(self.hostname, os.getpid(), utc_offset(time.localtime().tm_gmtoff))
        made = event(sender, type, None if blind else self.app.clock.forward(), SYSTEM_CLOCK.time(), fields)
        if group in self.buffer_group:
            gathered = self._gathered.setdefault(group, [])
            gathered.append(made)
            if len(gathered) >= self.buffer_limit:
                self.flush()
            elif self.on_send_buffered is not None:
                self.on_send_buffered()
            return
        self._publish([(routing_key_of(type), made)])

    def publish(self, type: str, fields: EventFields, producer: Any = None, blind: bool = False, **_: Any) -> None:  # noqa: A002
        """:meth:`send` with the fields as a mapping."""
        self.send(type, blind, **fields)

    def flush(self, errors: bool = True, groups: bool = True) -> None:
        """Send what was gathered, and what could not be sent before."""
        batch: list[tuple[str, EventFields | list[EventFields]]] = []
        if errors:
            batch, self._unsent = self._unsent, []
        if groups:
            gathered, self._gathered = self._gathered, {}
            batch.extend((f"{group}.multi", events) for group, events in gathered.items() if events)
        self._publish(batch)

    def _publish(self, batch: list[tuple[str, EventFields | list[EventFields]]]) -> None:
        if not self.app.events.publish(batch) and self.buffer_while_offline:
            self._unsent.extend(batch)
            del self._unsent[:-1000]

    def extend_buffer(self, other: EventDispatcher) -> None:
        """Take over what another could not send."""
        self._unsent.extend(other._unsent)

    def enable(self) -> None:
        self.enabled = True

    def disable(self) -> None:
        self.enabled = False

    def close(self) -> None:
        self.flush()


class Receiver:
    """Hears events and calls handlers: ``{type: function}``, ``"*"`` for all others.

    What cannot be understood is counted in ``refused``.
    """

    def __init__(
        self, channel: Any = None, handlers: Handlers | None = None, routing_key: str = "#",
        node_id: str | None = None, app: Celeriac | None = None, queue_prefix: str | None = None,
        accept: Iterable[str] | None = None, queue_ttl: float | None = None, queue_expires: float | None = None,
        queue_exclusive: bool | None = None, queue_durable: bool | None = None,
    ) -> None:  # fmt: skip
        app = app if app is not None else current_app()
        settings = app.settings
        self.app = app
        self.handlers = dict(handlers or {})
        self.routing_key = routing_key
        self.node_id = node_id or str(uuid4())
        self.should_stop = False
        self.refused = 0
        self.on_ready: Callable[[], None] | None = None  #: called when the broker has agreed to tell
        self._accept = accept_set(accept or settings.accept_content)
        self._subscription: Subscription | None = None
        self._queue = QueueSpec(
            name=f"{queue_prefix or settings.event_queue_prefix}.{self.node_id}",
            exchange=settings.event_exchange,
            exchange_type="topic",
            routing_key=routing_key,
            durable=settings.event_queue_durable if queue_durable is None else queue_durable,
            auto_delete=True,
            exclusive=settings.event_queue_exclusive if queue_exclusive is None else queue_exclusive,
            expires=settings.event_queue_expires if queue_expires is None else queue_expires,
            message_ttl=settings.event_queue_ttl if queue_ttl is None else queue_ttl,
        )

    def capture(self, limit: int | None = None, timeout: float | None = None, wakeup: bool = True) -> None:
        """Call the handlers until ``limit`` messages have come or :meth:`stop` is called. Blocking.

        Raises ``TimeoutError`` after ``timeout`` seconds without a message. ``wakeup``: ask workers for a sign of life.
        """
        for _ in self.itercapture(limit, timeout, wakeup):
            pass

    def itercapture(
        self, limit: int | None = None, timeout: float | None = None, wakeup: bool = True
    ) -> Iterator[list[EventFields]]:
        """:meth:`capture`, message by message."""
        subscription = self._subscription = self.app.events.subscribe(self._queue, self.routing_key)
        try:
            if wakeup:
                self.wakeup_workers()
            if self.on_ready is not None:
                self.on_ready()
            yield from self._receive(subscription, limit, timeout)
        finally:
            self._subscription = None
            subscription.close()

    def _receive(
        self, subscription: Subscription, limit: int | None, timeout: float | None
    ) -> Iterator[list[EventFields]]:
        count = 0
        heard_at = SYSTEM_CLOCK.monotonic()
        while not self.should_stop and (limit is None or count < limit):
            room = _AT_ONCE if limit is None else min(_AT_ONCE, limit - count)
            batch = subscription.receive(room, 0.5 if timeout is None else min(0.5, timeout))
            for heard in batch:
                count += 1
                if heard.malformed is not None:
                    self.refused += 1
                    continue
                try:
                    found = decode_events(heard.envelope, self._accept)
                except MessageError:
                    self.refused += 1
                    continue
                self.refused += found.refused
                for one in found.events:
                    self.process(one["type"], self._localized(one))
                yield found.events
            if batch:
                heard_at = SYSTEM_CLOCK.monotonic()
            elif timeout is not None and SYSTEM_CLOCK.monotonic() - heard_at >= timeout:
                raise TimeoutError(f"no event for {timeout:g} seconds")

    def _localized(self, one: EventFields) -> EventFields:
        clock = self.app.clock
        if one["type"] == "task-sent":  # clients do not hear each other, so their numbers mean nothing here
            one["clock"] = clock.forward()
        elif one.get("clock") is not None:
            clock.adjust(one["clock"])
        one["local_received"] = SYSTEM_CLOCK.time()
        return one

    def process(self, type: str, event: EventFields) -> None:  # noqa: A002
        """Call the handler of the event."""
        handler = self.handlers.get(type) or self.handlers.get("*")
        if handler is not None:
            handler(event)

    def wakeup_workers(self, channel: Any = None) -> None:
        """Have the workers send a sign of life now."""
        self.app.control.heartbeat()

    def stop(self) -> None:
        """Make :meth:`capture` return soon. Any thread."""
        self.should_stop = True
        subscription = self._subscription
        if subscription is not None:
            subscription.interrupt()
