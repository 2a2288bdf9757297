"""Several requests at a time, each in a thread: the crew of the threads pool.

Coroutine tasks run on one shared loop in a thread of its own; their slot waits for them.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import TYPE_CHECKING

from celeriac.executors.crews.loops import new_event_loop
from celeriac.executors.time_limits import ThreadWindow, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.executors.base import Outcome, Request
    from celeriac.executors.children.desk import Desk
    from celeriac.executors.children.pipes import Item
    from celeriac.executors.runner import Runner
    from celeriac.executors.time_limits import Cause


class _LoopWindow(Window):
    """A window onto a coroutine on the shared loop."""

    __slots__ = ("task",)

    def __init__(self) -> None:
        super().__init__()
        self.task: asyncio.Task[Outcome] | None = None


class ThreadsCrew:
    """``slots`` threads that share an inbox; the main thread reads."""

    def __init__(self, desk: Desk, runner: Runner, slots: int) -> None:
        self._desk = desk
        self._runner = runner
        self._slots = slots
        self._inbox: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._windows = [ThreadWindow() for _ in range(slots)]
        self._loop_windows: dict[int, _LoopWindow] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_lock = threading.Lock()

    def run(self) -> None:
        desk = self._desk
        threads = [
            threading.Thread(target=self._work, args=(slot,), name=f"celeriac-slot-{slot}", daemon=True)
            for slot in range(self._slots)
        ]
        for thread in threads:
            thread.start()
        desk.attach(self)
        while not desk.leaving:
            desk.wait()
        for _ in threads:
            self._inbox.put(None)
        for thread in threads:
            thread.join()
        desk.flush()

    def _work(self, slot: int) -> None:
        desk, runner, inbox, window = self._desk, self._runner, self._inbox, self._windows[slot]
        while True:
            item = inbox.get()
            if item is None:
                return
            number, request = item
            window.begin(number)
            desk.begin(slot, number)
            if runner.is_coroutine(request):
                outcome = self._run_on_loop(number, request)
            else:
                outcome = runner.run(request, window)
            if runner.wants_exit and not desk.leaving:
                desk.leave("a task has raised SystemExit or KeyboardInterrupt")
            desk.hand_in(slot, number, outcome)

    def _run_on_loop(self, number: int, request: Request) -> Outcome:
        window = _LoopWindow()
        window.begin(number)
        self._loop_windows[number] = window

        async def attempt() -> Outcome:
            window.task = asyncio.current_task()
            return await self._runner.arun(request, window)

        try:
            return asyncio.run_coroutine_threadsafe(attempt(), self._shared_loop()).result()
        finally:
            del self._loop_windows[number]

    def _shared_loop(self) -> asyncio.AbstractEventLoop:
        with self._loop_lock:
            if self._loop is None:
                self._loop = new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="celeriac-loop", daemon=True).start()
            return self._loop

    def accept(self, items: Sequence[Item]) -> None:
        for item in items:
            self._inbox.put(item)

    def take_back(self) -> list[int]:
        numbers: list[int] = []
        while True:
            try:
                item = self._inbox.get_nowait()
            except queue.Empty:
                return numbers
            if item is None:  # a thread's order to end
                self._inbox.put(None)
                return numbers
            numbers.append(item[0])

    def has_more(self) -> bool:
        return not self._inbox.empty()

    def interrupt(self, number: int, cause: Cause) -> None:
        loop_window = self._loop_windows.get(number)
        if loop_window is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(_cancel, loop_window, number, cause)
            return
        for window in self._windows:
            if window.number == number:
                window.interrupt(number, cause)


def _cancel(window: _LoopWindow, number: int, cause: Cause) -> None:
    if window.task is not None and window.prepare(number, cause) is not None:
        window.task.cancel()
