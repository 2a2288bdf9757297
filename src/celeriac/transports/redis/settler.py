"""The settling lane: results, follow-ups, settlements and renewals, each batch one script call on its own connection.

Settlements are numbered: when the answer to one is lost on its way it is told again, and the server does it once.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from celeriac.redis.keys import TOKEN_MS, read_field
from celeriac.redis.opening import LastingLink
from celeriac.redis.records import digest, is_success
from celeriac.redis.scripts import script
from celeriac.transports.epitaph import epitaph
from celeriac.transports.redis.sending import Nonces, Sends
from celeriac.transports.redis.settling import Verdicts, by_owner, pairs, unmarked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celeriac.clock import Clock
    from celeriac.redis.connect import Argument, Link
    from celeriac.redis.keys import Keys
    from celeriac.redis.opening import Opener
    from celeriac.redis.records import Records
    from celeriac.redis.scripts import Script
    from celeriac.transports.base import Outgoing, Settlement
    from celeriac.transports.redis.sending import Sorter
    from celeriac.transports.redis.settling import Receipt
    from celeriac.wire.result_record import ResultRecord

_SETTLE, _RENEW, _LEAVE = script("settle"), script("renew"), script("leave")


def leave(link: Link, keys: Keys, owner: str, kept: Sequence[str], queues: Sequence[str] = ()) -> int:
    """Give back what a consumer of ``queues`` holds, but for ``kept``; how many messages are still held."""
    own = (keys.held(owner), keys.lease(owner), keys.fence(owner), keys.settled(owner))
    names = (keys.owners, *own, *map(keys.served, queues))
    left: int = _LEAVE.run(link, names, (keys.prefix, keys.separator, owner, *kept))
    return left


class Settler:
    """Settles for one consumer, whosever messages they are.

    On the event loop, one batch at a time: they are numbered.
    """

    def __init__(
        self, opener: Opener, keys: Keys, owner: str, sorter: Sorter, records: Records,
        lease: float, kept_for: float, clock: Clock,
    ) -> None:  # fmt: skip
        self._keys = keys
        self._owner = owner
        self._sorter = sorter
        self._records = records
        self._lease_ms = int(lease * 1000)
        self._kept_for = kept_for
        self._clock = clock
        self._nonces = Nonces()
        self._link = LastingLink(opener)
        self._number = 0
        self._settling = asyncio.Lock()

    async def commit(
        self, results: Sequence[ResultRecord], sends: Sequence[Outgoing], settlements: Sequence[Settlement]
    ) -> list[Receipt]:
        if not (results or sends or settlements):
            return []
        async with self._settling:
            verdicts = Verdicts(settlements)
            epitaphs = await self._epitaphs(verdicts)
            sorted_sends = await self._sorted(sends) if sends else Sends()
            self._number += 1
            judged = [""] * len(results)
            while True:
                names, arguments = self._head(results, judged)
                sorted_sends.write(self._keys, self._nonces, names, arguments)
                now = self._clock.time()
                verdicts.write(self._keys, self._nonces, epitaphs, self._kept_for, now, names, arguments)
                unsure, lost = await self._run(_SETTLE, names, arguments)
                if not unsure:
                    return pairs(lost)
                results, judged = await self._judge(results, unsure)

    def _head(
        self, results: Sequence[ResultRecord], judged: Sequence[str]
    ) -> tuple[list[str | bytes], list[Argument]]:  # fmt: skip
        keys, arguments = self._records.arguments(results, judged)
        return [self._keys.settled(self._owner), *keys], [
            self._keys.prefix, self._keys.separator, self._number, *arguments
        ]  # fmt: skip

    async def _sorted(self, sends: Sequence[Outgoing]) -> Sends:
        members: dict[str, set[bytes]] = {}
        while True:
            try:
                return self._sorter.sort(sends, partial(_known, members))
            except _Unknown as unknown:
                members[unknown.key] = set(await self._call("SMEMBERS", unknown.key))

    async def _judge(
        self, results: Sequence[ResultRecord], unsure: Sequence[int]
    ) -> tuple[list[ResultRecord], list[str]]:  # fmt: skip
        """What stands under some keys could not be read by the script: read it here, and say what may be replaced."""
        keys = [self._records.key(results[number - 1].task_id) for number in unsure]
        stored = dict(zip(unsure, await self._call("MGET", *keys), strict=True))
        wanted: list[ResultRecord] = []
        judged: list[str] = []
        for number, record in enumerate(results, 1):
            value = stored.get(number)
            if value is not None and is_success(value):
                continue
            wanted.append(record)
            judged.append(digest(value) if value is not None else "")
        return wanted, judged

    async def _epitaphs(self, verdicts: Verdicts) -> dict[Receipt, bytes]:
        """For what is to be buried, with the bytes that the server holds."""
        found: dict[Receipt, bytes] = {}
        for (owner, field), verdict in verdicts.burials:
            payload: bytes | None = await self._call("HGET", self._keys.held(owner), field)
            if payload is not None:
                bare, attempts, _ = unmarked(payload)
                found[owner, field] = epitaph(
                    reason=verdict.reason, queue=read_field(field).queue, worker=verdict.worker,
                    buried_at=self._clock.time(), payload=bare, attempts=attempts,
                )  # fmt: skip
        return found

    async def renew(self, receipts: Sequence[Receipt]) -> list[Receipt]:
        """Returns those that are lost."""
        lost: list[Receipt] = []
        async with self._settling:
            for owner, fields in by_owner(receipts).items():
                gone = await self._run(_RENEW, [self._keys.lease(owner)], [self._lease_ms, *fields])
                lost += [(owner, field.decode()) for field in gone]
        return lost

    async def ring(self, bell: str) -> None:
        """Wake who naps."""
        async with self._settling:
            await self._call("ZADD", bell, 0, "")
            await self._call("PEXPIRE", bell, TOKEN_MS)

    async def settled(self) -> None:
        """Wait for the batch under way; none begins after it as long as nobody calls."""
        async with self._settling:
            pass

    # ── the connection ───────────────────────────────────────────────────────────────────────────────────────────

    async def _run(self, called: Script, names: Sequence[str | bytes], arguments: Sequence[Argument]) -> Any:
        # everything here may be done twice
        return await self._link.heal(lambda link: called.ask(link, names, arguments))

    async def _call(self, *command: Argument) -> Any:
        return await self._link.heal(lambda link: link.call(*command))

    def close(self) -> None:
        self._link.close()


class _Unknown(Exception):
    """Somebody has to ask the server for the members of ``key``."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _known(members: Mapping[str, set[bytes]], key: str) -> set[bytes]:
    try:
        return members[key]
    except KeyError:
        raise _Unknown(key) from None
