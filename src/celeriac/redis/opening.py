"""Links for the event loop: opened in a thread, since connecting blocks, and opened again when they break."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from celeriac.redis.connect import open_link
from celeriac.redis.errors import Fault, LinkBroken, ReplyError, fault_of
from celeriac.redis.looped import AsyncLink

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from celeriac.redis.address import Address
    from celeriac.redis.connect import Link

    #: has a thread do what blocks
    Submit = Callable[[Callable[[], Link]], asyncio.Future[Link]]

T = TypeVar("T")

#: seconds within which what a connection broke off is done once more
_HEAL = 1.5


class Opener:
    """Of one owner, in his thread."""

    def __init__(self, address: Address, submit: Submit) -> None:
        self._address = address
        self._submit = submit

    async def open(self, deadline: float | None = None, *, more_patience: float = 0.0) -> AsyncLink:
        """As ``open_link``; ``more_patience``: seconds that calls block in the server. Cancelled, it closes what comes
        too late."""
        patience = self._address.answer_timeout + more_patience
        opening = self._submit(partial(open_link, self._address, deadline, answer_timeout=patience))
        try:
            return AsyncLink(await asyncio.shield(opening))
        except asyncio.CancelledError:
            opening.add_done_callback(_close)
            raise


class LastingLink:
    """One connection, opened when it is needed. ``more_patience``: seconds that its calls block in the server."""

    def __init__(self, opener: Opener, *, more_patience: float = 0.0) -> None:
        self._opener = opener
        self._more_patience = more_patience
        self._link: AsyncLink | None = None

    async def opened(self, deadline: float | None = None) -> AsyncLink:
        """The one there is, or else a new one."""
        if self._link is None:
            self._link = await self._opener.open(deadline, more_patience=self._more_patience)
        return self._link

    async def heal(
        self, work: Callable[[AsyncLink], Awaitable[T]], again: Callable[[AsyncLink], Awaitable[T]] | None = None
    ) -> T:  # fmt: skip
        """Do ``work``, and when the connection breaks, ``again`` on another one, or ``work`` itself: it is done twice
        perhaps. Raises ``LinkBroken`` and ``ReplyError``."""
        try:
            return await work(await self.opened())
        except LinkBroken:
            self.close()
        except ReplyError as error:
            if fault_of(error) is Fault.STANDBY:
                self.close()  # somebody else is the master now
            raise
        ends = time.monotonic() + _HEAL
        try:
            async with asyncio.timeout(_HEAL):
                return await (again or work)(await self.opened(ends))
        except TimeoutError:
            self.close()
            raise LinkBroken("the server did not answer in time", Fault.SLOW, sent=True) from None

    def close(self) -> None:
        """The next use opens another."""
        link, self._link = self._link, None
        if link is not None:
            link.close()


def _close(opening: asyncio.Future[Link]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
