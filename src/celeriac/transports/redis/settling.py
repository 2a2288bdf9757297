"""What the broker is told about held messages, as ``settle.lua`` reads it; and what a held message is called."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from celeriac.redis.keys import read_field
from celeriac.transports.base import Ack, Bury, Park, Release

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from celeriac.redis.connect import Argument
    from celeriac.redis.keys import Keys
    from celeriac.transports.base import Settlement
    from celeriac.transports.redis.sending import Nonces

#: the consumer that holds it, and the field of its ``held`` hash
Receipt = tuple[str, str]

#: what ``_give_back.lua`` puts in front of a message that comes back
_MARK = re.compile(rb'\{"x-celeriac-returns": ?\[(\d+), ?(\d+)\], ?"redelivered": ?true, ?')
_MARK_START = b'{"x-celeriac-returns":'
#: what a count that somebody else wrote is cut to
_MOST_ATTEMPTS = 1 << 31


def unmarked(payload: bytes) -> tuple[bytes, int, bool]:
    """The message's own bytes, how often it was started before, and whether it has been given back before."""
    if payload.startswith(_MARK_START) and (mark := _MARK.match(payload)):
        return b"{" + payload[mark.end() :], min(int(mark[1][:20]), _MOST_ATTEMPTS), True
    return payload, 0, False


class _Owned(NamedTuple):
    """What is settled of one consumer's messages."""

    acks: list[str]
    returns: list[tuple[str, bool, Park | None]]
    burials: list[tuple[Receipt, Bury]]


class Verdicts:
    """A batch of settlements, sorted by consumer and by what they do."""

    def __init__(self, batch: Iterable[Settlement]) -> None:
        self._owners: dict[str, _Owned] = {}
        for settlement in batch:
            owner, field = settlement.receipt
            owned = self._owners.get(owner)
            if owned is None:
                owned = self._owners[owner] = _Owned([], [], [])
            match settlement.verdict:
                case Ack():
                    owned.acks.append(field)
                case Release(count_attempt=counted):
                    owned.returns.append((field, counted, None))
                case Park(count_attempt=counted) as verdict:
                    owned.returns.append((field, counted, verdict))
                case Bury() as verdict:
                    owned.burials.append((settlement.receipt, verdict))

    @property
    def burials(self) -> list[tuple[Receipt, Bury]]:
        return [burial for owned in self._owners.values() for burial in owned.burials]

    def write(
        self, keys: Keys, nonces: Nonces, epitaphs: Mapping[Receipt, bytes], kept_for: float, now: float,
        names: list[str | bytes], arguments: list[Argument],
    ) -> None:  # fmt: skip
        """Append what ``settle.lua`` reads. ``kept_for``: seconds that what is buried is kept; 0: for ever. ``now``:
        by the clock that times are told by, which is not the server's."""
        arguments.append(len(self._owners))
        for owner, owned in self._owners.items():
            names += (keys.held(owner), keys.lease(owner))
            arguments += (owner, len(owned.acks))
            arguments += owned.acks
            arguments.append(len(owned.returns))
            # the oldest last: it comes to stand in front
            for field, counted, park in sorted(owned.returns, key=_newest_first):
                queue = read_field(field).queue
                names += (keys.delayed(queue), keys.wake(queue))
                arguments += (field, int(counted), *_appointment(park, now), nonces.next())
            arguments.append(len(owned.burials))
            for receipt, verdict in owned.burials:
                names.append(keys.buried(read_field(receipt[1]).queue, verdict.quarantine))
                arguments += (receipt[1], epitaphs.get(receipt, b""), int(kept_for * 1000))


def _appointment(park: Park | None, now: float) -> tuple[int, int]:
    """Not before this time, and not before so long from now, by the server's clock; ms. Zeros: at once."""
    if park is None:
        return 0, 0
    return 1 if park.relative else max(1, int(park.until * 1000)), max(0, int((park.until - now) * 1000))


def _newest_first(returned: tuple[str, bool, Park | None]) -> tuple[int, int]:
    field = read_field(returned[0])
    return (-field.claim, -field.number)


def by_owner(receipts: Iterable[Receipt]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for owner, field in receipts:
        found.setdefault(owner, []).append(field)
    return found


def pairs(flat: Sequence[bytes], decode: Callable[[bytes], str] = bytes.decode) -> list[Receipt]:
    """``owner, field, owner, field`` as receipts."""
    return [(decode(owner), decode(field)) for owner, field in zip(flat[::2], flat[1::2], strict=True)]
