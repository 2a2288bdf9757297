"""Waiting for results: in the calling thread, or from coroutines through one thread for all that is outstanding.

The store is the truth; ``results/waiting.py`` knows how to look for news cheaply, for all threads at once.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from celeriac.results.waiting import Waiter

if TYPE_CHECKING:
    import asyncio

    from celeriac.clock import Clock
    from celeriac.results.base import ResultRecord, ResultStore

#: longest the thread for coroutines waits, in seconds, before it looks who still waits
SLICE = 1.0
#: seconds without anybody waiting after which the thread for coroutines ends
IDLE = 10.0


class Tracker:
    """Waits for results of one store. One per app; thread-safe, fork-safe."""

    def __init__(self, store: Callable[[], ResultStore], clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._waiter: Waiter | None = None
        self._followed: Waiter | None = None
        self._changed = threading.Condition()
        self._waits: dict[str, list[_Wait]] = {}
        self._thread: threading.Thread | None = None

    def _current(self) -> Waiter:
        if self._pid != os.getpid():
            self._reset()
        if self._waiter is None:
            self._waiter = Waiter(self._store(), self._clock)
        return self._waiter

    # ── in the calling thread ────────────────────────────────────────────────────────────────────────────────

    def wait(self, ids: Sequence[str], timeout: float | None) -> Mapping[str, ResultRecord]:
        """Block until every one of ``ids`` is ready or ``timeout`` seconds are over; the ready ones there are."""
        return self._current().wait(ids, timeout)

    def wait_any(self, ids: Sequence[str], timeout: float | None) -> Mapping[str, ResultRecord]:
        """Block until at least one of ``ids`` is ready or ``timeout`` seconds are over. At last call :meth:`rest`."""
        return self._current().wait_any(ids, timeout)

    def rest(self) -> None:
        """No more is to be asked by :meth:`wait_any`."""
        self._current().rest()

    # ── from coroutines ──────────────────────────────────────────────────────────────────────────────────────

    async def await_all(self, ids: Collection[str], timeout: float | None) -> Mapping[str, ResultRecord]:
        """:meth:`wait` for coroutines: the ready ones of ``ids`` when all are, or when the time is over."""
        import asyncio

        wait = _Wait(set(ids), asyncio.get_running_loop())
        self._follow(wait)
        try:
            async with asyncio.timeout(timeout):
                await wait.future
        except TimeoutError:
            pass
        finally:
            self._unfollow(wait)
        return dict(wait.found)

    def _follow(self, wait: _Wait) -> None:
        if self._pid != os.getpid():
            self._reset()
        with self._changed:
            for task_id in wait.missing:
                self._waits.setdefault(task_id, []).append(wait)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="celeriac-tracker", daemon=True)
                self._thread.start()
            self._changed.notify()
            followed = self._followed
        if followed is not None:
            followed.interrupt()

    def _unfollow(self, wait: _Wait) -> None:
        with self._changed:
            for task_id in list(wait.missing):
                waits = self._waits.get(task_id, [])
                if wait in waits:
                    waits.remove(wait)
                if not waits:
                    self._waits.pop(task_id, None)

    def _run(self) -> None:
        # its own waiter: a coroutine's wait must not be interrupted on behalf of a blocking one, nor the other way
        waiter = Waiter(self._store(), self._clock)
        self._followed = waiter
        while True:
            ids = self._outstanding()
            if not ids:
                _rest(waiter)
                ids = self._outstanding(IDLE)
                if not ids:
                    return
            try:
                found = waiter.wait_any(ids, SLICE)
            except Exception as error:
                self._fail(ids, error)
            else:
                self._deliver(found)

    def _outstanding(self, wait: float = 0.0) -> list[str]:
        """What coroutines wait for; nothing after ``wait`` seconds means that this thread ends."""
        with self._changed:
            if wait and not self._changed.wait_for(lambda: self._waits, timeout=wait):
                self._thread = self._followed = None
            return list(self._waits)

    def _deliver(self, found: Mapping[str, ResultRecord]) -> None:
        finished: list[_Wait] = []
        with self._changed:
            for task_id, record in found.items():
                for wait in self._waits.pop(task_id, ()):
                    wait.found[task_id] = record
                    wait.missing.discard(task_id)
                    if not wait.missing:
                        finished.append(wait)
        _tell(finished, None)

    def _fail(self, ids: Sequence[str], error: Exception) -> None:
        with self._changed:
            hit = {id(wait): wait for task_id in ids for wait in self._waits.pop(task_id, ())}
        _tell(list(hit.values()), error)


def _rest(waiter: Waiter) -> None:
    with contextlib.suppress(Exception):  # nobody is there to be told
        waiter.rest()


class _Wait:
    """One coroutine's wait."""

    __slots__ = ("found", "future", "loop", "missing")

    def __init__(self, ids: set[str], loop: asyncio.AbstractEventLoop) -> None:
        self.missing = ids
        self.found: dict[str, ResultRecord] = {}
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()
        if not ids:
            self.future.set_result(None)


def _tell(waits: Sequence[_Wait], error: Exception | None) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[_Wait]] = {}
    for wait in waits:
        by_loop.setdefault(wait.loop, []).append(wait)
    for loop, theirs in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, theirs, error)
        except RuntimeError:  # the loop is closed: nobody waits any more
            continue


def _resolve(waits: Sequence[_Wait], error: Exception | None) -> None:
    for wait in waits:
        if wait.future.done():
            continue
        if error is None:
            wait.future.set_result(None)
        else:
            wait.future.set_exception(error)
