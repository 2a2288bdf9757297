"""gevent and eventlet under one name: the four things that a crew of greenlets needs of them.

Neither is imported before a hub is made, which happens in children only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Hub(Protocol):
    """The main thread's switchboard."""

    def spawn(self, function: Callable[..., None], *arguments: Any) -> Any:
        """A new greenlet, which starts when others wait. It has ``throw(error)``, for :meth:`soon` only."""
        ...

    def soon(self, function: Callable[[], None]) -> None:
        """Call it between two switches, in this thread. It must not wait."""
        ...

    def wait_readable(self, fd: int) -> None:
        """Let others run until ``fd`` can be read."""
        ...

    def current(self) -> Any:
        """The greenlet that runs."""
        ...


class GeventHub:
    """gevent's."""

    def __init__(self) -> None:
        import gevent
        import gevent.socket

        self._gevent = gevent
        self._wait_read = gevent.socket.wait_read
        self._loop = gevent.get_hub().loop

    def spawn(self, function: Callable[..., None], *arguments: Any) -> Any:
        return self._gevent.spawn(function, *arguments)

    def soon(self, function: Callable[[], None]) -> None:
        self._loop.run_callback(function)

    def wait_readable(self, fd: int) -> None:
        self._wait_read(fd)

    def current(self) -> Any:
        return self._gevent.getcurrent()


class EventletHub:
    """eventlet's."""

    def __init__(self) -> None:
        import eventlet
        from eventlet import hubs

        self._spawn = eventlet.spawn
        self._hubs = hubs
        self._current = eventlet.getcurrent

    def spawn(self, function: Callable[..., None], *arguments: Any) -> Any:
        return self._spawn(function, *arguments)

    def soon(self, function: Callable[[], None]) -> None:
        self._hubs.get_hub().schedule_call_global(0, function)

    def wait_readable(self, fd: int) -> None:
        self._hubs.trampoline(fd, read=True)

    def current(self) -> Any:
        return self._current()
