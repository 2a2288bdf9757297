"""The embedded engine without a file: a broker and a result store in this process's memory, found by name.

Keeps every promise of the SQLite one but durability, and calls no clock: times are arguments, in seconds since the
epoch. Tests and ``memory://`` use it. Thread-safe.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from celeriac.transports.base import Ack, Bury, Delivery, Park, QueueSpec, Release
from celeriac.transports.bindings import Binding, destinations
from celeriac.wire.revocation import News, Standing, fresh_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from celeriac.transports.base import Outgoing, Settlement
    from celeriac.wire.envelope import Envelope, Route
    from celeriac.wire.result_record import ResultRecord
    from celeriac.wire.revocation import Revocation

#: (token, message id); the token is new for every claim
Receipt = tuple[int, int]


class Message(msgspec.Struct):
    id: int
    queue: str
    rank: int  #: the negated priority
    position: float  #: when it became due
    envelope: Envelope
    route: Route
    attempts: int = 0
    redelivered: bool = False


class Held(msgspec.Struct):
    message: Message
    until: float


class BuriedMessage(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    kind: str  #: dead, quarantine
    queue: str
    reason: str
    worker: str
    buried_at: float
    attempts: int
    envelope: Envelope
    route: Route
    expires_at: float | None


class _Stored(NamedTuple):
    record: ResultRecord
    expires_at: float | None


class VolatileEngine:
    """Queues, claims, dead letters and records."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.specs: dict[str, QueueSpec] = {}
        self.buried: list[BuriedMessage] = []
        self.records: dict[str, _Stored] = {}
        self.groups: dict[str, tuple[bytes, float | None]] = {}
        #: called, under no lock, after something changed: with the queues, with the task ids
        self.on_messages: set[Callable[[], None]] = set()
        self.on_records: set[Callable[[], None]] = set()
        self._revoked: dict[Revocation, tuple[int, float]] = {}
        self._revocations = itertools.count(1)
        self._audience: dict[str, set[Callable[[Envelope, Route], None]]] = {}
        self._bindings: dict[str, dict[tuple[str, str], Binding]] = {}
        self._ready: dict[str, list[tuple[int, float, int, Message]]] = {}
        self._delayed: list[tuple[float, int, Message]] = []
        self._held: dict[Receipt, Held] = {}
        self._leases: list[tuple[float, Receipt]] = []
        self._ids = itertools.count(1)
        self._tokens = itertools.count(1)

    # ── send ─────────────────────────────────────────────────────────────────────────────────────────────────

    def routed(self, batch: Sequence[Outgoing]) -> list[tuple[str, Outgoing]]:
        """Each message with each queue it goes to. Raises ``Unroutable`` before anything is stored."""
        found: list[tuple[str, Outgoing]] = []
        with self.lock:
            for outgoing in batch:
                route = outgoing.route
                if not route.exchange:
                    found.append((route.routing_key, outgoing))
                else:
                    bound = self._bindings.get(route.exchange, {}).values()
                    found.extend((queue, outgoing) for queue in destinations(route, bound))
        return found

    def send(self, routed: Iterable[tuple[str, Outgoing]], now: float) -> None:
        with self.lock:
            for queue, outgoing in routed:
                priority = outgoing.envelope.properties.get("priority")
                rank = -priority if isinstance(priority, int) else 0
                message = Message(next(self._ids), queue, rank, now, outgoing.envelope, outgoing.route)
                self._place(message, outgoing.not_before, now)

    def _place(self, message: Message, until: float | None, now: float) -> None:
        if until is not None and until > now:
            message.position = until
            heapq.heappush(self._delayed, (until, message.id, message))
        else:
            heap = self._ready.setdefault(message.queue, [])
            heapq.heappush(heap, (message.rank, message.position, message.id, message))

    # ── claim ────────────────────────────────────────────────────────────────────────────────────────────────

    def claim(self, queues: Sequence[str], limit: int, until: float, now: float) -> list[Delivery]:
        found: list[Delivery] = []
        with self.lock:
            self._sweep(now)
            busy = [queue for queue in queues if self._ready.get(queue)]
            token = next(self._tokens)
            start = token % len(busy) if busy else 0
            for queue in busy[start:] + busy[:start]:
                heap = self._ready[queue]
                while heap and len(found) < limit:
                    message = heapq.heappop(heap)[-1]
                    receipt = (token, message.id)
                    self._held[receipt] = Held(message, until)
                    heapq.heappush(self._leases, (until, receipt))
                    found.append(_delivery(message, receipt))
        return found

    def _sweep(self, now: float) -> None:
        while self._delayed and self._delayed[0][0] <= now:
            self._place(heapq.heappop(self._delayed)[-1], None, now)
        while self._leases and self._leases[0][0] <= now:
            _, receipt = heapq.heappop(self._leases)
            held = self._held.get(receipt)
            if held is None:
                continue
            if held.until > now:
                heapq.heappush(self._leases, (held.until, receipt))
                continue
            del self._held[receipt]
            held.message.attempts += 1
            held.message.redelivered = True
            self._place(held.message, None, now)

    def next_due(self) -> float | None:
        """When the next delay or lease ends."""
        with self.lock:
            while self._leases and self._leases[0][1] not in self._held:  # settled since
                heapq.heappop(self._leases)
            times = [heap[0][0] for heap in (self._delayed, self._leases) if heap]
        return min(times) if times else None

    def renew(self, receipts: Sequence[Receipt], until: float) -> list[Receipt]:
        lost = []
        with self.lock:
            for receipt in receipts:
                held = self._held.get(receipt)
                if held is None:
                    lost.append(receipt)
                else:
                    held.until = until
        return lost

    # ── settle ───────────────────────────────────────────────────────────────────────────────────────────────

    def settle(self, batch: Sequence[Settlement], now: float, kept: float | None) -> list[Receipt]:
        """``kept``: seconds that the buried are kept. Returns the receipts that were lost."""
        lost = []
        with self.lock:
            for settlement in batch:
                held = self._held.pop(settlement.receipt, None)
                if held is None:
                    lost.append(settlement.receipt)
                    continue
                message = held.message
                match settlement.verdict:
                    case Ack():
                        pass
                    case Release(count_attempt=counted):
                        self._give_back(message, None, counted, now)
                    case Park(until=until, count_attempt=counted):
                        self._give_back(message, until, counted, now)
                    case Bury() as verdict:
                        self._bury(message, verdict, now, kept)
        return lost

    def _give_back(self, message: Message, until: float | None, counted: bool, now: float) -> None:
        message.attempts += counted
        message.redelivered = True
        self._place(message, until, now)

    def _bury(self, message: Message, verdict: Bury, now: float, kept: float | None) -> None:
        self.buried.append(
            BuriedMessage(
                id=message.id, kind="quarantine" if verdict.quarantine else "dead", queue=message.queue,
                reason=verdict.reason, worker=verdict.worker, buried_at=now, attempts=message.attempts,
                envelope=message.envelope, route=message.route, expires_at=now + kept if kept else None,
            )
        )  # fmt: skip

    # ── queues ───────────────────────────────────────────────────────────────────────────────────────────────

    def declare(self, specs: Sequence[QueueSpec]) -> None:
        with self.lock:
            for spec in specs:
                self.specs[spec.name] = spec
                if spec.exchange:
                    bound = self._bindings.setdefault(spec.exchange, {})
                    bound[spec.name, spec.routing_key] = Binding(spec.exchange_type, spec.routing_key, spec.name)

    def names(self) -> list[str]:
        with self.lock:
            delayed = {message.queue for _, _, message in self._delayed}
            held = {held.message.queue for held in self._held.values()}
            return sorted({*self.specs, *(name for name, heap in self._ready.items() if heap), *delayed, *held})

    def depth(self, queue: str) -> int:
        with self.lock:
            delayed = sum(message.queue == queue for _, _, message in self._delayed)
            return len(self._ready.get(queue, ())) + delayed

    def purge(self, queue: str) -> int:
        with self.lock:
            removed = self.depth(queue)
            self._ready.pop(queue, None)
            self._delayed = [entry for entry in self._delayed if entry[-1].queue != queue]
            heapq.heapify(self._delayed)
            return removed

    def delete(self, queue: str) -> None:
        with self.lock:
            self.purge(queue)
            self.specs.pop(queue, None)
            for bound in self._bindings.values():
                for key in [key for key in bound if key[0] == queue]:
                    del bound[key]

    def take_buried(self, ids: Collection[int]) -> list[BuriedMessage]:
        """Take buried messages out; those that were there."""
        with self.lock:
            chosen = [buried for buried in self.buried if buried.id in ids]
            for buried in chosen:
                self.buried.remove(buried)
        return chosen

    def replay(self, ids: Collection[int], now: float) -> int:
        """Put buried messages back; returns how many."""
        with self.lock:
            chosen = self.take_buried(ids)
            for buried in chosen:
                priority = buried.envelope.properties.get("priority")
                rank = -priority if isinstance(priority, int) else 0
                message = Message(next(self._ids), buried.queue, rank, now, buried.envelope, buried.route)
                self._place(message, None, now)
        return len(chosen)

    # ── records ──────────────────────────────────────────────────────────────────────────────────────────────

    def write(self, records: Sequence[ResultRecord], now: float) -> None:
        with self.lock:
            for record in records:
                stored = self.records.get(record.task_id)
                if stored is not None and stored.record.status == "SUCCESS":
                    continue
                expires_at = None if record.expires_in is None else now + record.expires_in
                self.records[record.task_id] = _Stored(record, expires_at)

    def read(self, ids: Sequence[str], now: float) -> dict[str, ResultRecord]:
        found = {}
        with self.lock:
            for task_id in ids:
                stored = self.records.get(task_id)
                if stored is not None and (stored.expires_at is None or stored.expires_at > now):
                    found[task_id] = stored.record
        return found

    def tidy(self, now: float) -> int:
        """Remove what has expired; returns how many."""
        with self.lock:
            gone = [key for key, (_, at) in self.records.items() if at is not None and at <= now]
            for key in gone:
                del self.records[key]
            old = [key for key, (_, at) in self.groups.items() if at is not None and at <= now]
            for key in old:
                del self.groups[key]
            before = len(self.buried)
            self.buried = [one for one in self.buried if one.expires_at is None or one.expires_at > now]
            return len(gone) + len(old) + before - len(self.buried)

    # ── revocations ──────────────────────────────────────────────────────────────────────────────────────────

    def add_revocations(self, entries: Sequence[Revocation], kept: float, now: float) -> None:
        enough = now + fresh_ms(int(kept * 1000)) / 1000
        with self.lock:
            for entry in entries:
                for other in entry.replaced:
                    self._revoked.pop(other, None)
                _, until = self._revoked.get(entry, (0, now))
                if until <= now or until < enough:
                    self._revoked.pop(entry, None)  # to the end of the order
                    self._revoked[entry] = (next(self._revocations), now + kept)

    def read_revocations(self, mark: int, limit: int, now: float) -> News:
        with self.lock:
            for entry in [entry for entry, (_, until) in self._revoked.items() if until <= now]:
                del self._revoked[entry]
            later = [(number, entry, until) for entry, (number, until) in self._revoked.items() if number > mark]
        part = later[:limit]
        standing = [Standing(entry, until - now) for _, entry, until in part]
        return News(part[-1][0] if part else mark, standing, len(later) > limit)

    # ── fan-out ──────────────────────────────────────────────────────────────────────────────────────────────

    def listen(self, exchange: str, listener: Callable[[Envelope, Route], None]) -> None:
        """Call ``listener``, under no lock, with everything that is cast to ``exchange``."""
        with self.lock:
            self._audience.setdefault(exchange, set()).add(listener)

    def ignore(self, exchange: str, listener: Callable[[Envelope, Route], None]) -> None:
        with self.lock:
            listeners = self._audience.get(exchange, set())
            listeners.discard(listener)
            if not listeners:
                self._audience.pop(exchange, None)

    def has_audience(self, exchange: str) -> bool:
        return exchange in self._audience

    def cast(self, envelope: Envelope, route: Route) -> None:
        with self.lock:
            listeners = list(self._audience.get(route.exchange, ()))
        for listener in listeners:
            listener(envelope, route)

    # ── news ─────────────────────────────────────────────────────────────────────────────────────────────────

    def tell(self, listeners: set[Callable[[], None]]) -> None:
        """Call the listeners, outside of the lock."""
        with self.lock:
            chosen = list(listeners)
        for listener in chosen:
            listener()


def _delivery(message: Message, receipt: Receipt) -> Delivery:
    # the receiver may change the mappings it gets; the bytes are immutable
    sent = message.envelope
    envelope = type(sent)(sent.body, dict(sent.headers), dict(sent.properties))
    return Delivery(envelope, message.queue, receipt, message.route, message.attempts, message.redelivered)


_engines: dict[str, VolatileEngine] = {}
_engines_lock = threading.Lock()


def engine_named(name: str) -> VolatileEngine:
    """The engine called ``name``; the same for everybody in this process."""
    with _engines_lock:
        return _engines.setdefault(name, VolatileEngine())


def forget_engines() -> None:
    """Start with empty ones (for tests)."""
    with _engines_lock:
        _engines.clear()
