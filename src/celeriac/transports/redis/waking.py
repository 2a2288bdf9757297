"""Wakes a consumer that naps when something lies in a list of which no token tells, as Celery's producers leave it.

For them, one consumer per queue also waits on the list itself, with a move of its last element onto its own place: a
look that blocks, and takes nothing out. Everybody looks again twice a second besides. Where a token tells of every
message, the look is a tenth of a round trip for nothing: it rests until a message comes without one.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from celeriac.redis.errors import VENDOR_ERRORS
from celeriac.redis.keys import TOKEN_MS

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.redis.looped import AsyncLink
    from celeriac.redis.opening import Opener

#: seconds that a look waits in the server
_LOOK = 5
#: seconds that a server which could not be reached is left alone
_PAUSE = 1.0
#: looks in a row that told nothing new, after which there is none for so many seconds
_NEEDLESS, _REST = 64, 600.0
#: seconds after which a consumer that still naps is woken: of most messages a token tells as well
_DELAY = 0.001


class Watch:
    """One connection with one look under way, or none. On the event loop."""

    def __init__(self, opener: Opener, bell: str, nap: Callable[[], int]) -> None:
        """``nap``: the number of the nap under way, or 0."""
        self._opener = opener
        self._bell = bell
        self._nap = nap
        self._link: AsyncLink | None = None
        self._looking = False
        self._retry_at = 0.0
        self._needless = 0
        self._closed = False

    async def look_at(self, list_: str) -> None:
        """From now on, unless a look is under way or the server could not be reached a moment ago."""
        if self._looking or self._closed or time.monotonic() < self._retry_at:
            return
        self._looking = True
        try:
            if self._link is None:
                self._link = await self._opener.open(more_patience=_LOOK)
            self._link.listen(("BLMOVE", list_, list_, "RIGHT", "RIGHT", _LOOK), self._seen)
        except VENDOR_ERRORS:
            self._give_up()  # whatever it is, the next claim meets it
        except asyncio.CancelledError:
            self._looking = False
            raise

    def _seen(self) -> None:
        self._looking = False
        if self._link is None or self._link.is_closed:
            self._give_up()
        elif nap := self._nap():
            asyncio.get_running_loop().call_later(_DELAY, self._ring, nap)
        else:
            self._told_nothing()

    def _told_nothing(self) -> None:
        self._needless += 1
        if self._needless >= _NEEDLESS:
            self._needless = 0
            self._retry_at = time.monotonic() + _REST

    def unannounced(self) -> None:
        """A message has come of which no token told: looking is worth while."""
        self._needless = 0
        self._retry_at = min(self._retry_at, time.monotonic() + _PAUSE)

    def _ring(self, nap: int) -> None:
        if self._nap() != nap:
            self._told_nothing()
        elif not self._looking and self._link is not None and not self._link.is_closed:
            self._needless = 0
            self._link.listen(("ZADD", self._bell, 0, ""), _nothing)
            self._link.listen(("PEXPIRE", self._bell, TOKEN_MS), _nothing)

    def _give_up(self) -> None:
        link, self._link = self._link, None
        self._looking = False
        self._retry_at = time.monotonic() + _PAUSE
        if link is not None:
            link.close()

    def close(self) -> None:
        """Idempotent."""
        self._closed = True
        self._give_up()


def _nothing() -> None:
    pass
