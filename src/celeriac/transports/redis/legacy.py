"""What Celery's workers took from the queues and never settled: its ``unacked`` hash, after a move to other workers.

Celery's own workers give such messages back after the visibility timeout; where none is left, nobody does.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from celeriac.errors import Unroutable
from celeriac.redis.scripts import script
from celeriac.transports.base import Stranded
from celeriac.wire.envelope import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from celeriac.clock import Clock
    from celeriac.redis.connect import Link
    from celeriac.redis.keys import Keys

_RESTORE = script("restore")
#: entries read and given back with one call
_BITE = 200
#: seconds that one call may take
_PATIENCE = 30.0


class _Entry(NamedTuple):
    tag: bytes
    taken_at: float | None
    queue: str
    step: int
    task: str
    payload: bytes


class Unacked:
    """The hash of one set of transport options. One thread."""

    def __init__(
        self, link: Link, keys: Keys, options: Mapping[str, Any], queues_for: Callable[[Route], list[str]], clock: Clock
    ) -> None:  # fmt: skip
        self._link = link
        self._keys = keys
        self._hash = keys.prefix + str(options.get("unacked_key") or "unacked")
        self._index = keys.prefix + str(options.get("unacked_index_key") or "unacked_index")
        self._queues_for = queues_for
        self._clock = clock

    def stranded(self, older_than: float) -> list[Stranded]:
        """What was taken more than ``older_than`` seconds ago, the oldest first."""
        entries = self._entries(self._clock.time() - older_than)
        return [
            Stranded(
                id=entry.tag.decode("utf-8", "replace"), queue=entry.queue, task=entry.task, taken_at=entry.taken_at
            )
            for entry in sorted(entries, key=_age)
        ]

    def restore(self, older_than: float) -> int:
        """Give it back to the front of its queues; how many."""
        latest = self._clock.time() - older_than
        entries = sorted(self._entries(latest), key=_age, reverse=True)
        restored = 0
        for start in range(0, len(entries), _BITE):
            bite = entries[start : start + _BITE]
            names = [self._hash, self._index]
            arguments: list[Any] = [latest]
            for entry in bite:
                names += (self._keys.list_of(entry.queue, entry.step), self._keys.wake(entry.queue))
                arguments += (entry.tag, entry.payload)
            restored += _RESTORE.run(self._link, names, arguments, time.monotonic() + _PATIENCE)
        return restored

    def _entries(self, latest: float) -> Iterator[_Entry]:
        cursor: bytes = b"0"
        seen: set[bytes] = set()
        while True:
            cursor, flat = self._link.call("HSCAN", self._hash, cursor, "COUNT", _BITE)
            tags = [tag for tag in flat[::2] if tag not in seen]
            values = dict(zip(flat[::2], flat[1::2], strict=True))
            times = self._link.call("ZMSCORE", self._index, *tags) if tags else []
            seen.update(tags)
            for tag, taken in zip(tags, times, strict=True):
                taken_at = None if taken is None else float(taken)
                if taken_at is None or taken_at <= latest:
                    entry = self._entry(tag, taken_at, values[tag])
                    if entry is not None:
                        yield entry
            if cursor == b"0":
                return

    def _entry(self, tag: bytes, taken_at: float | None, value: bytes) -> _Entry | None:
        """None for what cannot be understood: it is left where it is."""
        try:
            envelope, exchange, routing_key = json.loads(value)
            properties, headers = envelope["properties"], envelope["headers"]
            info = properties["delivery_info"]
            headers["redelivered"] = info["redelivered"] = True
            payload = json.dumps(envelope).encode()
            queues = self._queues_for(Route(exchange or "", routing_key)) if exchange else [routing_key]
        except (ValueError, TypeError, KeyError, RecursionError, Unroutable):
            return None
        step = self._keys.step_of(properties.get("priority", 0))
        return _Entry(tag, taken_at, str(queues[0]), step, str(headers.get("task") or ""), payload)


def _age(entry: _Entry) -> float:
    return entry.taken_at or 0.0
