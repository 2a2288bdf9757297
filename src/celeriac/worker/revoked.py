"""Which tasks are not to run any more: ids and stamps, remembered for a while, bounded.

The numbers are Celery's. A worker that was down when a task was revoked does not know of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from celeriac.clock import Clock

#: ids remembered, and for how many seconds
_MOST, _KEPT = 50_000, 10_800.0
#: stamped headers, and values of each
_MOST_HEADERS, _MOST_VALUES = 100, 10_000


class Revoked:
    """A set of ids, and of stamps, from which the oldest vanish."""

    def __init__(self, clock: Clock, most: int = _MOST, kept: float = _KEPT) -> None:
        self._clock = clock
        self._most = most
        self._kept = kept
        self._ends: dict[str, float] = {}
        #: header → values
        self.stamps: dict[str, dict[str, None]] = {}

    def add(self, ids: Iterable[str]) -> None:
        now = self._clock.monotonic()
        for one in ids:
            self._ends.pop(one, None)  # to the end of the order
            self._ends[one] = now + self._kept
        while self._ends:
            oldest = next(iter(self._ends))
            if len(self._ends) <= self._most and self._ends[oldest] > now:
                break
            del self._ends[oldest]

    def add_stamps(self, header: str, values: Iterable[str]) -> None:
        """Tasks that bear one of ``values`` in the stamped header are not to run."""
        if header not in self.stamps and len(self.stamps) >= _MOST_HEADERS:
            del self.stamps[next(iter(self.stamps))]
        known = self.stamps.setdefault(header, {})
        for value in values:
            known[value] = None
        while len(known) > _MOST_VALUES:
            del known[next(iter(known))]

    def __contains__(self, one: object) -> bool:
        ends = self._ends.get(one)  # type: ignore[call-overload]  # anything may be asked for
        return ends is not None and ends > self._clock.monotonic()

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[str]:
        now = self._clock.monotonic()
        return (one for one, ends in list(self._ends.items()) if ends > now)
