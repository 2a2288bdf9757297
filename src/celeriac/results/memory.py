"""Results in memory: one store per URL and process; the memory broker's when the URL is the same."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, ClassVar

from celeriac.embedded.volatile import engine_named
from celeriac.results.base import StoreCapabilities
from celeriac.results.waiting import Interruptions
from celeriac.rules.states import READY_STATES
from celeriac.transports.url import BrokerUrl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celeriac.clock import Clock
    from celeriac.results.base import News, ResultRecord, Revocation

#: real seconds between two looks, since expiry makes no noise
_POLL = 1.0


class MemoryStore:
    """Results of this process. URLs with the same name lead to the same store."""

    capabilities: ClassVar[StoreCapabilities] = StoreCapabilities(
        persistent=False, expires=False, watch=True, groups=True, counts_chords=False
    )

    def __init__(self, url: str, settings: object, clock: Clock) -> None:
        parsed = BrokerUrl.parse(url.removeprefix("cache+"))
        self.engine_key: tuple[str, ...] = ("memory", f"{parsed.host or ''}/{parsed.path}")
        self._engine = engine_named(self.engine_key[1])
        self._clock = clock
        self._changed = threading.Condition()
        self._changes = 0
        self._interruptions = Interruptions()
        self._engine.on_records.add(self._ring)

    def write(self, records: Sequence[ResultRecord]) -> None:
        self._engine.write(records, self._clock.time())
        self._engine.tell(self._engine.on_records)

    def read(self, ids: Sequence[str], deadline: float | None = None) -> Mapping[str, ResultRecord]:
        return self._engine.read(ids, self._clock.time())

    def forget(self, ids: Sequence[str]) -> None:
        with self._engine.lock:
            for task_id in ids:
                self._engine.records.pop(task_id, None)

    def cleanup(self) -> int:
        return self._engine.tidy(self._clock.time())

    def _ring(self) -> None:
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def watch(self, ids: Sequence[str], wait: float) -> Mapping[str, ResultRecord]:
        ends = time.monotonic() + wait
        while True:
            seen = self._changes
            ready = {key: record for key, record in self.read(ids).items() if record.status in READY_STATES}
            left = ends - time.monotonic()
            if ready or left <= 0 or self._interruptions.take():
                return ready
            with self._changed:
                if self._changes == seen:
                    self._changed.wait(min(left, _POLL))

    def interrupt(self) -> None:
        self._interruptions.add()
        self._ring()

    def save_group(self, group_id: str, payload: bytes, expires_in: float | None) -> None:
        expires_at = None if expires_in is None else self._clock.time() + expires_in
        with self._engine.lock:
            self._engine.groups[group_id] = (payload, expires_at)

    def restore_group(self, group_id: str) -> bytes | None:
        with self._engine.lock:
            payload, expires_at = self._engine.groups.get(group_id, (None, None))
        return None if expires_at is not None and expires_at <= self._clock.time() else payload

    def delete_group(self, group_id: str) -> None:
        with self._engine.lock:
            self._engine.groups.pop(group_id, None)

    def add_revocations(self, entries: Sequence[Revocation], kept: float) -> None:
        self._engine.add_revocations(entries, kept, self._clock.time())

    def read_revocations(self, mark: int, limit: int) -> News:
        return self._engine.read_revocations(mark, limit, self._clock.time())

    def close(self) -> None:
        self._engine.on_records.discard(self._ring)
