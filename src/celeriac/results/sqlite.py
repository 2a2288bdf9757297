"""Results in the embedded file; the embedded broker's when the path is the same, and then one transaction."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from celeriac.embedded import doorbell, records, revocations
from celeriac.embedded.doorbell import Doorbells
from celeriac.embedded.file import EmbeddedFile
from celeriac.embedded.location import location_of
from celeriac.embedded.messages import milliseconds
from celeriac.errors import BackendError, BackendStoreError, OperationalError
from celeriac.results.base import StoreCapabilities
from celeriac.results.waiting import Interruptions
from celeriac.rules.states import READY_STATES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from celeriac.clock import Clock
    from celeriac.results.base import News, ResultRecord, Revocation


class SqliteStore:
    """Results in a SQLite file. Construction does no I/O."""

    capabilities: ClassVar[StoreCapabilities] = StoreCapabilities(
        persistent=True, expires=False, watch=True, groups=True, counts_chords=False, max_record_bytes=1_000_000_000
    )

    def __init__(self, url: str, settings: object, clock: Clock) -> None:
        location = location_of(url)
        self.engine_key: tuple[str, ...] = ("sqlite", str(location.path))
        self._file = EmbeddedFile(location)
        self._clock = clock
        self._link = self._file.link()
        self._interruptions = Interruptions()
        self._lock = threading.Lock()
        self._bells: Doorbells | None = None
        self._idle: list[doorbell.Bell] = []
        self._watching: set[doorbell.Bell] = set()

    def write(self, records_: Sequence[ResultRecord]) -> None:
        with _as_store_error():
            records.write(self._link, records_, self._now())
            self._doorbells().ring(doorbell.RESULTS, [record.task_id for record in records_])

    def read(self, ids: Sequence[str], deadline: float | None = None) -> Mapping[str, ResultRecord]:
        with _as_backend_error():
            return records.read(self._link, ids, self._now())

    def forget(self, ids: Sequence[str]) -> None:
        with _as_store_error():
            records.forget(self._link, ids)

    def cleanup(self) -> int:
        removed = 0
        with _as_store_error():
            while bite := records.tidy(self._link, self._now()):
                removed += bite
        return removed

    # ── watching ─────────────────────────────────────────────────────────────────────────────────────────────

    def watch(self, ids: Sequence[str], wait: float) -> Mapping[str, ResultRecord]:
        """Unlike the seam asks for, several threads may watch at once."""
        ends = time.monotonic() + wait
        wanted = set(ids)
        with _as_backend_error(), self._bell() as bell:
            bell.drain()
            ready = self._ready(ids)
            while not ready and not self._interruptions.take() and (left := ends - time.monotonic()) > 0:
                heard = bell.wait(min(left, doorbell.POLL))
                named = set(heard.decode("utf-8", "surrogatepass").split("\n")) if heard else wanted
                ready = self._ready(ids if named is wanted else list(named & wanted))
            return ready

    def _ready(self, ids: Sequence[str]) -> dict[str, ResultRecord]:
        if not ids:
            return {}
        found = records.read(self._link, ids, self._now())
        return {key: record for key, record in found.items() if record.status in READY_STATES}

    def interrupt(self) -> None:
        self._interruptions.add()
        for bell in list(self._watching):
            bell.interrupt()

    @contextmanager
    def _bell(self) -> Iterator[doorbell.Bell]:
        # each step is atomic by itself; a lock could be held by another thread while this process is forked
        try:
            bell = self._idle.pop()
        except IndexError:
            bell = None
        if bell is None or bell.fileno() < 0:  # none left, or made before a fork
            bell = self._doorbells().bell(doorbell.RESULTS)
        self._watching.add(bell)
        try:
            yield bell
        finally:
            self._watching.discard(bell)
            self._idle.append(bell)

    def _doorbells(self) -> Doorbells:
        bells = self._bells
        if bells is None:
            with self._lock:
                if self._bells is None:
                    self._bells = Doorbells(self._file.path)
                bells = self._bells
        return bells

    # ── groups ───────────────────────────────────────────────────────────────────────────────────────────────

    def save_group(self, group_id: str, payload: bytes, expires_in: float | None) -> None:
        expires_at = None if expires_in is None else self._now() + milliseconds(expires_in)
        with _as_store_error():
            records.save_group(self._link, group_id, payload, expires_at)

    def restore_group(self, group_id: str) -> bytes | None:
        with _as_backend_error():
            return records.restore_group(self._link, group_id, self._now())

    def delete_group(self, group_id: str) -> None:
        with _as_store_error():
            records.delete_group(self._link, group_id)

    # ── revocations ──────────────────────────────────────────────────────────────────────────────────────────

    def add_revocations(self, entries: Sequence[Revocation], kept: float) -> None:
        with _as_store_error():
            revocations.write(self._link, entries, milliseconds(kept), self._now())

    def read_revocations(self, mark: int, limit: int) -> News:
        with _as_backend_error():
            return revocations.read(self._link, mark, limit, self._now())

    def _now(self) -> int:
        return milliseconds(self._clock.time())

    def close(self) -> None:
        bells, self._idle = self._idle, []
        for bell in bells:
            bell.close()
        self._link.close()


@contextmanager
def _as_store_error() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise BackendStoreError(str(error)) from error


@contextmanager
def _as_backend_error() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise BackendError(str(error)) from error
