"""Ending a task from within: the stretch of an attempt in which user code may be interrupted, and how.

Soft limits, soft cancellation and the soft half of a shutdown raise an exception inside the task. Each crew has its
own way of raising (a signal, an asynchronous exception, a cancelled coroutine); what they share is the
:class:`Window`, which makes sure that the exception meets the attempt it was meant for and never our own code.
"""

from __future__ import annotations

import asyncio
import ctypes
import signal
import threading
from typing import TYPE_CHECKING, Any, Literal

from celeriac.errors import SoftTimeLimitExceeded, Terminated, TimeLimitExceeded

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType

#: why an attempt is interrupted. ``limit``: its soft time limit is over; ``hard_limit``: only where no process can be
#: killed; ``revoked``: cancelled by request; ``stopped``: the worker leaves.
Cause = Literal["limit", "hard_limit", "revoked", "stopped"]
CAUSES: tuple[Cause, ...] = ("limit", "hard_limit", "revoked", "stopped")

_TEXTS: dict[Cause, str] = {"revoked": "the task was cancelled", "stopped": "the worker is stopping"}


class Window:
    """One slot's interruptible stretch. The runner opens it around user code; an interrupter reads it.

    ``number`` tells which request occupies the slot, so that an interruption that comes too late hits nobody.
    """

    __slots__ = ("cause", "injected", "is_open", "number", "thread")

    def __init__(self) -> None:
        self.number = 0
        self.is_open = False
        #: the exception that was raised into this attempt, and why
        self.injected: BaseException | None = None
        self.cause: Cause = "limit"
        self.thread = 0

    def begin(self, number: int) -> None:
        """The slot takes the request ``number``."""
        self.number = number
        self.injected = None

    def open(self) -> None:
        self.is_open = True

    def close(self) -> None:
        """No interruption from here on."""
        self.is_open = False

    def prepare(self, number: int, cause: Cause) -> BaseException | None:
        """The exception to raise if ``number`` is what runs and may be interrupted; remembers it. Else ``None``."""
        if not self.is_open or self.number != number:
            return None
        self.cause = cause
        if cause == "limit":
            self.injected = SoftTimeLimitExceeded()
        elif cause == "hard_limit":
            self.injected = TimeLimitExceeded()
        else:
            self.injected = Terminated(_TEXTS[cause])
        return self.injected

    def ended_by(self, error: BaseException) -> Cause | None:
        """Why the attempt was interrupted, if ``error`` is what was raised into it; else ``None``."""
        return self.cause if self.injected is not None and error is self.injected else None


class SignalInterrupter:
    """Raises in the main thread, from the handler of SIGUSR1: system calls that wait are interrupted too."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._wanted: tuple[int, Cause] | None = None
        self._main = threading.main_thread().ident or 0
        #: the asyncio task of the attempt that runs, if it is a coroutine's
        self.task: asyncio.Task[Any] | None = None

    def install(self) -> None:
        """Main thread only."""
        signal.signal(signal.SIGUSR1, self._on_signal)

    def interrupt(self, number: int, cause: Cause) -> None:
        """Any thread."""
        self._wanted = (number, cause)
        signal.pthread_kill(self._main, signal.SIGUSR1)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        wanted, self._wanted = self._wanted, None
        if wanted is None:
            return
        error = self._window.prepare(*wanted)
        if error is None:
            return
        task = self.task
        if task is not None and asyncio.current_task(task.get_loop()) is not task:
            # The coroutine waits. Raising here would break the loop itself, so it is woken by cancellation.
            task.get_loop().call_soon_threadsafe(task.cancel)
            return
        raise error


class ThreadWindow(Window):
    """A window onto a thread that is not the main one.

    CPython raises an asynchronous exception at some later bytecode of the thread; a lock and the withdrawal in
    :meth:`close` keep it from hitting the next attempt. A thread that waits in C is only reached when it returns.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def open(self) -> None:
        self.thread = threading.get_ident()
        with self._lock:
            self.is_open = True

    def close(self) -> None:
        with self._lock:
            self.is_open = False
            if self.injected is not None:  # it may still be on its way
                _set_async_exception(self.thread, None)

    def interrupt(self, number: int, cause: Cause) -> None:
        """Any thread."""
        with self._lock:
            error = self.prepare(number, cause)
            if error is not None:
                _set_async_exception(self.thread, _carrier(error))

    def ended_by(self, error: BaseException) -> Cause | None:
        # The interpreter makes its own instance from the class it was given.
        if self.injected is not None and isinstance(error, type(self.injected)):
            return self.cause
        return None


def _carrier(error: BaseException) -> type[BaseException]:
    """The class to raise: CPython wants a class and calls it without arguments."""
    return type(error)


def _set_async_exception(thread: int, kind: type[BaseException] | None) -> None:
    argument = ctypes.py_object(kind) if kind is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), argument)


class InterruptibleCoroutine:
    """Awaits a coroutine and turns the cancellation of its asyncio task into the window's exception.

    So ``except SoftTimeLimitExceeded`` works in ``async def`` tasks as it does in others.
    """

    __slots__ = ("_coroutine", "_window")

    def __init__(self, coroutine: Any, window: Window) -> None:
        self._coroutine = coroutine
        self._window = window

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine = self._coroutine
        error: BaseException | None = None
        while True:
            try:
                step = coroutine.send(None) if error is None else coroutine.throw(error)
            except StopIteration as stop:
                return stop.value
            error = None
            try:
                yield step
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as thrown:  # whatever the loop throws in belongs to the innermost await
                error = self._translated(thrown)

    def _translated(self, thrown: BaseException) -> BaseException:
        window = self._window
        if window.injected is None or not window.is_open or not isinstance(thrown, asyncio.CancelledError):
            return thrown
        task = asyncio.current_task()
        if task is not None:  # the cancellation has done its work; the coroutine may await while it cleans up
            task.uncancel()
        return window.injected
