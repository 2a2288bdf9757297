"""The consumer, on the event loop: one connection claims, one settles, one watches, and a thread reports on another.

It has a name in the server under which it holds what it has claimed.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

from celeriac.errors import OperationalError
from celeriac.ids import task_id
from celeriac.redis.connect import open_link
from celeriac.redis.errors import LinkBroken
from celeriac.redis.opening import Opener
from celeriac.transports.redis.claiming import LONGEST_NAP, Claimer
from celeriac.transports.redis.keeper import Keeper
from celeriac.transports.redis.settler import Settler, leave
from celeriac.transports.redis.settling import by_owner
from celeriac.transports.redis.waking import Watch
from celeriac.transports.threads import CLOSE_TIMEOUT, Lane

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celeriac.clock import Clock
    from celeriac.transports.base import Delivery, Outgoing, QueueSpec, Settlement
    from celeriac.transports.redis.household import Household
    from celeriac.transports.redis.settling import Receipt
    from celeriac.wire.result_record import ResultRecord

#: seconds of the first nap while nothing comes; each is twice as long as the one before
_FIRST_NAP = 0.1


class RedisConsumer:
    """Receives and settles for one set of queues. Made where an event loop runs, or before; used on one."""

    def __init__(self, house: Household, queues: Sequence[str], owner: str, clock: Clock) -> None:
        if not queues:
            raise OperationalError("A consumer needs a queue")
        self._house = house
        self._owner = f"{owner}.{task_id()}"
        names = self._in_order(queues)
        self._queues = names
        address, keys = house.address, house.keys
        #: for what blocks: to connect, and the beginning and the end
        self._lane = Lane(f"celeriac-redis-{owner}")
        opener = Opener(address, self._lane.submit)
        self._claimer = Claimer(opener, keys, self._owner, names, house.strategy, house.lease, house.max_bytes)
        self._settler = Settler(
            opener, keys, self._owner, house.sorter, house.records, house.lease, house.dead_letter_expires, clock
        )
        self._keeper = Keeper(
            partial(open_link, address), keys, names, self._owners, lambda: self._claimer.busiest, house.lease
        )
        self._bell = keys.bell(self._owner)
        self._watch = Watch(opener, self._bell, lambda: self._claimer.nap)
        self._beginning = asyncio.Lock()
        self._began = False
        self._closed = False

    def _in_order(self, queues: Sequence[str]) -> list[str]:
        names = list(dict.fromkeys(queues))
        if self._house.strategy == "sorted":
            names.sort()
        return names

    async def _begin(self) -> None:
        """Be listed before anything is held, and before others take what was kept for dead."""
        async with self._beginning:
            if not self._began:
                await self._lane.run(self._list_us)
                self._began = True

    def _list_us(self) -> None:
        self._keeper.start()
        for owner, fields in self._house.kept:
            with self._house.links.borrow() as link:
                leave(link, self._house.keys, owner, fields)  # its own attempt may have failed

    def _owners(self) -> list[str]:
        """Ours, and those whose messages run here although their consumer is gone."""
        return [self._owner, *(owner for owner, _ in self._house.kept)]

    # ── receiving ────────────────────────────────────────────────────────────────────────────────────────────────

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        ends = time.monotonic() + wait
        longest = _FIRST_NAP
        claimer = self._claimer
        with self._house.translating:
            if not self._began:
                await self._begin()
            # whoever has just taken the last ones need not ask whether there are more: he would be woken
            nap = self._nap(min(wait, longest)) if claimer.is_dry else 0.0
            while not self._closed:
                if nap and (watched := self._keeper.looks_at) is not None:
                    await self._watch.look_at(watched)
                try:
                    found = await claimer.claim(limit, nap)
                except LinkBroken:
                    if self._is_over():
                        return []
                    raise
                if self._is_over():
                    return []  # what was found goes back with everything else
                if claimer.was_unannounced:
                    self._watch.unannounced()
                left = ends - time.monotonic()
                if found or left <= 0:
                    return found
                nap = self._nap(min(left, longest))
                longest = min(2 * longest, LONGEST_NAP)
        return []

    def _nap(self, most: float) -> float:
        """Seconds until a delayed message is due, or ``most``."""
        due_at = self._claimer.due_at
        return most if due_at is None else max(0.0, min(most, due_at - time.monotonic()))

    def _is_over(self) -> bool:
        return self._closed

    async def redirect(self, queues: Sequence[QueueSpec]) -> bool:
        names = self._in_order([queue.name for queue in queues])
        with self._house.translating:
            await self._wake_up()
            await self._claimer.redirect(names)
        self._keeper.redirect(names)
        return True

    async def _wake_up(self) -> None:
        if self._claimer.is_napping:
            await self._settler.ring(self._bell)

    # ── settling ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def settle(self, batch: Sequence[Settlement]) -> Sequence[Receipt]:
        return await self.commit((), (), batch)

    async def commit(
        self, results: Sequence[ResultRecord], sends: Sequence[Outgoing], settlements: Sequence[Settlement]
    ) -> Sequence[Receipt]:
        with self._house.translating:
            return await self._settler.commit(results, sends, settlements)

    async def renew(self, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        with self._house.translating:
            await self._begin()
            return await self._settler.renew(receipts)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def close(self) -> None:
        await self.close_keeping(())

    async def close_keeping(self, receipts: Sequence[Receipt]) -> None:
        if self._closed:
            return
        self._closed = True
        kept = by_owner(receipts)
        leaving = [owner for owner, _ in self._house.kept]
        self._house.kept[:] = kept.items()
        if self._began:
            leaving.append(self._owner)
        try:
            self._watch.close()
            async with asyncio.timeout(CLOSE_TIMEOUT):
                with self._house.translating:
                    await self._wake_up()
                    await self._settler.settled()
                    await self._claimer.finish()
                    await self._lane.run(partial(self._leave, {*leaving, *kept}, kept))
        finally:
            self._claimer.close()
            self._settler.close()
            self._lane.close()

    def _leave(self, owners: set[str], kept: Mapping[str, Sequence[str]]) -> None:
        self._keeper.stop()
        for owner in owners:
            leave_once_more = partial(leave, keys=self._house.keys, owner=owner, kept=kept.get(owner, ()))
            try:
                with self._house.links.borrow() as link:
                    leave_once_more(link, queues=self._queues)
            except LinkBroken:
                with self._house.links.borrow() as link:
                    leave_once_more(link, queues=self._queues)
