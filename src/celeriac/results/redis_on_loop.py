"""Results on their way into Redis from an event loop: no change of threads between an outcome and its record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celeriac.errors import BackendStoreError
from celeriac.redis.opening import LastingLink, Opener
from celeriac.redis.records import digest, is_success
from celeriac.redis.scripts import script
from celeriac.transports.threads import Lane

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celeriac.redis.address import Address
    from celeriac.redis.errors import Translating
    from celeriac.redis.records import Records
    from celeriac.results.base import ResultRecord

#: records and bytes that one script call stores: the server does nothing else meanwhile
_WRITE_RECORDS, _WRITE_BYTES = 512, 4 << 20
#: times that a record which the script cannot read is read here and offered again
JUDGEMENTS = 5


class RedisLoopWriter:
    """One connection, opened in a thread. One batch at a time."""

    def __init__(self, address: Address, records: Records, writing: Translating) -> None:
        self._lane = Lane("celeriac-redis-results")
        self._link = LastingLink(Opener(address, self._lane.submit))
        self._records = records
        self._writing = writing
        self._script = script("store")

    async def write(self, records: Sequence[ResultRecord]) -> None:
        with self._writing:
            for part in parts_of(records):
                if unsure := await self._store(part):
                    await self._store_judged(unsure)

    async def _store(self, records: Sequence[ResultRecord], judged: Sequence[str] = ()) -> list[ResultRecord]:
        """One script call. Returns those that it left alone, since it cannot read what is stored."""
        keys, arguments = self._records.arguments(records, judged)
        # what is stored twice is stored
        unsure: list[int] = await self._link.heal(lambda link: self._script.ask(link, keys, arguments))
        return [records[number - 1] for number in unsure]

    async def _store_judged(self, records: list[ResultRecord]) -> None:
        """Look here at what the script cannot read, and replace just that."""
        for _ in range(JUDGEMENTS):
            names = [self._records.key(record.task_id) for record in records]
            stored = await self._link.heal(lambda link, names=names: link.call("MGET", *names))  # type: ignore[misc]
            pairs = [(record, value) for record, value in zip(records, stored, strict=True) if not is_success(value)]
            records = await self._store([record for record, _ in pairs], [digest(value) for _, value in pairs])
            if not records:
                return
        raise too_restless(records)

    def close(self) -> None:
        self._link.close()
        self._lane.close()


def too_restless(records: Sequence[ResultRecord]) -> BackendStoreError:
    return BackendStoreError(f"The results of {len(records)} tasks change faster than they can be replaced")


def parts_of(records: Sequence[ResultRecord]) -> Iterator[Sequence[ResultRecord]]:
    """Bites that one script call may store."""
    part: list[ResultRecord] = []
    size = 0
    for record in records:
        if part and (len(part) >= _WRITE_RECORDS or size + len(record.payload) > _WRITE_BYTES):
            yield part
            part, size = [], 0
        part.append(record)
        size += len(record.payload)
    if part:
        yield part
