"""One request at a time, in the child's main thread: the crew of the prefork pool.

Coroutine tasks run on one loop that lives as long as the child, so connections kept on it stay usable.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from celeriac.executors.crews.inbox import take_back
from celeriac.executors.crews.loops import new_event_loop
from celeriac.executors.time_limits import SignalInterrupter, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.executors.base import Outcome, Request
    from celeriac.executors.children.desk import Desk
    from celeriac.executors.children.pipes import Item
    from celeriac.executors.runner import Runner
    from celeriac.executors.time_limits import Cause


class SequentialCrew:
    """A crew of one."""

    def __init__(self, desk: Desk, runner: Runner, slots: int) -> None:
        self._desk = desk
        self._runner = runner
        self._inbox: deque[Item] = deque()
        self._window = Window()
        self._interrupter = SignalInterrupter(self._window)
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self) -> None:
        self._interrupter.install()
        desk, runner, inbox, window = self._desk, self._runner, self._inbox, self._window
        desk.attach(self)
        while True:
            try:
                number, request = inbox.popleft()
            except IndexError:
                desk.flush()
                if desk.leaving:
                    break
                desk.wait()
                continue
            window.begin(number)
            desk.begin(0, number)
            outcome = self._run_on_loop(request) if runner.is_coroutine(request) else runner.run(request, window)
            if runner.wants_exit and not desk.leaving:
                desk.leave("a task has raised SystemExit or KeyboardInterrupt")
            desk.hand_in(0, number, outcome)
        if self._loop is not None:
            self._loop.close()

    def _run_on_loop(self, request: Request) -> Outcome:
        if self._loop is None:
            self._loop = new_event_loop()
            asyncio.set_event_loop(self._loop)
        loop = self._loop
        task = loop.create_task(self._runner.arun(request, self._window))
        self._interrupter.task = task
        try:
            return loop.run_until_complete(task)
        finally:
            self._interrupter.task = None

    def accept(self, items: Sequence[Item]) -> None:
        self._inbox.extend(items)

    def take_back(self) -> list[int]:
        return take_back(self._inbox)

    def has_more(self) -> bool:
        return bool(self._inbox)

    def interrupt(self, number: int, cause: Cause) -> None:
        self._interrupter.interrupt(number, cause)
