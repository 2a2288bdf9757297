"""Watching keys: one connection subscribes to them, reads them, and waits for news of any number of them.

RESP3 lets one connection do both, so that subscribing and reading are one round trip. Only the first
:data:`WINDOW` keys are subscribed to; the others are read when their turn comes, or once a second. A message is a
hint: it carries the value that was stored, and whatever is missed is found by the next look.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from celeriac.redis.connect import Command, Link, Wake, open_link
from celeriac.redis.errors import ReplyError

if TYPE_CHECKING:
    from celeriac.redis.address import Address

#: keys subscribed to at a time, by one line
WINDOW = 1024
#: seconds after which everything is read again, however quiet the subscriptions are
LOOK = 1.0
#: keys that one MGET asks for
READ_BATCH = 1000
#: keys that a line which rests may stay subscribed to, if nothing more is to be told of them
SPENT = 16
#: seconds that the server may be silent, however little time is left
_LEAST = 0.05
#: seconds of gathering news per key that is waited for: what asks for many may be told in bites
_GATHER = 1e-6


class Line:
    """One connection that watches. One thread at a time; :meth:`interrupt` comes from any."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._link: Link | None = None
        self._wake = Wake()
        self._looked_at = 0.0
        #: keys this connection is subscribed to, and that were read afterwards; whether no more is to be told of them
        self.subscribed: dict[bytes, bool] = {}

    def look(self, keys: Sequence[bytes], ends: float) -> dict[bytes, bytes]:
        """Subscribe to ``keys`` and to nothing else, and read those that are new, or all of them if it is time.

        Returns the values there are. ``ends``: how long the server may be silent, on ``time.monotonic()``; what it
        says may take longer.
        """
        link = self._connected(ends)
        subscribed = self.subscribed
        window = keys if len(keys) <= WINDOW else keys[:WINDOW]
        new = [key for key in window if key not in subscribed]
        stale: list[bytes] = []
        if len(subscribed) + len(new) > len(window):
            wanted_now = set(window)
            stale = [key for key in subscribed if key not in wanted_now]
        now = time.monotonic()
        due = now - self._looked_at >= LOOK
        wanted = keys if due else new
        commands: list[Command] = []
        if stale:
            commands.append(("UNSUBSCRIBE", *stale))
        if new:
            commands.append(("SUBSCRIBE", *new))
        reads = [wanted[start : start + READ_BATCH] for start in range(0, len(wanted), READ_BATCH)]
        commands.extend([("MGET", *part) for part in reads])
        if not commands:
            return {}
        values = self._exchange(link, commands, len(reads))
        for key in stale:
            del subscribed[key]
        subscribed.update(dict.fromkeys(new, False))
        if due:
            self._looked_at = now
        return {key: value for key, value in zip(wanted, values, strict=False) if value is not None}

    def _exchange(self, link: Link, commands: list[Command], replies: int) -> list[Any]:
        """Subscribing has no replies of its own, but may be refused; then nothing on the line is certain any more."""
        link.send_many(commands)
        values: list[Any] = []
        for reply in link.receive_many(replies):
            if isinstance(reply, ReplyError):
                link.close()
                raise reply
            values.extend(reply)
        return values

    def listen(self, wait: float, watched: int) -> dict[bytes, bytes]:
        """Wait up to ``wait`` seconds for news: key → the value that was stored. May return early with nothing."""
        link = self._link
        assert link is not None, "look first"
        news = _messages(link.listen(wait))
        gather = watched * _GATHER
        if news and gather > 0.001:
            ends = time.monotonic() + min(gather, wait)
            while (left := ends - time.monotonic()) > 0:
                news.update(_messages(link.listen(left)))
        return news

    def spend(self, key: bytes) -> None:
        """The last word about a key has been said."""
        if key in self.subscribed:
            self.subscribed[key] = True

    def rest(self) -> None:
        """Nobody waits. Unsubscribe, without waiting for the answer, from everything that may still be told.

        A few keys about which all is said cost nothing, and are taken leave of when the line speaks next.
        """
        link, subscribed = self._link, self.subscribed
        if not subscribed or (len(subscribed) <= SPENT and all(subscribed.values())):
            return
        self.subscribed = {}
        if link is not None and not link.broken:
            link.send_unheard(("UNSUBSCRIBE",))

    def interrupt(self) -> None:
        self._wake.ring()

    def _connected(self, ends: float) -> Link:
        link = self._link
        if link is not None and link.misplaced:
            link.close()
        if link is None or link.broken:
            self.subscribed = {}
            self._looked_at = 0.0
            self._link = link = open_link(self._address, ends)
            link.wake_by(self._wake)
        link.patience = max(_LEAST, ends - time.monotonic())
        return link

    def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()
        self._wake.close()


def _messages(pushed: Sequence[Sequence[Any]]) -> dict[bytes, bytes]:
    """The last value told of each key."""
    return {push[1]: push[2] for push in pushed if push[0] == b"message"}
