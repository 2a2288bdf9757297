"""Waiting for results: one look at the store serves all threads that wait.

Among the threads inside :class:`Waiter` one leads: it watches (or polls) for everybody's ids and hands out what it
finds; when it has what it came for, another takes over. No thread is started, and the store is asked again at least
once a second however quiet its notifications are.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from celeriac.results.base import LEAST_LOOK, Watches
from celeriac.rules.states import READY_STATES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celeriac.clock import Clock
    from celeriac.results.base import ResultRecord, ResultStore

#: longest time, in seconds, between two looks at the store
LOOK = 1.0
#: first pause of a store that cannot notify, doubled up to LOOK
_FIRST_PAUSE = 0.005
#: ids that one look asks a polled store for
_POLL_BATCH = 1000


class Interruptions:
    """How one thread tells all that watch a store to look up; one that came a moment too early is not missed."""

    def __init__(self) -> None:
        self._count = 0
        self._seen = threading.local()

    def add(self) -> None:
        self._count += 1

    def take(self) -> bool:
        """Whether there was one since this thread asked last."""
        fresh = self._count != getattr(self._seen, "count", 0)
        self._seen.count = self._count
        return fresh


class Waiter:
    """Waits for the results of one store. Thread-safe, fork-safe, starts no thread."""

    def __init__(self, store: ResultStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._watcher = store if isinstance(store, Watches) else None
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        #: everybody who waits, the leader included
        self._waits: list[_Wait] = []
        self._leader: _Wait | None = None
        self._interrupted = False
        #: rung when the leader of a polled store should look at once
        self._hurry = threading.Event()

    def wait(self, ids: Sequence[str], timeout: float | None) -> Mapping[str, ResultRecord]:
        """Block until every one of ``ids`` is ready, at most ``timeout`` seconds; the ready ones there are."""
        return self._join(_Wait(ids, len(set(ids))), timeout)

    def wait_any(self, ids: Sequence[str], timeout: float | None) -> Mapping[str, ResultRecord]:
        """Block until at least one of ``ids`` is ready, at most ``timeout`` seconds; the ready ones there are.

        Made to be called again for the rest: the store stays prepared, until :meth:`rest`.
        """
        return self._join(_Wait(ids, min(1, len(ids)), again=True), timeout)

    def rest(self) -> None:
        """Nobody is going to ask for more."""
        if self._watcher is not None and not self._waits and self._pid == os.getpid():
            self._watcher.watch((), 0)

    def interrupt(self) -> None:
        """Make every wait that is going on return soon with what it has; if there is none, the next one."""
        with self._lock:
            self._interrupted = not self._waits
            for wait in self._waits:
                wait.interrupted = True
                wait.call()
        self._hurry_up()

    def _join(self, wait: _Wait, timeout: float | None) -> Mapping[str, ResultRecord]:
        if self._pid != os.getpid():  # the waits are those of the parent's threads
            self._reset()
        ends = None if timeout is None else time.monotonic() + timeout
        if self._watcher is None or timeout == 0:  # else whoever leads looks first, and in one go with listening
            wait.take(self._look(list(wait.missing), ends))
        if wait.is_over() or timeout == 0:
            return wait.found
        with self._lock:
            self._waits.append(wait)
            wait.interrupted, self._interrupted = self._interrupted, False
            leads = self._leader is None
            if leads:
                self._leader = wait
            else:
                wait.turn = threading.Event()
        try:
            if not leads:
                self._hurry_up()  # the leader does not ask for these ids yet
            while not wait.is_over():
                left = LOOK if ends is None else ends - time.monotonic()
                if left <= 0:
                    break
                if self._leader is wait:
                    self._lead(wait, min(left, LOOK), ends)
                elif wait.turn is not None:
                    wait.turn.wait(min(left, LOOK))
                    wait.turn.clear()
        finally:
            self._leave(wait)
        return wait.found

    # ── leading ──────────────────────────────────────────────────────────────────────────────────────────────

    def _lead(self, mine: _Wait, seconds: float, ends: float | None) -> None:
        with self._lock:
            if len(self._waits) == 1:
                ids = list(mine.missing)
            else:
                ids = list(dict.fromkeys(task_id for wait in self._waits for task_id in wait.missing))
        if self._watcher is not None:
            found = self._watcher.watch(ids, seconds)
        else:
            self._hurry.wait(min(seconds, mine.pause))
            self._hurry.clear()
            found = self._look(ids, ends)
            mine.pause = _FIRST_PAUSE if found else min(LOOK, mine.pause * 2)
        if found:
            with self._lock:
                for wait in self._waits:
                    if wait.take(found) and wait is not mine:
                        wait.call()

    def _look(self, ids: Sequence[str], ends: float | None) -> dict[str, ResultRecord]:
        deadline = None if ends is None else max(ends, time.monotonic() + LEAST_LOOK)
        found: dict[str, ResultRecord] = {}
        for start in range(0, len(ids), _POLL_BATCH):
            records = self._store.read(ids[start : start + _POLL_BATCH], deadline)
            found.update({key: record for key, record in records.items() if record.status in READY_STATES})
        return found

    def _leave(self, wait: _Wait) -> None:
        with self._lock:
            self._waits.remove(wait)
            if self._leader is not wait or self._hand_over():
                return
        try:
            if not wait.again and self._watcher is not None:  # nobody waits any more
                self._watcher.watch((), 0)
        finally:
            with self._lock:  # by now somebody may have come, and thinks that there is a leader
                self._hand_over()

    def _hand_over(self) -> bool:
        """Whether there was somebody to lead from now on."""
        self._leader = next((other for other in self._waits if not other.is_over()), None)
        if self._leader is not None:
            self._leader.call()
        return self._leader is not None

    def _hurry_up(self) -> None:
        if self._watcher is not None:
            self._watcher.interrupt()
        else:
            self._hurry.set()


class _Wait:
    """One thread's wait."""

    __slots__ = ("again", "enough", "found", "interrupted", "missing", "pause", "turn")

    def __init__(self, ids: Sequence[str], enough: int, again: bool = False) -> None:
        self.again = again
        self.missing = dict.fromkeys(ids)
        self.enough = enough
        self.found: dict[str, ResultRecord] = {}
        #: of who waits for another to lead; the first, who mostly stays alone, needs none
        self.turn: threading.Event | None = None
        self.interrupted = False
        self.pause = _FIRST_PAUSE

    def call(self) -> None:
        """Something has changed."""
        if self.turn is not None:
            self.turn.set()

    def is_over(self) -> bool:
        return self.interrupted or len(self.found) >= self.enough

    def take(self, records: Mapping[str, ResultRecord]) -> bool:
        """Keep those that are waited for; whether this ends the wait."""
        smaller, larger = (records, self.missing) if len(records) < len(self.missing) else (self.missing, records)
        for task_id in [task_id for task_id in smaller if task_id in larger]:
            self.found[task_id] = records[task_id]
            del self.missing[task_id]
        return self.is_over()
