"""Sleeping, in a thread, until there may be something in one list, without taking anything out of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from celeriac.polling import READABLE, Poller, poller
from celeriac.redis.connect import Wake, pack
from celeriac.redis.errors import VENDOR_ERRORS, LinkBroken

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.redis.connect import Link

#: seconds that a look waits in the server
_LOOK = 5
#: seconds within which a connection that blocks must have been answered
BLOCKING_ANSWER = 30.0
#: seconds that a server which could not be reached is left alone
_PAUSE = 1.0


class Looker:
    """Looks for one list: a move of its last element onto its own place, which blocks while there is none.

    One thread, but :meth:`interrupt` comes from any.
    """

    def __init__(self, open_link: Callable[[], Link], list_: str) -> None:
        self._open_link = open_link
        self._look = pack(("BLMOVE", list_, list_, "RIGHT", "RIGHT", _LOOK))
        self._link: Link | None = None
        self._looking = False
        self._retry_at = 0.0
        self._poll: Poller = poller()
        self._bell = Wake()
        self._poll.register(self._bell.fileno(), READABLE)
        self._closed = False

    def sleep(self, seconds: float) -> None:
        """Until something may have come, but no longer."""
        if self._looking and any(descriptor != self._bell.fileno() for descriptor, _ in self._poll.poll(0)):
            self._hear()  # perhaps of what has been taken since; of anything else the next look tells at once
        self._begin()
        for descriptor, _ in self._poll.poll(max(0.0, seconds) * 1000):
            if descriptor == self._bell.fileno():
                self._bell.drain()
            else:
                self._hear()

    def _begin(self) -> None:
        if self._looking or time.monotonic() < self._retry_at:
            return
        try:
            if self._link is None:
                self._link = self._open_link()
            self._link.send(self._look)
        except VENDOR_ERRORS:
            self._drop()  # whatever it is, whoever reads the list meets it
            return
        self._looking = True
        self._poll.register(self._link.fileno(), READABLE)

    def _hear(self) -> None:
        assert self._link is not None
        self._poll.unregister(self._link.fileno())
        self._looking = False
        try:
            self._link.receive()
        except LinkBroken:
            self._drop()

    def _drop(self) -> None:
        link, self._link = self._link, None
        looking, self._looking = self._looking, False
        self._retry_at = time.monotonic() + _PAUSE
        if link is not None:
            if looking:
                self._poll.unregister(link.fileno())
            link.close()

    def interrupt(self) -> None:
        """End the sleep, or else the next one at once."""
        self._bell.ring()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._drop()
        self._bell.close()
