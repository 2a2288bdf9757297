"""Between the thread that steps run in and the worker's loop.

Users' steps block as they please: they have a thread of their own, so that no lease runs out because of them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from celeriac.worker.lane import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

logger = logging.getLogger("celeriac.worker")

Value = TypeVar("Value")

#: seconds that a step waits for the loop to do what it asks for
_PATIENCE = 30.0


class Bridge:
    """Made on the loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._lane = Lane("celeriac-steps")
        self._loops_thread = threading.get_ident()
        self.is_closed = False

    async def run(self, call: Callable[[], Value]) -> Value:
        """On the loop: run ``call`` in the thread of steps, after what is there already."""
        return await self._lane.run(call)

    def ask(self, work: Coroutine[Any, Any, Value], timeout: float = _PATIENCE) -> Value:
        """In a thread: have the loop do it, and wait for that. Raises what it raises, or ``TimeoutError``."""
        if threading.get_ident() == self._loops_thread:
            work.close()
            raise RuntimeError("steps must not ask for this on the worker's own loop: it would wait for itself")
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def tell(self, call: Callable[..., Any], *args: Any) -> None:
        """From anywhere: have the loop call it soon."""
        if not self.is_closed:
            self.loop.call_soon_threadsafe(call, *args)

    def close(self) -> None:
        self.is_closed = True
        self._lane.close()


class Timer:
    """``worker.timer``: functions called later, in the thread of steps. From any thread."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._entries: set[Entry] = set()

    def call_after(
        self, secs: float, fun: Callable[..., Any], args: Any = (), kwargs: Any = None, priority: int = 0
    ) -> Entry:
        """Once, in so many seconds."""
        return self._enter(Entry(fun, tuple(args), dict(kwargs or {}), secs, False))

    def call_repeatedly(
        self, secs: float, fun: Callable[..., Any], args: Any = (), kwargs: Any = None, priority: int = 0
    ) -> Entry:
        """Each time so many seconds after the last call has ended."""
        return self._enter(Entry(fun, tuple(args), dict(kwargs or {}), secs, True))

    def cancel(self, tref: Entry) -> None:
        tref.cancel()

    def clear(self) -> None:
        """Call nothing any more."""
        for entry in list(self._entries):
            entry.cancel()

    stop = clear

    def _enter(self, entry: Entry) -> Entry:
        self._entries.add(entry)
        self._bridge.tell(self._wait, entry)
        return entry

    def _wait(self, entry: Entry) -> None:
        if not entry.cancelled:
            self._bridge.loop.call_later(max(entry.secs, 0.0), self._due, entry)

    def _due(self, entry: Entry) -> None:
        if entry.cancelled or self._bridge.is_closed:
            self._entries.discard(entry)
            return
        entry.under_way = self._bridge.loop.create_task(self._call(entry))

    async def _call(self, entry: Entry) -> None:
        try:
            await self._bridge.run(entry)
        except Exception:
            logger.exception("a timer's function failed: %r", entry.fun)
        if entry.repeats and not entry.cancelled:
            self._wait(entry)
        else:
            self._entries.discard(entry)


class Entry:
    """One function that is to be called."""

    def __init__(self, fun: Callable[..., Any], args: Any, kwargs: Any, secs: float, repeats: bool) -> None:
        self.fun, self.args, self.kwargs, self.secs, self.repeats = fun, args, kwargs, secs, repeats
        self.cancelled = False
        self.under_way: asyncio.Task[None] | None = None  #: kept, so that it is not collected

    def __call__(self) -> Any:
        return None if self.cancelled else self.fun(*self.args, **self.kwargs)

    def cancel(self) -> None:
        self.cancelled = True
