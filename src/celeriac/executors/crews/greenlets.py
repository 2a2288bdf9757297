"""Many requests at a time, each in a greenlet of the main thread: the crew of the gevent and eventlet pools.

The child's interpreter is patched by the prelude before it imports anything of the user's. Coroutine tasks run on an
event loop in a thread of their own: two loops, or a loop and greenlets, do not share one.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from celeriac.executors.children import natives
from celeriac.executors.children.desk import ParentGone
from celeriac.executors.crews.hubs import EventletHub, GeventHub
from celeriac.executors.crews.inbox import next_of, take_back
from celeriac.executors.time_limits import Window

if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Sequence
    from types import FrameType

    from celeriac.executors.base import Outcome, Request
    from celeriac.executors.children.desk import Desk
    from celeriac.executors.children.pipes import Item
    from celeriac.executors.crews.hubs import Hub
    from celeriac.executors.runner import Runner
    from celeriac.executors.time_limits import Cause

#: seconds that an interruption waits for the running greenlet to let others run; then a signal interrupts that one
_PATIENCE = 0.1
#: seconds that a thread with an event loop may take to start
_LOOP_START = 30.0


class _Running:
    """One attempt. ``target``: the greenlet that makes it, or the asyncio task."""

    __slots__ = ("is_coroutine", "target", "window")

    def __init__(self, window: Window, is_coroutine: bool) -> None:
        self.window = window
        self.is_coroutine = is_coroutine
        self.target: Any = None


class _Order(NamedTuple):
    number: int
    cause: Cause
    heeded: LockType  #: released when it is


class GreenletsCrew:
    """``slots`` greenlets at most. Orders from other threads ring a bell that the main greenlet waits for."""

    shares: ClassVar[bool] = True
    asks_first: ClassVar[bool] = True
    hub_class: ClassVar[type[Hub]]

    def __init__(self, desk: Desk, runner: Runner, slots: int) -> None:
        self._desk = desk
        self._runner = runner
        self._hub = self.hub_class()
        self._inbox: deque[Item] = deque()
        self._free = list(range(slots - 1, -1, -1))
        self._running: dict[int, _Running] = {}
        self._orders: deque[_Order] = deque()
        #: what coroutines have come to, not yet handed in
        self._ended: deque[tuple[int, int, Outcome]] = deque()
        self._bell, self._their_bell = natives.socketpair()
        self._bell.setblocking(False)
        self._their_bell.setblocking(False)
        self._main = natives.get_ident()
        self._flush_is_due = False
        self._gone: ParentGone | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self) -> None:
        signal.signal(signal.SIGUSR1, self._on_signal)
        hub, desk = self._hub, self._desk
        desk.attach(self)
        hub.spawn(self._read)
        while not (desk.leaving and not self._running and not self._inbox):
            hub.wait_readable(self._bell.fileno())
            with contextlib.suppress(BlockingIOError):
                self._bell.recv(4096)
            if self._gone is not None:
                raise self._gone
            self._heed()
            self._fill()
        desk.flush()

    def _read(self) -> None:
        """A greenlet: what the parent sends."""
        try:
            while True:
                self._hub.wait_readable(self._desk.fileno)
                self._desk.read()
                self._ring()
        except ParentGone as gone:
            self._gone = gone
            self._ring()

    def _ring(self) -> None:
        """Wake the main greenlet. Any thread."""
        with contextlib.suppress(BlockingIOError):  # it is about to wake
            self._their_bell.send(b"!")

    # ── running ──────────────────────────────────────────────────────────────────────────────────────────────

    def _fill(self) -> None:
        """Start what there is a slot for."""
        while self._free and self._inbox:
            item = next_of(self._inbox)
            if item is None:
                return
            number, request = item
            slot = self._free.pop()
            window = Window()
            window.begin(number)
            if self._runner.is_coroutine(request):
                self._running[number] = running = _Running(window, True)
                self._event_loop().call_soon_threadsafe(self._start_coroutine, slot, number, request, running)
            else:
                self._running[number] = running = _Running(window, False)
                running.target = self._hub.spawn(self._run, slot, number, request, window)

    def _run(self, slot: int, number: int, request: Request, window: Window) -> None:
        self._desk.begin(slot, number)
        self._done(slot, number, self._runner.run(request, window))
        self._fill()

    def _done(self, slot: int, number: int, outcome: Outcome) -> None:
        del self._running[number]
        if self._runner.wants_exit and not self._desk.leaving:
            self._desk.leave("a task has raised SystemExit or KeyboardInterrupt")
        self._desk.hand_in(slot, number, outcome)
        self._free.append(slot)
        if not self._flush_is_due:  # everything that ends before the next switch leaves together
            self._flush_is_due = True
            self._hub.soon(self._flush)
        if self._desk.leaving:
            self._ring()

    def _flush(self) -> None:
        self._flush_is_due = False
        self._desk.flush()

    # ── coroutines ───────────────────────────────────────────────────────────────────────────────────────────

    def _event_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            made = natives.allocate_lock()
            made.acquire(blocking=False)

            def work() -> None:
                self._loop = loop = asyncio.new_event_loop()
                asyncio.set_event_loop(loop)
                made.release()
                loop.run_forever()

            natives.start_new_thread(work, ())
            made.acquire(timeout=_LOOP_START)
            assert self._loop is not None
        return self._loop

    def _start_coroutine(self, slot: int, number: int, request: Request, running: _Running) -> None:
        async def attempt() -> None:
            self._desk.begin(slot, number)
            self._ended.append((slot, number, await self._runner.arun(request, running.window)))
            self._ring()

        running.target = asyncio.get_running_loop().create_task(attempt())

    # ── the crew's part of the desk ──────────────────────────────────────────────────────────────────────────

    def accept(self, items: Sequence[Item]) -> None:
        self._inbox.extend(items)
        self._ring()

    def take_back(self) -> list[int]:
        numbers = take_back(self._inbox)
        self._ring()  # the courier may have read that this child is to leave
        return numbers

    def has_more(self) -> bool:
        return True  # a flush is due at the next switch

    # ── interruptions ────────────────────────────────────────────────────────────────────────────────────────

    def interrupt(self, number: int, cause: Cause) -> None:
        order = _Order(number, cause, natives.allocate_lock())
        order.heeded.acquire(blocking=False)
        self._orders.append(order)
        self._ring()
        if not order.heeded.acquire(timeout=_PATIENCE):  # somebody computes, or waits without switching
            signal.pthread_kill(self._main, signal.SIGUSR1)

    def _heed(self) -> None:
        """In the main greenlet: hand in what coroutines have come to, and carry out orders."""
        while self._ended:
            self._done(*self._ended.popleft())
        while self._orders:
            order = self._orders.popleft()
            running = self._running.get(order.number)
            if running is not None and running.is_coroutine:
                self._event_loop().call_soon_threadsafe(_cancel, running, order)
            elif running is not None:
                self._throw(running, order)
            order.heeded.release()

    def _throw(self, running: _Running, order: _Order) -> None:
        def deliver() -> None:
            error = running.window.prepare(order.number, order.cause)
            if error is not None:
                running.target.throw(error)

        self._hub.soon(deliver)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        """Raise in the greenlet that runs, if it is one that an order is waiting for."""
        current = self._hub.current()
        for order in list(self._orders):
            running = self._running.get(order.number)
            if running is not None and running.target is current:
                self._orders.remove(order)
                error = running.window.prepare(order.number, order.cause)
                if error is not None:
                    raise error


def _cancel(running: _Running, order: _Order) -> None:
    if running.target is not None and running.window.prepare(order.number, order.cause) is not None:
        running.target.cancel()


class GeventCrew(GreenletsCrew):
    """``-P gevent``."""

    package: ClassVar[str] = "gevent"
    prelude: ClassVar[str] = "celeriac.executors.crews.preludes:for_gevent"
    hub_class = GeventHub


class EventletCrew(GreenletsCrew):
    """``-P eventlet``."""

    package: ClassVar[str] = "eventlet"
    prelude: ClassVar[str] = "celeriac.executors.crews.preludes:for_eventlet"
    hub_class = EventletHub
