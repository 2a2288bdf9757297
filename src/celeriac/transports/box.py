"""The easy way in for brokers: a box of queues with six methods → a full Transport.

Messages are kombu's JSON envelopes, so Celery's workers can read them. Exchanges are resolved by the sender from
what it has declared itself; dead letters and quarantine are queues of their own beside the queue.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import msgspec

from celeriac.errors import EncodeError, ImproperlyConfigured, MessageError, PublishRejected
from celeriac.transports.base import (
    Ack,
    Bury,
    Capabilities,
    Delivery,
    Outgoing,
    Park,
    QueueBox,
    Release,
    Taken,
)
from celeriac.transports.bindings import Binding, destinations
from celeriac.transports.epitaph import epitaph
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.kombu_json import decode_envelope, encode_envelope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.clock import Clock
    from celeriac.transports.base import QueueSpec, Settlement, Subscription, Transport
    from celeriac.transports.threads import ThreadedConsumer

#: header that counts starts whose process was lost, where the box does not count
_ATTEMPTS = "x-celeriac-attempts"
#: seconds that one look into the box may block: while it does, settlements wait, unless it can be interrupted
_LOOK, _INTERRUPTIBLE_LOOK = 0.05, 1.0


class BoxSettings(Protocol):
    broker_max_message_bytes: int


class BoxReceipt(msgspec.Struct, frozen=True, array_like=True):
    """The box's receipt and what is needed to put the message elsewhere; equal when the box's receipts are."""

    inner: Any
    queue: str
    payload: bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BoxReceipt) and self.inner == other.inner

    def __hash__(self) -> int:
        return hash(self.inner)


def box_transport(
    name: str, box_class: Callable[[str, Any, Clock], QueueBox], *, leases: bool = False, ordered: bool = True,
    survives_restart: bool = True, max_body_bytes: int | None = None,
) -> type[Transport]:  # fmt: skip
    """Make a driver class of a box class, which is constructed with ``(url, settings, clock)`` once per connection."""

    class BoxTransport:
        capabilities: ClassVar[Capabilities] = Capabilities(
            leases=leases, delays=False, priorities=0, fanout=False, counts_attempts=True, confirms=True,
            dead_letters=True, ordered=ordered, survives_restart=survives_restart, max_batch=1000,
            max_body_bytes=max_body_bytes,
        )  # fmt: skip

        def __init__(self, url: str, settings: BoxSettings, clock: Clock) -> None:
            self.engine_key: tuple[str, ...] = (name, url)
            self._open: Callable[[], QueueBox] = partial(box_class, url, settings, clock)
            self._settings = settings
            self._clock = clock
            self._bindings = _Bindings()

        def publisher(self) -> BoxPublisher:
            return BoxPublisher(self._open(), self._bindings, self._settings.broker_max_message_bytes)

        def consumer(self, queues: Sequence[QueueSpec], owner: str) -> ThreadedConsumer:
            from celeriac.transports.threads import ThreadedConsumer  # asyncio: who only sends is spared it

            return ThreadedConsumer(BoxConsumer(self._open(), [queue.name for queue in queues], self._clock), owner)

        def admin(self) -> BoxAdmin:
            return BoxAdmin(self._open(), self._bindings)

        def broadcast(self) -> NoBroadcast:
            return NoBroadcast(name)

        def close(self) -> None:
            """Publishers, consumers and admins close their own boxes."""

    BoxTransport.__name__ = BoxTransport.__qualname__ = f"{name.capitalize()}Transport"
    return BoxTransport


class _Bindings:
    """What has been declared through one transport object."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_exchange: dict[str, set[Binding]] = {}
        self.names: set[str] = set()

    def add(self, spec: QueueSpec) -> None:
        with self._lock:
            self.names.add(spec.name)
            if spec.exchange:
                binding = Binding(spec.exchange_type, spec.routing_key, spec.name)
                self._by_exchange.setdefault(spec.exchange, set()).add(binding)

    def remove(self, queue: str) -> None:
        with self._lock:
            self.names.discard(queue)
            for bound in self._by_exchange.values():
                bound.difference_update([binding for binding in bound if binding.queue == queue])

    def queues_for(self, route: Route) -> list[str]:
        if not route.exchange:
            return [route.routing_key]
        with self._lock:
            return destinations(route, sorted(self._by_exchange.get(route.exchange, ())))


class BoxPublisher:
    """Sends. Thread-safe: one thread at a time uses the box."""

    def __init__(self, box: QueueBox, bindings: _Bindings, max_bytes: int) -> None:
        self._box = box
        self._bindings = bindings
        self._max_bytes = max_bytes
        self._lock = threading.Lock()

    def publish(self, batch: Sequence[Outgoing], deadline: float) -> None:
        by_queue: dict[str, list[bytes]] = {}
        for outgoing in batch:
            payload = _encoded(outgoing.envelope, outgoing.route)
            if len(payload) > self._max_bytes:
                raise PublishRejected(
                    f"A message has {len(payload)} bytes; broker_max_message_bytes allows {self._max_bytes}."
                )
            for queue in self._bindings.queues_for(outgoing.route):
                by_queue.setdefault(queue, []).append(payload)
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise PublishRejected("Another thread was publishing until the deadline; nothing was stored.")
        try:
            for queue, payloads in by_queue.items():
                self._box.put(queue, payloads)
        finally:
            self._lock.release()

    def close(self) -> None:
        _close(self._box)


def _encoded(envelope: Envelope, route: Route) -> bytes:
    try:
        return encode_envelope(envelope, route)
    except (EncodeError, TypeError, ValueError) as error:
        raise PublishRejected(f"A message cannot be written as JSON: {error}") from error


class BoxConsumer:
    """The blocking consumer over a box. One thread uses the box; others only call its ``interrupt`` if it has one."""

    same_lane = True

    def __init__(self, box: QueueBox, queues: Sequence[str], clock: Clock) -> None:
        self._box = box
        self._queues = list(queues)
        self._clock = clock
        self._held: dict[BoxReceipt, None] = {}
        self._interrupted = threading.Event()
        self._interrupt_box: Callable[[], None] | None = getattr(box, "interrupt", None)

    def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        ends = time.monotonic() + wait
        look = _LOOK if self._interrupt_box is None else _INTERRUPTIBLE_LOOK
        try:
            while True:
                left = ends - time.monotonic()
                taken = self._box.take(self._queues, limit, max(0.0, min(left, look)))
                found = [self._delivery(one) for one in taken]
                if found or left <= 0 or self._interrupted.is_set():
                    return found
        finally:
            self._interrupted.clear()

    def _delivery(self, taken: Taken) -> Delivery:
        receipt = BoxReceipt(taken.receipt, taken.queue, taken.payload)
        self._held[receipt] = None
        try:
            envelope, route = decode_envelope(taken.payload)
        except MessageError as error:
            unread = Envelope(taken.payload, {}, {})
            return Delivery(unread, taken.queue, receipt, Route("", taken.queue), taken.attempt, malformed=str(error))
        counted = envelope.headers.pop(_ATTEMPTS, 0)
        attempt = taken.attempt if taken.attempt is not None else counted if isinstance(counted, int) else 0
        redelivered = attempt > 0 or envelope.headers.get("redelivered") is True
        return Delivery(envelope, taken.queue, receipt, route, attempt, redelivered)

    def settle(self, batch: Sequence[Settlement]) -> Sequence[BoxReceipt]:
        lost: list[BoxReceipt] = []
        done: list[Any] = []
        back: list[Any] = []
        for settlement in batch:
            receipt: BoxReceipt = settlement.receipt
            if receipt not in self._held:
                lost.append(receipt)
                continue
            del self._held[receipt]
            match settlement.verdict:
                case Ack():
                    done.append(receipt.inner)
                case Release(count_attempt=True) | Park(count_attempt=True):
                    # put the counted copy first: a crash in between makes two of it, not none
                    self._box.put(receipt.queue, [_counted(receipt.payload)])
                    done.append(receipt.inner)
                case Release() | Park():  # a box has no delays: the worker waits, as the capabilities told it
                    back.append(receipt.inner)
                case Bury() as verdict:
                    kind = "quarantine" if verdict.quarantine else "dead"
                    self._box.put(f"{receipt.queue}.{kind}", [self._epitaph(receipt, verdict)])
                    done.append(receipt.inner)
        if done:
            self._box.done(done)
        if back:
            self._box.give_back(back)
        return lost

    def _epitaph(self, receipt: BoxReceipt, verdict: Bury) -> bytes:
        return epitaph(
            reason=verdict.reason, queue=receipt.queue, worker=verdict.worker, buried_at=self._clock.time(),
            payload=receipt.payload,
        )  # fmt: skip

    def renew(self, receipts: Sequence[BoxReceipt]) -> Sequence[BoxReceipt]:
        """A box holds what it handed out until it is told."""
        return [receipt for receipt in receipts if receipt not in self._held]

    def redirect(self, queues: Sequence[QueueSpec]) -> None:
        self._queues = [queue.name for queue in queues]

    def interrupt(self) -> None:
        self._interrupted.set()
        if self._interrupt_box is not None:
            self._interrupt_box()

    def close(self) -> None:
        held, self._held = list(self._held), {}
        if held:
            self._box.give_back([receipt.inner for receipt in held])
        _close(self._box)


def _counted(payload: bytes) -> bytes:
    envelope, route = decode_envelope(payload)
    before = envelope.headers.get(_ATTEMPTS, 0)
    headers = {**envelope.headers, _ATTEMPTS: (before if isinstance(before, int) else 0) + 1}
    return encode_envelope(Envelope(envelope.body, headers, envelope.properties), route)


def _close(box: QueueBox) -> None:
    closing = getattr(box, "close", None)
    if closing is not None:
        closing()


class BoxAdmin:
    """Looks after queues, as far as a box can tell."""

    def __init__(self, box: QueueBox, bindings: _Bindings) -> None:
        self._box = box
        self._bindings = bindings

    def declare(self, queues: Sequence[QueueSpec]) -> None:
        for spec in queues:
            self._bindings.add(spec)

    def delete(self, queue: str) -> None:
        self._box.purge(queue)
        self._bindings.remove(queue)

    def purge(self, queue: str) -> int:
        return self._box.purge(queue)

    def depth(self, queue: str) -> int:
        return self._box.count(queue)

    def queues(self) -> Sequence[str]:
        return sorted(self._bindings.names)

    def close(self) -> None:
        _close(self._box)


class NoBroadcast:
    """A box reaches one receiver only: events and remote control do not work."""

    def __init__(self, name: str) -> None:
        self._name = name

    def publish(self, batch: Sequence[Outgoing], deadline: float) -> None:
        """Fan-out is at most once; here it is never."""

    def subscribe(self, queue: QueueSpec, keys: Sequence[str] = ()) -> Subscription:
        raise ImproperlyConfigured(
            f"Transport {self._name!r} has no fan-out, so remote control and events do not work with it."
        )

    def anybody(self, exchange: str) -> bool:
        return False

    def close(self) -> None:
        """Nothing to close."""
