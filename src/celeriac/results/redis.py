"""Results in Redis, under Celery's keys and in Celery's records, so that both read each other's."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from celeriac.errors import BackendError, BackendGetMetaError, DecodeError, ImproperlyConfigured
from celeriac.redis.checks import examine
from celeriac.redis.connect import Argument, Link, Links
from celeriac.redis.errors import VENDOR_ERRORS, Fault, LinkBroken, Translating, fault_of
from celeriac.redis.records import MAX_RECORD_BYTES, Records, RecordSettings, digest, is_success, milliseconds
from celeriac.redis.revocations import RedisRegistry
from celeriac.redis.scripts import script
from celeriac.redis.store import StoreSettings, store_address
from celeriac.redis.watching import LOOK, READ_BATCH, Line
from celeriac.results.base import LEAST_LOOK, StoreCapabilities
from celeriac.results.redis_on_loop import JUDGEMENTS, RedisLoopWriter, parts_of, too_restless
from celeriac.results.waiting import Interruptions
from celeriac.rules.states import READY_STATES
from celeriac.wire.stored_status import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celeriac.clock import Clock
    from celeriac.results.base import News, ResultRecord, Revocation
    from celeriac.settings.check import Finding

T = TypeVar("T")

#: seconds that a store which was there before may be away until those who wait are told
_PATIENCE = 10.0
#: seconds between two attempts to watch
_PAUSE = 0.1
#: seconds that the server may be silent after it was found to be away
_TROUBLED = 1.0
#: seconds that the server may be silent, however little time is left
_LEAST_PATIENCE = 0.05


class _Settings(RecordSettings, StoreSettings, Protocol):
    """What the store reads."""


class RedisStore:
    """Results in Redis or Valkey. Construction does no I/O; thread-safe, fork-safe."""

    capabilities: ClassVar[StoreCapabilities] = StoreCapabilities(
        persistent=True, expires=True, watch=True, groups=True, counts_chords=False, max_record_bytes=MAX_RECORD_BYTES
    )

    def __init__(self, url: str, settings: _Settings, clock: Clock) -> None:
        self.address = store_address(url, settings)
        self.engine_key: tuple[str, ...] = self.address.engine_key
        self._records = Records(settings, self.address.keyprefix)
        self._reading = Translating("reading", self.address.setting, self.address.shown)
        self._writing = Translating("writing", self.address.setting, self.address.shown)
        self._script = script("store")
        self._links = Links(self.address)
        self._registry = RedisRegistry(self._links, self.address.keyprefix)
        self._interruptions = Interruptions()
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._idle: list[Line] = []
        self._watching: set[Line] = set()
        #: when a watch worked last, and since when none does; 0: never, not
        self._well_at = 0.0
        self._away_since = 0.0

    # ── reading and writing ──────────────────────────────────────────────────────────────────────────────────

    def write(self, records: Sequence[ResultRecord]) -> None:
        with self._writing:
            for part in parts_of(records):
                unsure = self._store(part)
                if unsure:
                    self._store_judged(unsure)

    def _store(self, records: Sequence[ResultRecord], judged: Sequence[str] = ()) -> list[ResultRecord]:
        """One script call. Returns those that it left alone, since it cannot read what is stored."""
        keys, arguments = self._records.arguments(records, judged)
        unsure: list[int] = self._call(lambda link: self._script.run(link, keys, arguments))
        return [records[number - 1] for number in unsure]

    def _store_judged(self, records: list[ResultRecord]) -> None:
        """Look here at what the script cannot read, and replace just that."""
        for _ in range(JUDGEMENTS):
            stored = self._ask("MGET", [self._records.key(record.task_id) for record in records])
            pairs = [(record, value) for record, value in zip(records, stored, strict=True) if not is_success(value)]
            records = self._store([record for record, _ in pairs], [digest(value) for _, value in pairs])
            if not records:
                return
        raise too_restless(records)

    def loop_writer(self) -> RedisLoopWriter:
        return RedisLoopWriter(self.address, self._records, self._writing)

    def read(self, ids: Sequence[str], deadline: float | None = None) -> Mapping[str, ResultRecord]:
        found: dict[str, ResultRecord] = {}
        with self._reading:
            for part in _bites(list(dict.fromkeys(ids))):
                values = self._ask("MGET", [self._records.key(task_id) for task_id in part], deadline)
                for task_id, value in zip(part, values, strict=True):
                    if value is not None:
                        found[task_id] = self._records.record(task_id, value)
        return found

    def forget(self, ids: Sequence[str]) -> None:
        with self._writing:
            for part in _bites(ids):
                self._ask("DEL", [self._records.key(task_id) for task_id in part])

    def cleanup(self) -> int:
        """Redis removes records after their time."""
        return 0

    def _ask(self, command: str, arguments: Sequence[Argument], deadline: float | None = None) -> Any:
        return self._call(lambda link: link.call(command, *arguments), deadline)

    def _call(self, work: Callable[[Link], T], deadline: float | None = None) -> T:
        """Once more after a connection that was idle turned out to be dead: all that is done here may be repeated.

        ``deadline``: until then the server may be silent; what it says may take longer.
        """
        if self._away_since:
            # in trouble that those who wait have noticed, nobody hangs for the full time again
            deadline = min(deadline or math.inf, time.monotonic() + _TROUBLED)
        with self._link(deadline) as link:
            try:
                answer = work(link)
            except LinkBroken as error:
                again = link.reused if error.fault is Fault.UNREACHABLE else self.address.retry_on_timeout
                if not again or error.fault not in (Fault.UNREACHABLE, Fault.SLOW):
                    raise
            else:
                self._away_since = 0.0
                return answer
        with self._link(deadline) as fresh:
            return work(fresh)

    @contextmanager
    def _link(self, deadline: float | None) -> Iterator[Link]:
        with self._links.borrow(deadline) as link:
            if deadline is not None:
                link.patience = min(link.patience, max(_LEAST_PATIENCE, deadline - time.monotonic()))
            yield link

    # ── watching ─────────────────────────────────────────────────────────────────────────────────────────────

    def watch(self, ids: Sequence[str], wait: float) -> Mapping[str, ResultRecord]:
        """Unlike the seam asks for, several threads may watch at once; each has a connection of its own then.

        With no ``ids``: nobody waits any more, and no subscription is left. A connection that is lost is made anew;
        only a server that stays away is an error.
        """
        ends = time.monotonic() + wait
        if self._pid != os.getpid():  # the lines are the parent's, and go on in it
            for line in self._idle:
                line.close()
            self._reset()
        if not ids:
            self._rest()
            return {}
        names = {self._records.key(task_id): task_id for task_id in ids}
        keys = list(names)
        line = self._take_line()
        try:
            while True:
                try:
                    ready = self._watch(line, keys, names, ends)
                except VENDOR_ERRORS as error:
                    self._note_trouble(error)
                    ready = self._read_ready(ids) if fault_of(error) is Fault.UNREACHABLE else {}
                left = ends - time.monotonic()
                if ready or left <= 0 or self._interruptions.take():
                    return ready
                if self._away_since:
                    time.sleep(min(left, _PAUSE))
        finally:
            self._put_line(line)

    def _watch(self, line: Line, keys: list[bytes], names: dict[bytes, str], ends: float) -> dict[str, ResultRecord]:
        ready: dict[str, ResultRecord] = {}
        values = line.look(keys, max(ends, time.monotonic() + LEAST_LOOK))
        self._well_at, self._away_since = time.monotonic(), 0.0
        if not self._take_ready(line, values, names, ready) and (left := ends - time.monotonic()) > 0:
            self._take_ready(line, line.listen(min(left, LOOK), len(keys)), names, ready)
        return ready

    def _read_ready(self, ids: Sequence[str]) -> dict[str, ResultRecord]:
        """Without subscribing: a server cuts subscribers that are sent more than it likes (by default 32 MB)."""
        with suppress(BackendError):
            return {name: record for name, record in self.read(ids).items() if record.status in READY_STATES}
        return {}

    def _take_ready(
        self, line: Line, values: Mapping[bytes, bytes], names: dict[bytes, str], ready: dict[str, ResultRecord]
    ) -> bool:
        for key, value in values.items():
            if key in names:
                record = self._records.record(names[key], value)
                if record.status in READY_STATES:
                    ready[record.task_id] = record
                    line.spend(key)
        return len(ready) > 0

    def _note_trouble(self, error: BaseException) -> None:
        """Raise, unless the server was there a moment ago and may be back soon."""
        now = time.monotonic()
        self._away_since = self._away_since or now
        translated = self._reading.translated(error)
        lasting = not self._well_at or isinstance(translated, ImproperlyConfigured) or fault_of(error) is Fault.OTHER
        if lasting or now - self._away_since > _PATIENCE:
            self._away_since = 0.0
            raise translated from error

    def interrupt(self) -> None:
        self._interruptions.add()
        for line in list(self._watching):
            line.interrupt()

    # each step of these is atomic by itself; a lock could be held by another thread while this process is forked

    def _take_line(self) -> Line:
        try:
            line = self._idle.pop()
        except IndexError:
            line = Line(self.address)
        self._watching.add(line)
        return line

    def _put_line(self, line: Line) -> None:
        self._watching.discard(line)
        self._idle.append(line)

    def _rest(self) -> None:
        for _ in range(len(self._idle)):
            line = self._take_line()
            with suppress(*VENDOR_ERRORS):  # with a connection goes what it was subscribed to
                line.rest()
            self._put_line(line)

    # ── groups ───────────────────────────────────────────────────────────────────────────────────────────────

    def save_group(self, group_id: str, payload: bytes, expires_in: float | None) -> None:
        kept = milliseconds(expires_in)
        with self._writing:
            value = self._records.packed(payload)
            self._ask("SET", [self._records.group_key(group_id), value, *(("PX", kept) if kept else ())])

    def restore_group(self, group_id: str) -> bytes | None:
        with self._reading:
            value: bytes | None = self._ask("GET", [self._records.group_key(group_id)])
        try:
            return None if value is None else plain(value)
        except DecodeError as error:
            raise BackendGetMetaError(f"The saved group {group_id!r} cannot be read: {error}") from error

    def delete_group(self, group_id: str) -> None:
        with self._writing:
            self._ask("DEL", [self._records.group_key(group_id)])

    # ── revocations ──────────────────────────────────────────────────────────────────────────────────────────

    def add_revocations(self, entries: Sequence[Revocation], kept: float) -> None:
        with self._writing:
            self._registry.add(entries, kept)

    def read_revocations(self, mark: int, limit: int) -> News:
        with self._reading:
            return self._registry.read(mark, limit)

    # ── the server ───────────────────────────────────────────────────────────────────────────────────────────

    def examine(self) -> Sequence[Finding]:
        """Whether the server is fit to keep results: see ``redis/checks.py``."""
        return examine(self.address, "store", self._reading, channel=self._records.key(""))

    def close(self) -> None:
        self._links.close()
        if self._pid == os.getpid():
            lines, self._idle = self._idle, []
            for line in lines:
                line.close()


def _bites(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), READ_BATCH):
        yield ids[start : start + READ_BATCH]
