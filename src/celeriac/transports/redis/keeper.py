"""Every few seconds: tell that this consumer lives, and give back what others died with or did not renew.

A thread with a connection of its own, so that no blocking receive and no long settlement makes a living consumer look
dead. Every consumer does it for all: there is no leader.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from celeriac.redis.errors import VENDOR_ERRORS
from celeriac.redis.scripts import script

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celeriac.redis.connect import Link
    from celeriac.redis.keys import Keys

logger = logging.getLogger("celeriac.transports.redis")

_KEEP = script("keep")
#: seconds between two reports, and without one until a consumer counts as dead, where leases are as long as usual
_REPORT, _DEAD = 2.5, 15.0
#: messages that one report gives back
_ROOM = 2000


def report_interval(lease: float) -> float:
    return min(_REPORT, lease / 6)


def dead_after_ms(lease: float) -> int:
    return int(min(_DEAD, lease / 2) * 1000)


class Keeper:
    """Reports for one consumer, and for those before it whose messages it has taken over."""

    def __init__(
        self, open_link: Callable[[], Link], keys: Keys, queues: Sequence[str], owners: Callable[[], list[str]],
        watched: Callable[[], str], lease: float,
    ) -> None:  # fmt: skip
        self._open_link = open_link
        self._keys = keys
        self._queues = queues
        self._owners = owners
        self._watched = watched
        self._lease = lease
        self._link: Link | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="celeriac-keep", daemon=True)
        #: the list that is ours to watch for Celery's producers
        self.looks_at: str | None = None

    def redirect(self, queues: Sequence[str]) -> None:
        """Report for these from now on. Any thread."""
        self._queues = queues
        self.looks_at = None

    def start(self) -> None:
        """Report once, in the caller's thread, and go on from there. Raises as connections do."""
        self.report()
        if self._thread.ident is None:
            self._thread.start()

    def _run(self) -> None:
        interval = report_interval(self._lease)
        while not self._stop.wait(timeout=interval):
            try:
                self.report()
                interval = report_interval(self._lease)
            except VENDOR_ERRORS as error:
                logger.debug("reporting failed: %s", error)
                self._drop()
                interval = min(0.5, report_interval(self._lease))
        self._drop()

    def report(self) -> None:
        if self._link is None:
            self._link = self._open_link()
        keys, owners, watched = self._keys, self._owners(), self._watched()
        names = (keys.owners, keys.amnesty, keys.peek(watched), *map(keys.served, self._queues))
        returned, looks = _KEEP.run(
            self._link, names,
            (keys.prefix, keys.separator, dead_after_ms(self._lease), _ROOM, *owners),
        )  # fmt: skip
        self.looks_at = watched if looks else None
        if returned:
            logger.info("gave back %d messages that their holders did not renew", returned)

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def stop(self) -> None:
        """Report no more. Waits shortly for a report under way."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=2.0)
        else:
            self._drop()
