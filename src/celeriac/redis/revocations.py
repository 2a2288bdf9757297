"""The registry of what is revoked, in Redis: two sorted sets, used by the broker and by the result store.

    <prefix>_celeriac.{revoked}          zset     members by number: what came later has the higher one
    <prefix>_celeriac.{revoked}.ends     zset     the same members → when they expire (server ms)

A member is ``Revocation.member``. Both keys live as long as the longest entry. The braces keep them in one slot of a
cluster, unless the prefix has braces of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from celeriac.redis.errors import Fault, LinkBroken
from celeriac.redis.records import milliseconds
from celeriac.redis.scripts import script
from celeriac.wire.revocation import News, Standing, entry_of, fresh_ms

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from celeriac.redis.connect import Argument, Links
    from celeriac.redis.scripts import Script
    from celeriac.wire.revocation import Revocation

#: entries that one script call adds: the server does nothing else meanwhile
_BITE = 1000


class RedisRegistry:
    """Blocking, thread-safe, fork-safe. Raises what redis-py raises; its owners translate."""

    def __init__(self, links: Links, prefix: str) -> None:
        order = f"{prefix}_celeriac.{{revoked}}"
        self._keys = (order, f"{order}.ends")
        self._links = links
        self._add = script("revoke")
        self._read = script("revoked")

    def add(self, entries: Sequence[Revocation], kept: float) -> None:
        kept_ms = milliseconds(kept)
        for start in range(0, len(entries), _BITE):
            arguments: list[Argument] = [kept_ms, fresh_ms(kept_ms)]
            for entry in entries[start : start + _BITE]:
                replaced = entry.replaced
                arguments += (entry.member, len(replaced), *(other.member for other in replaced))
            self._run(self._add, arguments)

    def read(self, mark: int, limit: int) -> News:
        last, more, *found = self._run(self._read, (mark, limit))
        standing = []
        for member, left in zip(found[::2], found[1::2], strict=True):
            entry = entry_of(member.decode("utf-8", "replace"))
            if entry is not None:
                standing.append(Standing(entry, int(left) / 1000))
        return News(int(last), standing, bool(more))

    def _run(self, chosen: Script, arguments: Sequence[Argument]) -> Any:
        """Once more after a connection that was idle turned out to be dead: both scripts may be repeated."""
        with self._links.borrow() as link:
            try:
                return chosen.run(link, self._keys, arguments)
            except LinkBroken as error:
                if not link.reused or error.fault is not Fault.UNREACHABLE:
                    raise
        with self._links.borrow() as fresh:
            return chosen.run(fresh, self._keys, arguments)
