"""Many requests at a time on one event loop: the crew of the asyncio pool.

Tasks that are not coroutines go to as many threads as there are slots, so that they do not stop the others.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from celeriac.executors.children.desk import ParentGone
from celeriac.executors.crews.inbox import next_of, take_back
from celeriac.executors.crews.loops import new_event_loop
from celeriac.executors.time_limits import ThreadWindow, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.executors.base import Outcome, Request
    from celeriac.executors.children.desk import Desk
    from celeriac.executors.children.pipes import Item
    from celeriac.executors.runner import Runner
    from celeriac.executors.time_limits import Cause


class CoroutinesCrew:
    """``slots`` requests at a time on the main thread's loop."""

    def __init__(self, desk: Desk, runner: Runner, slots: int) -> None:
        self._desk = desk
        self._runner = runner
        self._inbox: deque[Item] = deque()
        self._free = list(range(slots - 1, -1, -1))
        self._slots = slots
        self._loop = new_event_loop()
        self._thread = threading.get_ident()
        self._threads: ThreadPoolExecutor | None = None
        #: what runs: the window, and the asyncio task where cancelling that is what interrupts it
        self._running: dict[int, tuple[Window, asyncio.Task[None] | None]] = {}
        self._flush_is_due = False
        self._ended: asyncio.Future[None] = self._loop.create_future()

    def run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.add_reader(self._desk.fileno, self._read)
        self._desk.stay_blocking()  # uvloop has changed that
        self._desk.attach(self)
        try:
            self._loop.run_until_complete(self._ended)
        finally:
            self._loop.remove_reader(self._desk.fileno)
        self._desk.flush()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())

    def _read(self) -> None:
        try:
            self._desk.read()
        except ParentGone as gone:
            if not self._ended.done():
                self._ended.set_exception(gone)
            return
        self._fill()

    def accept(self, items: Sequence[Item]) -> None:
        self._inbox.extend(items)
        if threading.get_ident() != self._thread:  # read by the courier
            self._loop.call_soon_threadsafe(self._fill)

    def take_back(self) -> list[int]:
        return take_back(self._inbox)

    def _fill(self) -> None:
        """Start what there is a slot for; end when leaving and nothing is left."""
        while self._free and self._inbox:
            item = next_of(self._inbox)
            if item is None:
                break
            number, request = item
            slot = self._free.pop()
            if self._runner.is_coroutine(request):
                window = Window()
                task = self._loop.create_task(self._run(slot, number, request, window))
                self._running[number] = (window, task)
            else:
                thread_window = ThreadWindow()
                self._running[number] = (thread_window, None)
                self._in_thread(slot, number, request, thread_window)
        if self._desk.leaving and not self._running and not self._inbox and not self._ended.done():
            self._ended.set_result(None)

    async def _run(self, slot: int, number: int, request: Request, window: Window) -> None:
        window.begin(number)
        self._desk.begin(slot, number)
        self._done(slot, number, await self._runner.arun(request, window))

    def _in_thread(self, slot: int, number: int, request: Request, window: ThreadWindow) -> None:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._slots, thread_name_prefix="celeriac-slot")

        def work() -> None:
            window.begin(number)
            self._desk.begin(slot, number)
            outcome = self._runner.run(request, window)
            self._loop.call_soon_threadsafe(self._done, slot, number, outcome)

        self._threads.submit(work)

    def _done(self, slot: int, number: int, outcome: Outcome) -> None:
        del self._running[number]
        if self._runner.wants_exit and not self._desk.leaving:
            self._desk.leave("a task has raised SystemExit or KeyboardInterrupt")
        self._desk.hand_in(slot, number, outcome)
        self._free.append(slot)
        if not self._flush_is_due:  # everything that ends in this turn of the loop leaves together
            self._flush_is_due = True
            self._loop.call_soon(self._flush)
        self._fill()

    def _flush(self) -> None:
        self._flush_is_due = False
        self._desk.flush()

    def has_more(self) -> bool:
        return True  # a flush is due at the end of this turn of the loop

    def interrupt(self, number: int, cause: Cause) -> None:
        self._loop.call_soon_threadsafe(self._interrupt, number, cause)

    def _interrupt(self, number: int, cause: Cause) -> None:
        window, task = self._running.get(number, (None, None))
        if isinstance(window, ThreadWindow):
            window.interrupt(number, cause)
        elif window is not None and task is not None and window.prepare(number, cause) is not None:
            task.cancel()
