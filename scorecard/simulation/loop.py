"""An event loop whose time is simulated: it never sleeps and has no threads, and its callbacks belong to hosts.

Same callbacks in, same order out. When a host is killed, whatever it still had to do is dropped on the spot, even its
``finally`` blocks, as SIGKILL does.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

#: the host whose code runs at this moment; None: the world outside
HOST: contextvars.ContextVar[Machine | None] = contextvars.ContextVar("HOST", default=None)
#: callbacks at one moment above which time is held to stand still
_MOST_AT_ONCE = 100_000
#: turns that an abandoned coroutine gets to end
_TURNS = 500


class Machine:
    """What can be killed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False


class Killed(BaseException):
    """Raised out of a call in whose midst its host was killed; nobody is there to catch it."""


class StandsStill(AssertionError):
    """Nothing is left that could ever happen, or everything happens at one moment."""


class _Waits:
    """In place of a selector: waiting is letting the time pass."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        self._loop.pass_time(timeout)
        return []


class SimulatedLoop(asyncio.BaseEventLoop):
    """Virtual time from 0. ``random`` decides how long a call in another thread takes."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._selector = _Waits(self)
        self._now = 0.0
        self._random = random
        self._rounds = 0
        self.rounds = 0  #: in all
        self._tasks: list[asyncio.Task[Any]] = []
        self.set_task_factory(self._make_task)
        self.set_exception_handler(self._note_error)
        #: what was raised where nobody asked
        self.errors: list[BaseException] = []

    def time(self) -> float:
        return self._now

    def pass_time(self, timeout: float | None) -> None:
        """Called once a round."""
        self.rounds += 1
        if timeout is None:
            raise StandsStill("nothing is left that could ever happen")
        if timeout > 0:
            self._now = self._scheduled[0]._when  # type: ignore[attr-defined]  # exactly, not nearly
            self._rounds = 0
        self._rounds += 1
        if self._rounds > _MOST_AT_ONCE:
            raise StandsStill(f"time does not pass any more at {self._now:.3f}")

    # ── everything belongs to a host ─────────────────────────────────────────────────────────────────────────────

    def call_soon(  # type: ignore[override]  # whatever the arguments are
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = super().call_soon(callback, *args, context=context)
        if _is_of_dead(handle):
            handle.cancel()
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        handle = super().call_at(when, callback, *args, context=context)
        if _is_of_dead(handle):
            handle.cancel()
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def kill(self, host: Machine) -> None:
        """Nothing more of this host will ever run."""
        host.is_dead = True
        for handle in (*self._ready, *self._scheduled):  # type: ignore[attr-defined]
            if _is_of_dead(handle):
                handle.cancel()

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """The thread takes a moment to begin and one to answer; the call itself happens at one moment."""
        future = self.create_future()
        self.call_later(self._random.uniform(0.0001, 0.003), self._call, future, func, args)
        return future

    def _call(self, future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        answer, error = None, None
        try:
            answer = func(*args)
        except Killed:
            return
        except Exception as caught:
            error = caught
        self.call_later(self._random.uniform(0.0001, 0.003), _answer, future, answer, error)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _make_task(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
        self._tasks.append(task)  # were it collected after a kill, its finally blocks would run
        return task

    def _note_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Exception) and not isinstance(error, asyncio.CancelledError):
            self.errors.append(error)

    def abandon(self) -> None:
        """The run is over: let go of everything without a word."""
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            for task in self._tasks:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                if task.done():
                    continue
                coroutine = task.get_coro()
                for _ in range(_TURNS):
                    with contextlib.suppress(BaseException):
                        coroutine.close()
                        break
            self._tasks.clear()
            self._ready.clear()  # type: ignore[attr-defined]
            self._scheduled.clear()  # type: ignore[attr-defined]
            self.close()
        finally:
            sys.unraisablehook = hook

    # ── what BaseEventLoop asks of its kin ───────────────────────────────────────────────────────────────────────

    def _process_events(self, events: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


def _is_of_dead(handle: asyncio.Handle) -> bool:
    host = handle._context.get(HOST)  # type: ignore[attr-defined]
    return host is not None and host.is_dead


def _answer(future: asyncio.Future[Any], answer: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(answer)
    else:
        future.set_exception(error)
