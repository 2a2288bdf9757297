"""The settling lane: results, follow-ups, settlements and renewals, each batch one script call on its own connection.

Settlements are numbered: when the answer to one is lost on its way it is told again, and the server does it once.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from celeriac.redis.errors import Fault, LinkBroken, ReplyError, fault_of
from celeriac.redis.keys import read_field
from celeriac.redis.records import digest, is_success
from celeriac.redis.scripts import script
from celeriac.transports.epitaph import epitaph
from celeriac.transports.redis.sending import Nonces, Sends
from celeriac.transports.redis.settling import Verdicts, by_owner, pairs, unmarked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celeriac.clock import Clock
    from celeriac.redis.connect import Argument, Link
    from celeriac.redis.keys import Keys
    from celeriac.redis.records import Records
    from celeriac.redis.scripts import Script
    from celeriac.transports.base import Outgoing, Settlement
    from celeriac.transports.redis.sending import Sorter
    from celeriac.transports.redis.settling import Receipt
    from celeriac.wire.result_record import ResultRecord

_SETTLE, _RENEW, _LEAVE = script("settle"), script("renew"), script("leave")
#: seconds within which a settlement is told again
_HEAL = 1.5


def leave(link: Link, keys: Keys, owner: str, kept: Sequence[str], queues: Sequence[str] = ()) -> int:
    """Give back what a consumer of ``queues`` holds, but for ``kept``; how many messages are still held."""
    own = (keys.held(owner), keys.lease(owner), keys.fence(owner), keys.settled(owner))
    names = (keys.owners, *own, *map(keys.served, queues))
    left: int = _LEAVE.run(link, names, (keys.prefix, keys.separator, owner, *kept))
    return left


def _fetch(held: str, field: str, link: Link) -> bytes | None:
    payload: bytes | None = link.call("HGET", held, field)
    return payload


class Settler:
    """Settles for one consumer, whosever messages they are. One thread."""

    def __init__(
        self, open_link: Callable[[float | None], Link], keys: Keys, owner: str, sorter: Sorter, records: Records,
        lease: float, kept_for: float, clock: Clock,
    ) -> None:  # fmt: skip
        self._open_link = open_link
        self._keys = keys
        self._owner = owner
        self._sorter = sorter
        self._records = records
        self._lease_ms = int(lease * 1000)
        self._kept_for = kept_for
        self._clock = clock
        self._nonces = Nonces()
        self._link: Link | None = None
        self._number = 0

    def commit(
        self, results: Sequence[ResultRecord], sends: Sequence[Outgoing], settlements: Sequence[Settlement]
    ) -> list[Receipt]:
        if not (results or sends or settlements):
            return []
        verdicts = Verdicts(settlements)
        epitaphs = self._epitaphs(verdicts)
        sorted_sends = self._sorter.sort(sends, self._connected()) if sends else Sends()
        self._number += 1
        judged = [""] * len(results)
        while True:
            names, arguments = self._head(results, judged)
            sorted_sends.write(self._keys, self._nonces, names, arguments)
            verdicts.write(self._keys, self._nonces, epitaphs, self._kept_for, names, arguments)
            unsure, lost = self._run(_SETTLE, names, arguments)
            if not unsure:
                return pairs(lost)
            results, judged = self._judge(results, unsure)

    def _head(
        self, results: Sequence[ResultRecord], judged: Sequence[str]
    ) -> tuple[list[str | bytes], list[Argument]]:  # fmt: skip
        keys, arguments = self._records.arguments(results, judged)
        return [self._keys.settled(self._owner), *keys], [
            self._keys.prefix, self._keys.separator, self._number, *arguments
        ]  # fmt: skip

    def _judge(
        self, results: Sequence[ResultRecord], unsure: Sequence[int]
    ) -> tuple[list[ResultRecord], list[str]]:  # fmt: skip
        """What stands under some keys could not be read by the script: read it here, and say what may be replaced."""
        keys = [self._records.key(results[number - 1].task_id) for number in unsure]
        stored = dict(zip(unsure, self._connected().call("MGET", *keys), strict=True))
        wanted: list[ResultRecord] = []
        judged: list[str] = []
        for number, record in enumerate(results, 1):
            value = stored.get(number)
            if value is not None and is_success(value):
                continue
            wanted.append(record)
            judged.append(digest(value) if value is not None else "")
        return wanted, judged

    def _epitaphs(self, verdicts: Verdicts) -> dict[Receipt, bytes]:
        """For what is to be buried, with the bytes that the server holds."""
        found: dict[Receipt, bytes] = {}
        for (owner, field), verdict in verdicts.burials:
            payload = self._healing(partial(_fetch, self._keys.held(owner), field))
            if payload is not None:
                bare, attempts, _ = unmarked(payload)
                found[owner, field] = epitaph(
                    reason=verdict.reason, queue=read_field(field).queue, worker=verdict.worker,
                    buried_at=self._clock.time(), payload=bare, attempts=attempts,
                )  # fmt: skip
        return found

    def renew(self, receipts: Sequence[Receipt]) -> list[Receipt]:
        """Returns those that are lost."""
        lost: list[Receipt] = []
        for owner, fields in by_owner(receipts).items():
            gone = self._run(_RENEW, [self._keys.lease(owner)], [self._lease_ms, *fields])
            lost += [(owner, field.decode()) for field in gone]
        return lost

    def leave(self, owner: str, kept: Sequence[str], queues: Sequence[str]) -> int:
        """Give back what a consumer holds, but for ``kept``; how many messages are still held."""
        left: int = self._healing(lambda link: leave(link, self._keys, owner, kept, queues))
        return left

    # ── the connection ───────────────────────────────────────────────────────────────────────────────────────────

    def _run(self, called: Script, names: Sequence[str | bytes], arguments: Sequence[Argument]) -> Any:
        return self._healing(lambda link: called.run(link, names, arguments))

    def _healing(self, work: Callable[[Link], Any]) -> Any:
        """Once more when the connection breaks: everything here may be done twice."""
        try:
            return work(self._connected())
        except LinkBroken:
            self.close()
            return work(self._connected(time.monotonic() + _HEAL))
        except ReplyError as error:
            if fault_of(error) is Fault.STANDBY:
                self.close()  # somebody else is the master now
            raise

    def _connected(self, deadline: float | None = None) -> Link:
        if self._link is None:
            self._link = self._open_link(deadline)
        return self._link

    def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()
