"""``-P solo``: tasks run in the worker's own process, one at a time, for debugging.

In a thread of their own, so that the worker's heartbeats and leases go on. There is no process to kill: hard time
limits on tasks are refused at the start; a hard limit that comes with a message, and a hard cancellation, only raise
in the task.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from typing import TYPE_CHECKING

from celeriac import plugins
from celeriac.clock import SYSTEM_CLOCK, Clock
from celeriac.errors import ImproperlyConfigured, OperationalError, UnsafeCombination
from celeriac.executors.base import Cancel, Condition, InWork, Loader, Lost, Outcome, PoolOptions, Registry, Request
from celeriac.executors.crews import loops
from celeriac.executors.runner import Runner
from celeriac.executors.time_limits import ThreadWindow, Window
from celeriac.wire.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celeriac.executors.time_limits import Cause

_log = logging.getLogger("celeriac.executors")

#: seconds between two looks at the thread while stopping
_LOOK = 0.01


class InlineExecutor:
    """Runs requests in one thread of this process. After :meth:`stop` has returned, :meth:`outcomes` does not wait."""

    slots = 1

    def __init__(self, options: PoolOptions, loader: Loader, clock: Clock = SYSTEM_CLOCK) -> None:
        self._options = options
        self._loader = loader
        self._clock = clock
        self._lock = threading.Condition()
        self._waiting: deque[Request] = deque()
        #: what the thread is busy with, and the number by which an interruption finds it
        self._current: Request | None = None
        self._since = 0.0
        self._number = 0
        self._window: Window = Window()
        self._task: asyncio.Task[Outcome] | None = None
        self._task_loop: asyncio.AbstractEventLoop | None = None
        self._ended: list[Outcome] = []
        self._is_stopping = False
        self._is_stopped = False
        self._given_up = False
        self._stop_at: float | None = None  #: monotonic; None: not told to stop yet
        self._change = asyncio.Event()
        self._runner: Runner
        self._loop: asyncio.AbstractEventLoop

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        registry = self._load()
        options = self._options
        limited = sorted(name for name, task in registry.tasks.items() if task.runnable_options.time_limit is not None)
        if limited or options.hard_limit is not None:
            who = f"{', '.join(limited[:5])} has one" if limited else "--time-limit gives one to every task"
            raise UnsafeCombination(
                f"-P solo cannot enforce hard time limits, and {who}. "
                "Use another pool, or a soft limit (soft_time_limit, --soft-time-limit) instead of the hard one."
            )
        self._runner = Runner(
            registry, options.hostname, self._clock, Limits(**options.limits), show_results=options.show_results
        )
        threading.Thread(target=self._work, name="celeriac-solo", daemon=True).start()

    def _load(self) -> Registry:
        try:
            if self._loader.call is not None:
                return self._loader.call()
            registry: Registry = plugins.resolve(self._loader.target)(self._loader.argument)
            return registry
        except Exception as error:
            what = self._loader.argument or self._loader.target
            raise ImproperlyConfigured(f"{what} cannot be loaded: {type(error).__name__}: {error}") from error

    def room(self) -> int:
        return max(1 - len(self._waiting) - (self._current is not None), 0)

    def submit(self, batch: Sequence[Request]) -> None:
        if self._is_stopping:
            raise OperationalError("The executor is stopping and takes no more requests")
        with self._lock:
            self._waiting.extend(batch)
            self._lock.notify()

    async def outcomes(self) -> Sequence[Outcome]:
        while True:
            with self._lock:
                ended, self._ended = self._ended, []
            if ended or self._is_stopped:
                return ended
            self._change.clear()
            if not self._ended:
                await self._change.wait()

    def cancel(self, task_id: str, how: Cancel) -> bool:
        with self._lock:
            for request in self._waiting:
                if request.id == task_id:
                    self._waiting.remove(request)
                    self._ended.append(Lost(task_id, False, "revoked", "cancelled before it started"))
                    self._change.set()
                    return True
            current = self._current
        if current is None or current.id != task_id:
            return False
        if how != "unstarted":
            self._interrupt(self._number, "revoked")
        return True

    def in_work(self) -> Sequence[InWork]:
        with self._lock:
            current = self._current
            return [] if current is None else [InWork(current.id, os.getpid(), self._since)]

    def processes(self) -> Sequence[int]:
        return [os.getpid()]

    def condition(self) -> Condition:
        with self._lock:
            return Condition(1, int(bool(self._waiting) and self._current is None))

    async def recall(self) -> Sequence[Request]:
        """What has not begun; the thread begins nothing more, and ends when it is idle."""
        with self._lock:
            self._is_stopping = True
            unstarted = list(self._waiting)
            self._waiting.clear()
            self._lock.notify()
        return unstarted

    async def stop(self, grace: float) -> Sequence[Request]:
        """As the seam says, but what does not heed the soft end is left behind and reported as lost."""
        deadline = self._clock.monotonic() + grace
        unstarted = await self.recall()
        again, self._stop_at = self._stop_at is not None, min(self._stop_at or deadline, deadline)
        if again:
            await self._look_until(
                lambda: self._is_stopped, lambda: (self._stop_at or 0) + 2 * self._options.kill_grace
            )
            return unstarted
        await self._look_until(self._is_idle, lambda: self._stop_at or 0.0)
        if not self._is_idle():
            self._interrupt(self._number, "stopped")
            end = self._clock.monotonic() + self._options.kill_grace
            await self._look_until(self._is_idle, lambda: end)
        with self._lock:
            self._given_up = True
            if self._current is not None:
                text = "the worker stopped before it was finished; the thread that runs it cannot be killed"
                self._ended.append(Lost(self._current.id, True, "stopped", text))
        self._is_stopped = True
        self._change.set()
        return unstarted

    def _is_idle(self) -> bool:
        return self._current is None

    async def _look_until(self, reached: Callable[[], bool], deadline: Callable[[], float]) -> None:
        # The thread's end is no event that stop() could wait for: outcomes() waits for that one.
        while not reached() and (left := deadline() - self._clock.monotonic()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left, _LOOK))

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        thread_window = ThreadWindow()
        while True:
            with self._lock:
                while not self._waiting and not self._is_stopping:
                    self._lock.wait(1.0)
                if not self._waiting:
                    break
                request = self._waiting.popleft()
                self._number += 1
                self._current = request
                self._since = self._clock.monotonic()
                is_coroutine = self._runner.is_coroutine(request)
                self._window = Window() if is_coroutine else thread_window
                self._window.begin(self._number)
            timers = self._set_timers(request, self._number)
            outcome = self._run_on_loop(request) if is_coroutine else self._runner.run(request, thread_window)
            for timer in timers:
                timer.cancel()
            with self._lock:
                self._current = None
                if self._given_up:
                    break
                self._ended.append(outcome)
            self._tell()
        if self._task_loop is not None:
            self._task_loop.close()

    def _tell(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._change.set)
        except RuntimeError:  # the loop has ended while a task would not
            _log.warning("A task ended after the worker had stopped; its outcome is dropped")

    def _run_on_loop(self, request: Request) -> Outcome:
        if self._task_loop is None:
            loops.choose(self._options.loop)
            self._task_loop = loops.new_event_loop()
        self._task = self._task_loop.create_task(self._runner.arun(request, self._window))
        return self._task_loop.run_until_complete(self._task)

    # ── interruptions ────────────────────────────────────────────────────────────────────────────────────────

    def _set_timers(self, request: Request, number: int) -> list[threading.Timer]:
        timers = []
        causes: tuple[tuple[float | None, Cause], ...] = (
            (request.soft_limit, "limit"),
            (request.hard_limit, "hard_limit"),
        )
        for seconds, cause in causes:
            if seconds is not None:
                timer = threading.Timer(seconds, self._interrupt, (number, cause))
                timer.daemon = True
                timer.start()
                timers.append(timer)
        return timers

    def _interrupt(self, number: int, cause: Cause) -> None:
        window, loop = self._window, self._task_loop
        if isinstance(window, ThreadWindow):
            window.interrupt(number, cause)
        elif loop is not None:
            loop.call_soon_threadsafe(self._cancel_task, window, number, cause)

    def _cancel_task(self, window: Window, number: int, cause: Cause) -> None:
        if self._task is not None and window.prepare(number, cause) is not None:
            self._task.cancel()
