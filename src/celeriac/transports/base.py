"""The seam of the brokers: what a transport must do, and the values that cross it.

Publishing is blocking, consuming is asyncio (a blocking driver is bridged by ``transports/threads.py``); every
operation takes a batch, one message is a batch of one. Drivers raise only the exceptions of ``errors``:
``OperationalError`` and its kin where trying again makes sense, ``ImproperlyConfigured`` where it does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import msgspec

from celeriac.wire.envelope import Envelope, Outgoing, Route
from celeriac.wire.sealed import Heads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celeriac.wire.result_record import ResultRecord

__all__ = [
    "Ack", "Audience", "Begins", "BlockingConsumer", "Broadcast", "Buried", "Bury", "Capabilities", "Commits",
    "Consumer", "Counts", "Delivery", "Envelope", "Expects", "Graveyard", "Heard", "Keeps", "Outgoing", "Park",
    "Publisher", "QueueAdmin", "QueueBox", "QueueCounts", "QueueSpec", "Redirects", "Release", "Route", "Settlement",
    "Subscription", "Taken", "Transport", "Verdict",
]  # fmt: skip

#: what a driver uses to find a message again; opaque to everybody else
Receipt = Any


class QueueSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A queue and how it is bound, as ``task_queues`` declares it."""

    name: str
    exchange: str = ""
    exchange_type: str = "direct"
    routing_key: str = ""
    durable: bool = True
    auto_delete: bool = False
    exclusive: bool = False
    max_priority: int | None = None
    expires: float | None = None  #: seconds without use after which the queue goes away
    message_ttl: float | None = None  #: seconds
    arguments: dict[str, Any] = {}
    binding_arguments: dict[str, Any] = {}


class Delivery(msgspec.Struct, array_like=True, gc=False):
    """A message that this process holds until it settles it."""

    #: as the driver has read it; one that keeps kombu's JSON may leave it unopened
    message: Envelope | Heads
    queue: str
    receipt: Receipt
    route: Route
    #: how often the message was *started* before and not settled; None: the broker does not count
    attempt: int | None = None
    redelivered: bool = False
    #: raw bytes and reason when the driver could not even parse the envelope: to be buried as quarantine, unread
    malformed: str | None = None

    @property
    def envelope(self) -> Envelope:
        """The message, opened. Raises ``MessageError`` when that shows that it is none."""
        message = self.message
        if type(message) is Heads:
            message = self.message = message.opened()
        return message  # type: ignore[return-value]  # narrowing by type(), as everywhere on this path


class Ack(msgspec.Struct, frozen=True, tag=True):
    """Done: the message goes away."""


class Release(msgspec.Struct, frozen=True, tag=True):
    """Give it back to the head of its queue. ``count_attempt``: it had been started and its process was lost."""

    count_attempt: bool = False


class Park(msgspec.Struct, frozen=True, tag=True):
    """Give it back, to be delivered again not before ``until`` (seconds since the epoch).

    ``until`` is by the clock of whoever says so. A broker with a clock of its own keeps the message until then by
    both: if it went by its own alone, a worker that is behind would get back at once what it can't start yet.
    """

    until: float
    count_attempt: bool = False
    relative: bool = False  #: what counts is how long it is away, not what hour it is then by the broker's clock


class Bury(msgspec.Struct, frozen=True, tag=True):
    """Set it aside, bytes unchanged. ``quarantine``: it could not be understood; else it is a dead letter."""

    reason: str
    quarantine: bool = False
    worker: str = ""


Verdict = Ack | Release | Park | Bury

ACK = Ack()
RELEASE = Release()
RELEASE_COUNTED = Release(count_attempt=True)


class Settlement(msgspec.Struct, array_like=True, gc=False):
    """What the broker is told about a held message."""

    receipt: Receipt
    verdict: Verdict


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about a driver, not wishes: the engine, the conformance suite and the docs read them."""

    leases: bool  #: a held message comes back by itself when its holder disappears
    delays: bool  #: ``Outgoing.not_before`` and ``Park`` are kept by the broker
    priorities: int  #: how many levels are told apart; 0: none
    highest_priority_first: bool = True  #: False: the lower number is the more urgent (Redis)
    fanout: bool
    counts_attempts: bool
    confirms: bool  #: a normal return of ``publish`` means the broker has it
    dead_letters: bool
    ordered: bool
    survives_restart: bool
    celery: bool = False  #: workers of Celery's may be on the same broker
    max_batch: int
    max_delay: float | None = None  #: seconds; None: unlimited
    #: seconds; how exactly a delay is kept. A message may come this much early, and the worker holds it till its time
    delay_resolution: float = 0.0
    max_body_bytes: int | None = None


class Publisher(Protocol):
    """Sends. Blocking, thread-safe."""

    def publish(self, batch: Sequence[Outgoing], deadline: float) -> None:
        """Hand the batch over. Returns once the broker has accepted every message.

        ``deadline``: on ``time.monotonic()``. Raises ``PublishRejected`` (nothing is stored), ``PublishUnknown``
        (perhaps stored; the same ids may be sent again), ``BrokerFull``, ``BrokerUnavailable``, ``Unroutable``.
        """
        ...

    def close(self) -> None: ...


@runtime_checkable
class Begins(Protocol):
    """Optional, on a Publisher: :meth:`Publisher.publish` in two steps, so that the broker works while the caller
    makes the next batch."""

    def begin(self, batch: Sequence[Outgoing], deadline: float) -> Callable[[], None]:
        """Hand the batch over. What is returned must be called once, soon and in the same thread: it waits until
        every message is accepted. Both raise what ``publish`` raises."""
        ...


class Consumer(Protocol):
    """Receives and settles. Asyncio, one owner."""

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Up to ``limit`` messages; waits up to ``wait`` seconds for the first, then returns what there is."""
        ...

    async def settle(self, batch: Sequence[Settlement]) -> Sequence[Receipt]:
        """Tell the broker. Returns the receipts that were no longer ours (their settlement did nothing)."""
        ...

    async def renew(self, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        """Prolong the leases. Returns the receipts that are lost."""
        ...

    async def close(self) -> None:
        """Stop receiving; what is held and unsettled is given back. Idempotent."""
        ...


class BlockingConsumer(Protocol):
    """The same three verbs for a vendor library that blocks; ``transports/threads.py`` makes a Consumer of it.

    ``receive`` is called from one thread, ``settle`` and ``renew`` (and ``commit``) from another, unless
    ``same_lane`` is true: then all come from one.
    """

    same_lane: bool

    def receive(self, limit: int, wait: float) -> Sequence[Delivery]: ...
    def settle(self, batch: Sequence[Settlement]) -> Sequence[Receipt]: ...
    def renew(self, receipts: Sequence[Receipt]) -> Sequence[Receipt]: ...
    def interrupt(self) -> None:
        """Make a waiting ``receive`` return soon. Called from any thread."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Commits(Consumer, Protocol):
    """Optional, on a Consumer whose engine is also the result store: the whole settlement in one transaction."""

    async def commit(
        self, results: Sequence[ResultRecord], sends: Sequence[Outgoing], settlements: Sequence[Settlement]
    ) -> Sequence[Receipt]:
        """Results, follow-up sends and settlements become visible together or not at all.

        Returns the receipts that were no longer ours; a lost receipt does not undo the others.
        """
        ...


@runtime_checkable
class Keeps(Consumer, Protocol):
    """Optional, on a Consumer whose receipts outlive it."""

    async def close_keeping(self, receipts: Sequence[Receipt]) -> None:
        """As :meth:`Consumer.close`, but these stay held: the next consumer of the same transport renews and settles
        them, and its ``close`` gives back what is left of them."""
        ...


@runtime_checkable
class Redirects(Consumer, Protocol):
    """Optional, on a Consumer that can be given other queues while it holds messages."""

    async def redirect(self, queues: Sequence[QueueSpec]) -> bool:
        """Receive from these from now on; what is held stays held. False: this one can't, build another."""
        ...


class QueueAdmin(Protocol):
    """Looks after queues. Blocking, thread-safe."""

    def declare(self, queues: Sequence[QueueSpec]) -> None: ...
    def delete(self, queue: str) -> None: ...
    def purge(self, queue: str) -> int:
        """Remove every waiting message; returns how many."""
        ...

    def depth(self, queue: str) -> int:
        """How many messages wait (due or delayed), those held by a worker not counted."""
        ...

    def queues(self) -> Sequence[str]:
        """The names of the queues there are."""
        ...

    def close(self) -> None: ...


class QueueCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The messages of a queue, by what they wait for."""

    waiting: int  #: due now
    delayed: int | None  #: not before their time; None: the broker does not tell
    held: int | None  #: claimed by a worker; None: the broker does not tell
    dead: int
    quarantined: int


@runtime_checkable
class Counts(Protocol):
    """Optional, on a QueueAdmin: tells apart what :meth:`QueueAdmin.depth` adds up, for people who look."""

    def counts(self, queue: str) -> QueueCounts: ...


class Buried(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter or a quarantined message, kept in full."""

    id: str  #: unique within its broker; what people type to replay or discard it
    queue: str  #: where it came from, and where a replay puts it
    quarantined: bool  #: it could not be understood; else it is a dead letter
    reason: str
    worker: str
    buried_at: float  #: seconds since the epoch
    attempts: int | None = None  #: starts; None: not counted
    envelope: Envelope | None = None  #: None: not even that could be read
    raw: bytes = b""  #: the bytes as they were received, or the body where the broker keeps the envelope apart


@runtime_checkable
class Graveyard(Protocol):
    """Optional, on a QueueAdmin: looks into what was set aside and takes it out again. Blocking, thread-safe."""

    def buried(self, queues: Sequence[str], limit: int) -> Sequence[Buried]:
        """The newest of these queues, newest first; nothing is moved."""
        ...

    def replay(self, chosen: Sequence[Buried]) -> int:
        """Put them back into their queues, bytes unchanged and attempts forgotten; how many were still there."""
        ...

    def discard(self, chosen: Sequence[Buried]) -> int:
        """Throw them away; how many were still there."""
        ...


class Stranded(msgspec.Struct, frozen=True, kw_only=True):
    """A message that a worker of another product took and did not settle."""

    id: str
    queue: str
    task: str  #: "" if that is not known
    taken_at: float | None  #: seconds since the epoch


@runtime_checkable
class Rescues(Protocol):
    """Optional, on a QueueAdmin: gives back what workers of Celery left behind when they were replaced by ours."""

    def stranded(self, older_than: float) -> Sequence[Stranded]:
        """Messages that were taken more than ``older_than`` seconds ago, the oldest first."""
        ...

    def rescue(self, older_than: float) -> int:
        """Give them back to the front of their queues; how many."""
        ...

    def undelay(self, queue: str) -> int:
        """Put what waits for its time where workers of Celery find it, who hold it till then themselves; how many."""
        ...


class Heard(msgspec.Struct, array_like=True, gc=False):
    """What a :class:`Subscription` hands out."""

    envelope: Envelope
    route: Route
    #: why it is no message at all, and to be counted only; its envelope is then empty, whatever came
    malformed: str | None = None


class Subscription(Protocol):
    """A queue of its own that is fed by an exchange, and gone when it is closed. Blocking; one thread receives."""

    def receive(self, limit: int, wait: float) -> Sequence[Heard]:
        """Up to ``limit`` messages; waits up to ``wait`` seconds for the first, then returns what there is."""
        ...

    def interrupt(self) -> None:
        """Make a waiting ``receive`` return soon. Called from any thread."""
        ...

    def close(self) -> None: ...


class Broadcast(Protocol):
    """Fan-out and replies, for events and remote control. At most once, never stored for long. Thread-safe.

    Exchanges are named by the routes and queue declarations that use them (``exchange_type`` fanout, topic or
    direct), as Celery's pidbox and event exchanges are; a message that nobody has subscribed to vanishes.
    """

    def publish(self, batch: Sequence[Outgoing], deadline: float) -> None:
        """``deadline``: on ``time.monotonic()``. Raises ``OperationalError`` and its kin."""
        ...

    def subscribe(self, queue: QueueSpec, keys: Sequence[str] = ()) -> Subscription:
        """Declare ``queue`` and bind it to its exchange, for its own routing key or for all of ``keys``.

        What is published after the return is received. Blocking.
        """
        ...

    def close(self) -> None: ...


@runtime_checkable
class Audience(Protocol):
    """Optional, on a Broadcast that can tell in microseconds whether a message would vanish."""

    def anybody(self, exchange: str) -> bool:
        """False: nobody has subscribed to ``exchange``, so what would be published need not even be written down."""
        ...


class Transport(Protocol):
    """A broker. Construct with ``(url, settings, clock)``; construction does no I/O."""

    capabilities: ClassVar[Capabilities]

    #: names the engine and its address; equal to the result store's when both can share a transaction
    engine_key: tuple[str, ...]

    def publisher(self) -> Publisher: ...
    def consumer(self, queues: Sequence[QueueSpec], owner: str) -> Consumer: ...
    def admin(self) -> QueueAdmin: ...
    def broadcast(self) -> Broadcast: ...
    def close(self) -> None: ...


@runtime_checkable
class Expects(Protocol):
    """Optional, on a Transport that declares a queue when something is first sent to it by name."""

    def expect(self, queue_of: Callable[[str], QueueSpec]) -> None:
        """``queue_of``: a name → its declaration, or ``QueueNotFound`` where none may be made up. No I/O."""
        ...


class Taken(msgspec.Struct, array_like=True, gc=False):
    """What a :class:`QueueBox` hands out."""

    queue: str
    receipt: Receipt
    payload: bytes
    attempt: int | None = None


class QueueBox(Protocol):
    """The easy way in: six blocking methods; ``transports/box.py`` makes a full Transport of them."""

    def put(self, queue: str, items: Sequence[bytes]) -> None: ...
    def take(self, queues: Sequence[str], limit: int, wait: float) -> Sequence[Taken]: ...
    def done(self, receipts: Sequence[Receipt]) -> None: ...
    def give_back(self, receipts: Sequence[Receipt]) -> None: ...
    def count(self, queue: str) -> int: ...
    def purge(self, queue: str) -> int: ...
