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
#: seconds of gathering news per key that is waited for: what asks for many may be told in bites
_GATHER = 1e-6


class Line:
    """One connection that watches. One thread at a time; :meth:`interrupt` comes from any."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._link: Link | None = None
        self._wake = Wake()
        self._looked_at = 0.0
        #: keys this connection is subscribed to, and that were read afterwards
        self.subscribed: dict[bytes, None] = {}

    def look(self, keys: Sequence[bytes], patience: float) -> dict[bytes, bytes]:
        """Subscribe to ``keys`` and to nothing else, and read those that are new, or all of them if it is time.

        Returns the values there are. ``patience``: seconds that the server may be silent; what it says may take long.
        """
        link = self._connected(patience)
        window = dict.fromkeys(keys[:WINDOW])
        stale = [key for key in self.subscribed if key not in window]
        new = [key for key in window if key not in self.subscribed]
        now = time.monotonic()
        due = now - self._looked_at >= LOOK
        wanted = list(keys) if due else new
        commands: list[Command] = []
        if stale:
            commands.append(("UNSUBSCRIBE", *stale))
        if new:
            commands.append(("SUBSCRIBE", *new))
        reads = [wanted[start : start + READ_BATCH] for start in range(0, len(wanted), READ_BATCH)]
        commands.extend(("MGET", *part) for part in reads)
        if not commands:
            return {}
        values = self._exchange(link, commands, len(reads))
        for key in stale:
            del self.subscribed[key]
        self.subscribed.update(dict.fromkeys(new))
        if due:
            self._looked_at = now
        return {key: value for key, value in zip(wanted, values, strict=False) if value is not None}

    def _exchange(self, link: Link, commands: list[Command], replies: int) -> list[Any]:
        """Subscribing has no replies of its own, but may be refused; then nothing on the line is certain any more."""
        link.send_many(commands)
        values: list[Any] = []
        for _ in range(replies):
            reply = link.receive()
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

    def rest(self) -> None:
        """Unsubscribe from everything, without waiting for the answer."""
        link, subscribed, self.subscribed = self._link, self.subscribed, {}
        if subscribed and link is not None and not link.broken:
            link.send_unheard(("UNSUBSCRIBE",))

    def interrupt(self) -> None:
        self._wake.ring()

    def _connected(self, patience: float) -> Link:
        link = self._link
        if link is not None and link.misplaced:
            link.close()
        if link is None or link.broken:
            self.subscribed = {}
            self._looked_at = 0.0
            self._link = link = open_link(self._address, time.monotonic() + patience)
            link.wake_by(self._wake)
        link.patience = patience
        return link

    def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()
        self._wake.close()


def _messages(pushed: Sequence[Sequence[Any]]) -> dict[bytes, bytes]:
    """The last value told of each key; confirmations of (un)subscribing are passed over."""
    return {push[1]: push[2] for push in pushed if push[0] == b"message"}
