"""Opens links for the event loop, in a thread, since connecting blocks."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from celeriac.redis.connect import open_link
from celeriac.redis.looped import AsyncLink

if TYPE_CHECKING:
    from celeriac.redis.address import Address
    from celeriac.redis.connect import Link
    from celeriac.transports.threads import Lane


class Opener:
    """Of one consumer, on its lane."""

    def __init__(self, address: Address, lane: Lane) -> None:
        self._address = address
        self._lane = lane

    async def open(self, deadline: float | None = None, *, more_patience: float = 0.0) -> AsyncLink:
        """As ``open_link``; ``more_patience``: seconds that calls block in the server. Cancelled, it closes what comes
        too late."""
        patience = self._address.answer_timeout + more_patience
        opening = self._lane.submit(partial(open_link, self._address, deadline, answer_timeout=patience))
        try:
            return AsyncLink(await asyncio.shield(opening))
        except asyncio.CancelledError:
            opening.add_done_callback(_close)
            raise


def _close(opening: asyncio.Future[Link]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
