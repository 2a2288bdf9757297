"""Sleeping until there may be something in one of many lists, without taking anything out.

Our own producers put a token into the ``wake`` set of a queue, and one sleeper of that queue gets it. Celery's do
not: for them, one consumer per queue also waits on the list itself, with a move of its last element onto its own
place (a look that blocks), and everybody looks again a few times a second.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from celeriac.polling import READABLE, Poller, poller
from celeriac.redis.connect import Wake, pack
from celeriac.redis.errors import VENDOR_ERRORS, LinkBroken

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.redis.connect import Argument, Link

#: seconds that a look waits in the server
_LOOK = 5
#: seconds within which a connection that blocks must have been answered
BLOCKING_ANSWER = 30.0


class Ear:
    """One connection with one blocking command under way, or none. One thread."""

    def __init__(self, open_link: Callable[[], Link]) -> None:
        self._open_link = open_link
        self._link: Link | None = None
        self._listening = False
        self._retry_at = 0.0

    def listen(self, command: tuple[Argument, ...], poll: Poller) -> None:
        """Send the command, unless one is under way or the server could not be reached a moment ago."""
        if self._listening or time.monotonic() < self._retry_at:
            return
        try:
            if self._link is None:
                self._link = self._open_link()
            self._link.send(pack(command))
        except VENDOR_ERRORS:
            self.close(poll)
            return
        self._listening = True
        poll.register(self._link.fileno(), READABLE)

    def fileno(self) -> int:
        return self._link.fileno() if self._listening and self._link is not None else -1

    def hear(self, poll: Poller) -> None:
        """Read the answer that has come; what it says is of no interest."""
        assert self._link is not None
        poll.unregister(self._link.fileno())
        self._listening = False
        try:
            self._link.receive()
        except LinkBroken:
            self.close()

    def close(self, poll: Poller | None = None) -> None:
        """Also after trouble: whatever it is, the next claim meets it, and it is not tried again for a moment."""
        link, self._link = self._link, None
        listening, self._listening = self._listening, False
        self._retry_at = time.monotonic() + 1.0
        if link is not None:
            if poll is not None and listening:
                poll.unregister(link.fileno())
            link.close()


class Sleeper:
    """Sleeps for one consumer. One thread, but :meth:`interrupt` comes from any."""

    def __init__(self, open_link: Callable[[], Link], wakes: list[str]) -> None:
        self._tokens = Ear(open_link)
        self._looks = Ear(open_link)
        self._wakes = wakes
        self._poll: Poller = poller()
        self._bell = Wake()
        self._poll.register(self._bell.fileno(), READABLE)
        self._closed = False

    def redirect(self, wakes: list[str]) -> None:
        """Wait for tokens of these lists from the next sleep on."""
        self._wakes = wakes

    def sleep(self, seconds: float, look_at: str | None) -> None:
        """Until something may have come, but no longer. ``look_at``: a list to watch itself."""
        if self._wakes:
            # no longer than we sleep: a token that goes to somebody who is busy by then is missed by those who are not
            self._tokens.listen(("BZPOPMIN", *self._wakes, max(0.01, round(seconds, 3))), self._poll)
        if look_at is not None:
            for descriptor, _ in self._poll.poll(0):
                if descriptor == self._looks.fileno():
                    # perhaps of what has been claimed since; of anything else the next look tells at once
                    self._looks.hear(self._poll)
            self._looks.listen(("BLMOVE", look_at, look_at, "RIGHT", "RIGHT", _LOOK), self._poll)
        for descriptor, _ in self._poll.poll(max(0.0, seconds) * 1000):
            if descriptor == self._bell.fileno():
                self._bell.drain()
            for ear in (self._tokens, self._looks):
                if descriptor == ear.fileno():
                    ear.hear(self._poll)

    def interrupt(self) -> None:
        self._bell.ring()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._tokens.close()
        self._looks.close()
        self._bell.close()
