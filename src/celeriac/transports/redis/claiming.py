"""The receiving lane: takes messages out of their lists into this consumer's hands, and reads them.

Every claim has a number. When the answer to one is lost on its way, what it took stands in the server under that
number, and is asked for again before anything else is claimed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from celeriac.errors import MessageError
from celeriac.redis.errors import ReplyError, describe
from celeriac.redis.keys import read_field
from celeriac.redis.opening import LastingLink
from celeriac.redis.scripts import script
from celeriac.transports.base import Delivery
from celeriac.transports.redis.keeper import dead_after_ms
from celeriac.transports.redis.settling import unmarked
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.kombu_json import decode_envelope
from celeriac.wire.limits import Limits
from celeriac.wire.sealed import read_sealed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.redis.connect import Argument
    from celeriac.redis.keys import Keys
    from celeriac.redis.looped import AsyncLink
    from celeriac.redis.opening import Opener
    from celeriac.transports.redis.settling import Receipt

logger = logging.getLogger("celeriac.transports.redis")

_CLAIM, _RESUME = script("claim"), script("resume")
#: seconds that a nap takes at most
LONGEST_NAP = 0.5
#: seconds between two complaints about the same key
_COMPLAIN = 60.0


class Claimer:
    """Claims for one consumer, on the event loop."""

    def __init__(
        self, opener: Opener, keys: Keys, owner: str, queues: Sequence[str], strategy: str,
        lease: float, max_bytes: int,
    ) -> None:  # fmt: skip
        self._keys = keys
        self._owner = owner
        self._queues = list(queues)
        self._rotates = strategy == "round_robin"
        self._limits = Limits(wire_bytes=max_bytes)
        self._times: tuple[Argument, ...] = (int(lease * 1000), dead_after_ms(lease))
        self._link = LastingLink(opener, more_patience=LONGEST_NAP)
        self._number = 0
        #: one claim at a time
        self._claiming = asyncio.Lock()
        #: the first claim whose answer we do not know: it was lost, or whoever waited for it was cancelled
        self._lost_from: int | None = None
        self._orders = self._all_orders()
        self._tokens = self._all_tokens()
        #: the number of the claim that waits for a token; 0: none does
        self.nap = 0
        self._complained: dict[str, float] = {}
        #: when a delayed message is due (``time.monotonic()``), as the last claim that left nothing said
        self.due_at: float | None = None
        #: the last claim took the last ones: what comes after it leaves a token
        self.is_dry = False
        #: the last ones were found after a nap that no token ended: nothing told of them, or they were put off till now
        self.was_unannounced = False
        #: where the last messages came from
        self.busiest = keys.list_of(self._queues[0])

    @property
    def is_napping(self) -> bool:
        return self.nap > 0

    async def redirect(self, queues: Sequence[str]) -> None:
        """Claim from these from now on, and no more from the others; claims are numbered on."""
        async with self._claiming:
            self._queues = list(queues)
            self._orders = self._all_orders()
            self._tokens = self._all_tokens()
            self.due_at = None
            if queues:
                self.busiest = self._keys.list_of(queues[0])

    def _all_orders(self) -> list[tuple[tuple[str, ...], tuple[str, ...], list[tuple[str, int]]]]:
        return [self._order(start) for start in range(len(self._queues) if self._rotates else 1)]

    def _all_tokens(self) -> list[str]:
        return [*map(self._keys.wake, self._queues), self._keys.bell(self._owner)]

    def _order(self, start: int) -> tuple[tuple[str, ...], tuple[str, ...], list[tuple[str, int]]]:
        """Keys, arguments and places of the lists, each step of all queues before the next one's."""
        keys = self._keys
        queues = self._queues[start:] + self._queues[:start]
        places = [(queue, step) for step in keys.steps for queue in queues]
        owner = self._owner
        names = [keys.owners, keys.held(owner), keys.lease(owner), keys.fence(owner), keys.amnesty]
        for queue in queues:
            names += (keys.delayed(queue), keys.wake(queue))
        names += [keys.list_of(queue, step) for queue, step in places]
        arguments = [keys.separator, str(len(queues)), *queues, *(f"{step}.{queue}" for queue, step in places)]
        return tuple(names), tuple(arguments), places

    # ── claiming ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def claim(self, limit: int, nap: float = 0.0) -> list[Delivery]:
        """Up to ``limit`` messages that are there now. Heals a lost answer once; raises ``LinkBroken``.

        ``nap``: wait for a token first, in the server, so many seconds at most: what wakes us has us claim at once.
        Cancelled, it leaves what it may have taken to the next one.
        """
        if not self._queues and self._lost_from is None:
            return []
        async with self._claiming:
            return await self._link.heal(
                lambda link: self._claim(link, limit, nap), again=lambda link: self._claim(link, limit, 0.0)
            )

    async def _claim(self, link: AsyncLink, limit: int, nap: float) -> list[Delivery]:
        self.was_unannounced = False
        if self._lost_from is not None:
            found = await self._resume(link, self._lost_from)
            self._lost_from = None
            if found:
                return found
        if not self._queues:
            return []
        self._number += 1
        number = self._lost_from = self._number
        names, arguments, places = self._orders[number % len(self._orders)]
        token = None
        if nap > 0:
            # no longer than the nap: a token that goes to somebody who is busy by then is missed by those who are not
            token = link.call_later("BZPOPMIN", *self._tokens, max(0.01, round(nap, 3)))
            self.nap = number
        try:
            answer = await _CLAIM.ask(link, names, (self._owner, number, limit, *self._times, *arguments))
        except ReplyError:
            self._lost_from = None
            raise
        finally:
            self.nap = 0
            refusal = _refusal(token) if token is not None else None
        self._lost_from = None
        due, errors, *lists = answer
        self.is_dry = False
        for error in errors:
            self._complain(error.decode("utf-8", "replace"))
        self.due_at = time.monotonic() + due / 1000 if due >= 0 else None
        found = []
        for place, items in zip(lists[::2], lists[1::2], strict=True):
            queue, step = places[place]
            self.busiest = self._keys.list_of(queue, step)
            # the list's right end is its front
            for payload in reversed(items):
                found.append(self._delivery(payload, queue, f"{number}.{len(found) + 1}.{step}.{queue}"))
        self.is_dry = 0 < len(found) < limit and not errors
        if found and token is not None and refusal is None and not token.cancelled():
            self.was_unannounced = token.result() is None
        if refusal is not None and not found:
            self._complain(f"no nap is possible: {describe(refusal)}")
            await asyncio.sleep(nap)
        return found

    async def finish(self) -> None:
        """Claim nothing any more: see to it that no claim is on its way whose answer nobody will read."""
        self._queues = []
        async with self._claiming:
            if self._lost_from is not None:
                await self._resume(await self._link.opened(), self._lost_from)
                self._lost_from = None

    async def _resume(self, link: AsyncLink, first: int) -> list[Delivery]:
        owner, keys = self._owner, self._keys
        names = (keys.held(owner), keys.lease(owner), keys.fence(owner))
        flat = await _RESUME.ask(link, names, (first, self._number, self._times[0]))
        fields = sorted(
            zip((field.decode() for field in flat[::2]), flat[1::2], strict=True), key=lambda pair: read_field(pair[0])
        )
        return [self._delivery(payload, read_field(field).queue, field) for field, payload in fields]

    def _delivery(self, payload: bytes, queue: str, field: str) -> Delivery:
        receipt: Receipt = (self._owner, field)
        bare, attempts, returned = unmarked(payload)
        sealed = read_sealed(bare, self._limits)
        if sealed is not None:
            heads, info = sealed.headers, sealed.properties.delivery_info
            route = Route(info.exchange, info.routing_key)
            return Delivery(heads, queue, receipt, route, attempts, returned or heads.redelivered)
        try:
            envelope, route = decode_envelope(bare, self._limits)
        except MessageError as error:
            unread = Envelope(bare, {}, {})
            return Delivery(unread, queue, receipt, Route("", queue), attempts, returned, malformed=str(error))
        redelivered = returned or envelope.headers.get("redelivered") is True
        return Delivery(envelope, queue, receipt, route, attempts, redelivered)

    def _complain(self, error: str) -> None:
        now = time.monotonic()
        if now - self._complained.get(error, float("-inf")) > _COMPLAIN:
            self._complained = {**dict(list(self._complained.items())[-20:]), error: now}
            logger.error("the broker cannot read a queue: %s", error)

    def close(self) -> None:
        self._link.close()


def _refusal(token: asyncio.Future[Any]) -> BaseException | None:
    """What the server has against napping."""
    if not token.done():
        token.cancel()  # given up with the claim
    return None if token.cancelled() else token.exception()
