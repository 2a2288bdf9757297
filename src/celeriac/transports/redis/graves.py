"""Dead letters and quarantined messages: looked into, put back, thrown away."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any

from celeriac.errors import DecodeError, MessageError
from celeriac.redis.scripts import script
from celeriac.transports.base import Buried
from celeriac.transports.epitaph import read_epitaph
from celeriac.wire.kombu_json import decode_envelope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.redis.connect import Link
    from celeriac.redis.keys import Keys
    from celeriac.wire.envelope import Envelope

_UNBURY = script("unbury")
#: epitaphs of one list that are looked at when some are chosen, and read at a time
_MOST, _PAGE = 100_000, 500
#: epitaphs that one call moves
_BITE = 100
#: seconds that one call may take
_PATIENCE = 30.0


class Graves:
    """One thread."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    def newest(self, queues: Sequence[str], limit: int) -> list[Buried]:
        found: list[Buried] = []
        for queue in queues:
            for quarantined in (False, True):
                name = self._keys.buried(queue, quarantined)
                texts = self._link.call("LRANGE", name, 0, limit - 1, deadline=time.monotonic() + _PATIENCE)
                found += [_buried(text, queue, quarantined) for text in texts]
        found.sort(key=lambda one: one.buried_at, reverse=True)
        return found[:limit]

    def remove(self, chosen: Sequence[Buried], *, put_back: bool) -> int:
        """How many were still there."""
        wanted = {(one.queue, one.quarantined): set[str]() for one in chosen}
        for one in chosen:
            wanted[one.queue, one.quarantined].add(one.id)
        removed = 0
        for (queue, quarantined), ids in wanted.items():
            found = self._texts(self._keys.buried(queue, quarantined), ids)
            # the oldest first, as they had come
            found.reverse()
            for start in range(0, len(found), _BITE):
                names: list[str] = []
                arguments: list[Any] = []
                for text in found[start : start + _BITE]:
                    one = _buried(text, queue, quarantined)
                    names += (
                        self._keys.buried(queue, quarantined),
                        self._keys.list_of(queue, self._step(one.envelope)),
                        self._keys.wake(queue),
                    )
                    arguments += (text, int(put_back), one.raw)
                removed += _UNBURY.run(self._link, names, arguments, time.monotonic() + _PATIENCE)
        return removed

    def _texts(self, name: str, ids: set[str]) -> list[bytes]:
        found: list[bytes] = []
        for start in range(0, _MOST, _PAGE):
            texts = self._link.call("LRANGE", name, start, start + _PAGE - 1, deadline=time.monotonic() + _PATIENCE)
            found += [text for text in texts if _id(text) in ids]
            if len(texts) < _PAGE or len(found) == len(ids):
                break
        return found

    def _step(self, envelope: Envelope | None) -> int:
        return 0 if envelope is None else self._keys.step_of(envelope.properties.get("priority"))


def _id(text: bytes) -> str:
    return hashlib.sha1(text, usedforsecurity=False).hexdigest()[:16]


def _buried(text: bytes, queue: str, quarantined: bool) -> Buried:
    try:
        epitaph = read_epitaph(text)
    except DecodeError as error:
        # somebody else put it there
        return Buried(
            id=_id(text), queue=queue, quarantined=quarantined, reason=str(error), worker="", buried_at=0.0, raw=text
        )
    try:
        envelope, _ = decode_envelope(epitaph.payload)
    except MessageError:
        envelope = None
    return Buried(
        id=_id(text), queue=queue, quarantined=quarantined, reason=epitaph.reason, worker=epitaph.worker,
        buried_at=epitaph.buried_at, attempts=epitaph.attempts, envelope=envelope, raw=epitaph.payload,
    )  # fmt: skip
