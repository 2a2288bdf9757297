"""The embedded broker: queues in a SQLite file, shared by the processes of one machine, no server.

Durable (a publish returns after the disk has it), leased, ordered, with priorities, delays, dead letters, and one
transaction for results, follow-ups and acknowledgements where the result store is the same file. How the file is
laid out and moved: ``embedded/``.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from typing import TYPE_CHECKING, ClassVar, Protocol

import msgspec

from celeriac.embedded import doorbell, messages, records, revocations
from celeriac.embedded.doorbell import Doorbells
from celeriac.embedded.faults import full
from celeriac.embedded.file import EmbeddedFile
from celeriac.embedded.group_commit import GroupCommit
from celeriac.embedded.holders import Life, recover
from celeriac.embedded.location import location_of
from celeriac.embedded.messages import milliseconds
from celeriac.errors import BackendError, OperationalError, PublishRejected
from celeriac.transports.base import Capabilities
from celeriac.transports.bindings import Binding, destinations
from celeriac.transports.sqlite_broadcast import SqliteBroadcast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.clock import Clock
    from celeriac.embedded.file import Link
    from celeriac.embedded.messages import Receipt, Row
    from celeriac.transports.base import Buried, Delivery, Outgoing, QueueCounts, QueueSpec, Settlement
    from celeriac.transports.threads import CommittingConsumer
    from celeriac.wire.envelope import Route
    from celeriac.wire.result_record import ResultRecord
    from celeriac.wire.revocation import News, Revocation

#: seconds between two looks for expired results and dead letters
_TIDY_INTERVAL = 5.0
#: seconds between two looks for consumers that have vanished
_HOLDERS_INTERVAL = 2.0
#: bits of a token that count a consumer's claims; the upper ones tell consumers apart
_TOKEN_COUNTER_BITS = 32


class SqliteSettings(Protocol):
    """What of the broker settings this driver reads."""

    broker_lease: float
    broker_max_message_bytes: int
    task_dead_letter_expires: float


class SqliteTransport:
    """The embedded broker. Construction does no I/O."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        leases=True, delays=True, priorities=1 << 31, fanout=True, counts_attempts=True, confirms=True,
        dead_letters=True, ordered=True, survives_restart=True, max_batch=10_000, max_body_bytes=1_000_000_000,
    )  # fmt: skip

    def __init__(self, url: str, settings: SqliteSettings, clock: Clock) -> None:
        location = location_of(url)
        self.engine_key: tuple[str, ...] = ("sqlite", str(location.path))
        self._file = EmbeddedFile(location)
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._bells: Doorbells | None = None
        self._link: Link | None = None
        #: of consumers that were closed while tasks of theirs ran, with the receipts of those
        self.kept: list[tuple[Life, Sequence[Receipt]]] = []

    def bells(self) -> Doorbells:
        bells = self._bells
        if bells is None:  # the lock only once: a process forked while it is held would wait for ever
            with self._lock:
                if self._bells is None:
                    self._bells = Doorbells(self._file.path)
                bells = self._bells
        return bells

    def publisher(self) -> SqlitePublisher:
        return SqlitePublisher(self, self._file, self._settings, self._clock)

    def consumer(self, queues: Sequence[QueueSpec], owner: str) -> CommittingConsumer:
        inner = SqliteConsumer(self, self._file, [queue.name for queue in queues], self._settings, self._clock)
        from celeriac.transports.threads import CommittingConsumer  # asyncio: who only sends is spared it

        return CommittingConsumer(inner, owner)

    def blocking_consumer(self, queues: Sequence[QueueSpec]) -> SqliteConsumer:
        """The consumer without its threads, for programs that have their own."""
        return SqliteConsumer(self, self._file, [queue.name for queue in queues], self._settings, self._clock)

    def admin(self) -> SqliteAdmin:
        return SqliteAdmin(self, self._file, self._clock)

    def broadcast(self) -> SqliteBroadcast:
        link = self._file.link(durable=False)  # what a power cut takes would be forgotten within a minute anyway
        return SqliteBroadcast(link, self.bells, self._settings.broker_max_message_bytes, self._clock)

    def add_revocations(self, entries: Sequence[Revocation], kept: float) -> None:
        revocations.write(self._registry(), entries, milliseconds(kept), milliseconds(self._clock.time()))

    def read_revocations(self, mark: int, limit: int) -> News:
        return revocations.read(self._registry(), mark, limit, milliseconds(self._clock.time()))

    def _registry(self) -> Link:
        if self._link is None:  # two threads may both make one: the lock is not worth a process forked under it
            self._link = self._file.link(procedures=False)
        return self._link

    def close(self) -> None:
        """Publishers, consumers and admins close their own."""
        link, self._link = self._link, None
        if link is not None:
            link.close()


class Rows:
    """Turns outgoing messages into rows."""

    def __init__(self, link: Link, max_bytes: int, clock: Clock) -> None:
        self._link = link
        self._max_bytes = max_bytes
        self._clock = clock

    def of(self, batch: Sequence[Outgoing]) -> list[Row]:
        """Raises ``PublishRejected`` (and ``Unroutable``) before anything is stored."""
        now = milliseconds(self._clock.time())
        routed: dict[Route, list[str]] = {}
        rows: list[Row] = []
        for outgoing in batch:
            envelope, route = outgoing.envelope, outgoing.route
            try:
                meta = messages.encode_meta(envelope, route)
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                raise PublishRejected(f"The headers of a message cannot be written: {error}") from error
            size = len(meta) + len(envelope.body)
            if size > self._max_bytes:
                raise PublishRejected(
                    f"A message has {size} bytes; broker_max_message_bytes allows {self._max_bytes}. Store the data "
                    f"elsewhere and send a reference, or raise the setting."
                )
            until = None if outgoing.not_before is None else milliseconds(outgoing.not_before)
            if until is not None and until <= now:
                until = None
            rank = messages.rank_of(envelope)
            if not route.exchange:
                rows.append((route.routing_key, rank, now, until, meta, envelope.body))
                continue
            if route not in routed:
                routed[route] = self._destinations(route)
            rows.extend((queue, rank, now, until, meta, envelope.body) for queue in routed[route])
        return rows

    def _destinations(self, route: Route) -> list[str]:
        return destinations(route, [Binding(*row) for row in messages.bindings(self._link, route.exchange)])


class SqlitePublisher:
    """Sends; thread-safe, fork-safe. Threads that publish at the same time share a commit."""

    def __init__(self, transport: SqliteTransport, file: EmbeddedFile, settings: SqliteSettings, clock: Clock) -> None:
        self._transport = transport
        self._file = file
        self._clock = clock
        self._link = file.link()
        self._commit = GroupCommit(self._link)
        self._rows = Rows(self._link, settings.broker_max_message_bytes, clock)

    def publish(self, batch: Sequence[Outgoing], deadline: float) -> None:
        rows = self._rows.of(batch)
        if not rows:
            return
        if not self._file.reserve.restore():
            # the last bytes of the disk belong to the settling of what is queued already
            raise full(self._file.path)
        self._commit.send(rows, deadline - time.monotonic())
        self._transport.bells().ring(doorbell.QUEUES, {row[0] for row in rows})

    def close(self) -> None:
        self._link.close()


class SqliteConsumer:
    """The blocking consumer: one thread receives, one settles (``transports/threads.py``).

    Claims and renewals go over a connection that does not wait for the disk: a claim that a power cut takes back only
    makes the message visible again. Settlements do wait.
    """

    same_lane = False

    def __init__(
        self, transport: SqliteTransport, file: EmbeddedFile, queues: Sequence[str], settings: SqliteSettings,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._transport = transport
        self._file = file
        self._queues = list(dict.fromkeys(queues))
        self._queues_json = msgspec.json.encode(self._queues).decode()
        self._settings = settings
        self._clock = clock
        self._claims = file.link(durable=False)
        self._settlements = file.link(durable=True)
        self._rows = Rows(self._settlements, settings.broker_max_message_bytes, clock)
        self._first_token = random.SystemRandom().getrandbits(62 - _TOKEN_COUNTER_BITS) << _TOKEN_COUNTER_BITS
        self._last_token = self._first_token + (1 << _TOKEN_COUNTER_BITS) - 1
        self._token = self._first_token
        self._life: Life | None = None
        self._looked_for_gone_at = float("-inf")
        self._bell: doorbell.Bell | None = None
        self._interrupted = threading.Event()
        self._closed = False
        #: queues to try without looking first, since the last claim from them was a full one
        self._promising: list[str] = []
        self._next_due: int | None = 0
        self._tidied_at = 0.0
        #: the wall clock minus the monotonic one when we looked last, ms
        self._offset: int | None = None
        self._trusted_at = 0  #: monotonic, ms

    # ── the receiving lane ───────────────────────────────────────────────────────────────────────────────────

    def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        ends = time.monotonic() + wait
        try:
            while True:
                if self._bell is not None:
                    self._bell.drain()
                found = self._claim(limit)
                left = ends - time.monotonic()
                if found or left <= 0 or self._closed or self._interrupted.is_set():
                    return found
                if self._bell is None:
                    self._bell = self._transport.bells().bell(doorbell.QUEUES)
                    continue  # what came while there was no bell
                self._sleep(self._bell, ends)
        finally:
            self._interrupted.clear()

    def _sleep(self, bell: doorbell.Bell, ends: float) -> None:
        """Until something may have come for these queues, the next thing is due, or it is time to look anyway."""
        look_at = time.monotonic() + doorbell.POLL
        if self._next_due is not None:
            look_at = min(look_at, time.monotonic() + max(0.001, self._next_due / 1000 - self._clock.time()))
        look_at = min(look_at, ends)
        while not self._interrupted.is_set() and (left := look_at - time.monotonic()) > 0:
            heard = bell.wait(left)
            if heard is not None and (not heard or self._concerns(heard)):
                return

    def _concerns(self, heard: bytes) -> bool:
        return not set(heard.decode("utf-8", "surrogatepass").split("\n")).isdisjoint(self._queues)

    def _recover(self) -> None:
        """Let others see at once when this process is gone, and give back what vanished consumers held."""
        if self._life is None:
            self._life = Life(self._file.path, self._first_token, self._last_token)
            self._life.begin(self._claims)
        for entry in list(self._transport.kept):
            life, receipts = entry
            if life.leave(self._claims, receipts):
                self._transport.kept.remove(entry)
        if recover(self._claims, self._file.path, self._life):
            self._promising.clear()

    def _claim(self, limit: int) -> list[Delivery]:
        if time.monotonic() - self._looked_for_gone_at > _HOLDERS_INTERVAL:
            self._looked_for_gone_at = time.monotonic()
            self._recover()
        now = milliseconds(self._clock.time())
        if self._next_due is not None and now >= self._next_due:
            messages.sweep(self._claims, now, self._lapsed(now))
            self._promising.clear()
        if not self._promising:
            self._promising = self._in_turn(self._look(now))
            if self._next_due is not None and now >= self._next_due:
                messages.sweep(self._claims, now, self._lapsed(now))
                self._promising = self._in_turn(self._look(now))
        found: list[Delivery] = []
        until = now + milliseconds(self._settings.broker_lease)
        while self._promising and len(found) < limit:
            queue = self._promising[0]
            room = limit - len(found)
            self._token += 1
            try:
                claimed = messages.claim(self._claims, queue, self._token, until, room)
            except OperationalError:
                if found:  # these are held already; the next call meets the error again
                    return found
                raise
            found.extend(claimed)
            if len(claimed) < room or len(self._queues) > 1:
                self._promising.pop(0)  # empty now, or the others' turn
        return found

    def _look(self, now: int) -> list[str]:
        """The queues that have something; and note when there will be more."""
        outlook = messages.outlook(self._claims, self._queues_json)
        moments = [outlook.next_due, outlook.next_lapse if self._lapsed(now) else None]
        self._next_due = min((moment for moment in moments if moment is not None), default=None)
        return outlook.busy_queues

    def _lapsed(self, now: int) -> int:
        """Leases that ended before this time are over.

        When the wall clock jumps ahead (it was set, or the machine was asleep), all leases seem to be over at once;
        their holders get the time of a lease to renew them.
        """
        monotonic = milliseconds(self._clock.monotonic())
        offset, self._offset = self._offset, milliseconds(self._clock.time()) - monotonic
        lease = milliseconds(self._settings.broker_lease)
        if offset is not None and self._offset - offset > lease // 2:
            self._trusted_at = monotonic + lease
        return now if monotonic >= self._trusted_at else 0

    def _in_turn(self, queues: list[str]) -> list[str]:
        """Begin with another queue each time, so that a long one starves nobody."""
        if len(queues) < 2:
            return queues
        start = self._token % len(queues)
        return queues[start:] + queues[:start]

    def interrupt(self) -> None:
        self._interrupted.set()
        if self._bell is not None:
            self._bell.interrupt()

    def redirect(self, queues: Sequence[QueueSpec]) -> None:
        """Receive from these from now on. In the thread that receives."""
        self._queues = list(dict.fromkeys(queue.name for queue in queues))
        self._queues_json = msgspec.json.encode(self._queues).decode()
        self._promising.clear()
        self._next_due = 0

    # ── the settling lane ────────────────────────────────────────────────────────────────────────────────────

    def settle(self, batch: Sequence[Settlement]) -> Sequence[Receipt]:
        return self.commit((), (), batch)

    def commit(
        self, results: Sequence[ResultRecord], sends: Sequence[Outgoing], settlements: Sequence[Settlement]
    ) -> Sequence[Receipt]:
        now = milliseconds(self._clock.time())
        verdicts = messages.sort_verdicts(settlements, now, self._buried_until(now))
        rows = self._rows.of(sends) if sends else []
        lost = records.settle(self._settlements, results, rows, verdicts, now)
        bells = self._transport.bells()
        if rows:
            bells.ring(doorbell.QUEUES, {row[0] for row in rows})
        elif verdicts.returns:
            bells.ring(doorbell.QUEUES)
        if results:
            bells.ring(doorbell.RESULTS, [record.task_id for record in results])
        self._tidy(now)
        return lost

    def _buried_until(self, now: int) -> int | None:
        kept = self._settings.task_dead_letter_expires
        return now + milliseconds(kept) if kept else None

    def _tidy(self, now: int) -> None:
        if abs(now / 1000 - self._tidied_at) < _TIDY_INTERVAL:
            return
        self._tidied_at = now / 1000
        # what has been settled stays settled whatever becomes of the dust
        with contextlib.suppress(OperationalError, BackendError):
            records.tidy(self._settlements, now)

    def renew(self, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        if not receipts:
            return []
        until = milliseconds(self._clock.time() + self._settings.broker_lease)
        return messages.renew(self._claims, receipts, until)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────

    def close(self) -> None:
        kept, self._transport.kept = self._transport.kept, []
        self._end((), [life for life, _ in kept])

    def close_keeping(self, receipts: Sequence[Receipt]) -> None:
        """As :meth:`close`, but ``receipts`` stay held, to be renewed and settled through another consumer."""
        self._end(receipts, [])

    def _end(self, kept: Sequence[Receipt], lives: list[Life]) -> None:
        if self._closed:
            return
        self._closed = True
        self.interrupt()
        if self._life is not None:
            if kept:
                self._transport.kept.append((self._life, kept))
            lives.append(self._life)
        try:
            for life in lives:
                if life.leave(self._settlements, kept) and kept:
                    self._transport.kept.remove((life, kept))
            self._transport.bells().ring(doorbell.QUEUES)
        finally:
            if not kept:
                for life in lives:
                    life.abandon()
            if self._bell is not None:
                self._bell.close()
            self._claims.close()
            self._settlements.close()


class SqliteAdmin:
    """Looks after queues and the buried. Blocking, thread-safe."""

    def __init__(self, transport: SqliteTransport, file: EmbeddedFile, clock: Clock) -> None:
        self._transport = transport
        self._clock = clock
        self._link = file.link()

    def declare(self, queues: Sequence[QueueSpec]) -> None:
        messages.declare(self._link, queues)

    def delete(self, queue: str) -> None:
        messages.delete(self._link, queue)

    def purge(self, queue: str) -> int:
        return messages.purge(self._link, queue)

    def depth(self, queue: str) -> int:
        return messages.depth(self._link, queue)

    def counts(self, queue: str) -> QueueCounts:
        return messages.counts(self._link, queue, milliseconds(self._clock.time()))

    def queues(self) -> Sequence[str]:
        return messages.names(self._link)

    def buried(self, queues: Sequence[str], limit: int) -> Sequence[Buried]:
        return messages.buried(self._link, queues, limit)

    def replay(self, chosen: Sequence[Buried]) -> int:
        queues = messages.replay(self._link, [int(one.id) for one in chosen], milliseconds(self._clock.time()))
        self._transport.bells().ring(doorbell.QUEUES, set(queues))
        return len(queues)

    def discard(self, chosen: Sequence[Buried]) -> int:
        return messages.discard(self._link, [int(one.id) for one in chosen])

    def close(self) -> None:
        self._link.close()
