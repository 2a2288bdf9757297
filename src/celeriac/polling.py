"""Waiting for sockets with ``poll``, or with ``select`` in processes where greenlets have taken ``poll`` away.

eventlet removes what would block its hub; its own ``select`` lets other greenlets run meanwhile, so that is what one
has to use there.
"""

from __future__ import annotations

import select
from typing import Protocol

READABLE, WRITABLE = 1, 4  # POLLIN and POLLOUT of poll(2), which go away together with it


class Poller(Protocol):
    """What of ``select.poll`` is used here."""

    def register(self, fd: int, eventmask: int, /) -> object: ...
    def unregister(self, fd: int, /) -> object: ...
    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        """Wait at most ``timeout`` milliseconds; what can be done with which descriptor."""
        ...


def poller() -> Poller:
    """A new one, with nothing registered."""
    return select.poll() if hasattr(select, "poll") else _Selecting()


class _Selecting:
    def __init__(self) -> None:
        self._events: dict[int, int] = {}

    def register(self, fd: int, eventmask: int, /) -> None:
        self._events[fd] = eventmask

    def unregister(self, fd: int, /) -> None:
        del self._events[fd]

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        reading = [fd for fd, events in self._events.items() if events & READABLE]
        writing = [fd for fd, events in self._events.items() if events & WRITABLE]
        readable, writable, _ = select.select(reading, writing, [], None if timeout is None else timeout / 1000)
        found: dict[int, int] = dict.fromkeys(readable, READABLE)
        for fd in writable:
            found[fd] = found.get(fd, 0) | WRITABLE
        return list(found.items())
