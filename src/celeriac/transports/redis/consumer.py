"""The blocking consumer: one thread receives, one settles (``transports/threads.py``), a third reports (``keeper.py``).

Each has a connection of its own, and a name in the server under which it holds what it has claimed.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from celeriac.errors import OperationalError
from celeriac.ids import task_id
from celeriac.redis.connect import open_link
from celeriac.transports.redis.claiming import Claimer
from celeriac.transports.redis.keeper import Keeper
from celeriac.transports.redis.settler import Settler, leave
from celeriac.transports.redis.settling import by_owner
from celeriac.transports.redis.waking import BLOCKING_ANSWER, Sleeper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.clock import Clock
    from celeriac.transports.base import Delivery, Outgoing, QueueSpec, Settlement
    from celeriac.transports.redis.household import Household
    from celeriac.transports.redis.settling import Receipt
    from celeriac.wire.result_record import ResultRecord

#: seconds between two looks while nothing comes: the first and the longest
_FIRST_LOOK, _LAST_LOOK = 0.1, 0.5


class RedisConsumer:
    """Receives and settles for one set of queues."""

    same_lane = False

    def __init__(self, house: Household, queues: Sequence[str], owner: str, clock: Clock) -> None:
        if not queues:
            raise OperationalError("A consumer needs a queue")
        self._house = house
        self._owner = f"{owner}.{task_id()}"
        names = list(dict.fromkeys(queues))
        if house.strategy == "sorted":
            names.sort()
        self._queues = names
        address, keys = house.address, house.keys
        connect = partial(open_link, address)
        self._claimer = Claimer(connect, keys, self._owner, names, house.strategy, house.lease, house.max_bytes)
        self._settler = Settler(
            connect, keys, self._owner, house.sorter, house.records, house.lease, house.dead_letter_expires, clock
        )
        self._keeper = Keeper(connect, keys, names, self._owners, lambda: self._claimer.busiest, house.lease)
        self._sleeper = Sleeper(
            partial(open_link, address, answer_timeout=BLOCKING_ANSWER), [keys.wake(name) for name in names]
        )
        self._interrupted = threading.Event()
        self._beginning = threading.Lock()
        self._began = False
        self._closed = False

    def _begin(self) -> None:
        """Be listed before anything is held, and before others take what was kept for dead."""
        if not self._began:
            with self._beginning:
                self._list_us()

    def _list_us(self) -> None:
        if self._began:
            return
        self._keeper.start()
        for owner, fields in self._house.kept:
            with self._house.links.borrow() as link:
                leave(link, self._house.keys, owner, fields)  # its own attempt may have failed
        self._began = True

    def _owners(self) -> list[str]:
        """Ours, and those whose messages run here although their consumer is gone."""
        return [self._owner, *(owner for owner, _ in self._house.kept)]

    # ── the receiving lane ───────────────────────────────────────────────────────────────────────────────────────

    def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        ends = time.monotonic() + wait
        look = _FIRST_LOOK
        try:
            with self._house.translating:
                self._begin()
                while True:
                    # whoever has just taken the last ones need not ask whether there are more: he would be woken
                    found = [] if self._claimer.is_dry and wait > 0 else self._claimer.claim(limit)
                    self._claimer.is_dry = False
                    left = ends - time.monotonic()
                    if found or left <= 0 or self._closed or self._interrupted.is_set():
                        return found
                    until = min(left, look, *(() if self._claimer.next_due is None else (self._claimer.next_due,)))
                    self._sleeper.sleep(until, self._keeper.looks_at)
                    look = min(2 * look, _LAST_LOOK)
        finally:
            self._interrupted.clear()

    def redirect(self, queues: Sequence[QueueSpec]) -> None:
        """Receive from these from now on. In the thread that receives."""
        names = list(dict.fromkeys(queue.name for queue in queues))
        if self._house.strategy == "sorted":
            names.sort()
        self._claimer.redirect(names)
        self._sleeper.redirect([self._house.keys.wake(name) for name in names])
        self._keeper.redirect(names)

    def interrupt(self) -> None:
        self._interrupted.set()
        self._sleeper.interrupt()

    # ── the settling lane ────────────────────────────────────────────────────────────────────────────────────────

    def settle(self, batch: Sequence[Settlement]) -> Sequence[Receipt]:
        return self.commit((), (), batch)

    def commit(
        self, results: Sequence[ResultRecord], sends: Sequence[Outgoing], settlements: Sequence[Settlement]
    ) -> Sequence[Receipt]:
        with self._house.translating:
            return self._settler.commit(results, sends, settlements)

    def renew(self, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        with self._house.translating:
            self._begin()
            return self._settler.renew(receipts)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def close(self) -> None:
        self.close_keeping(())

    def close_keeping(self, receipts: Sequence[Receipt]) -> None:
        """As :meth:`close`, but ``receipts`` stay held, to be renewed and settled through another consumer."""
        if self._closed:
            return
        self._closed = True
        self.interrupt()
        kept = by_owner(receipts)
        leaving = {owner for owner, _ in self._house.kept} | set(kept)
        self._house.kept[:] = kept.items()
        if self._began:
            leaving.add(self._owner)
        self._keeper.stop()
        try:
            with self._house.translating:
                for owner in leaving:
                    self._settler.leave(owner, kept.get(owner, ()), self._queues)
        finally:
            self._sleeper.close()
            self._claimer.close()
            self._settler.close()
