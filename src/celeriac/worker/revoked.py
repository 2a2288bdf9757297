"""Which tasks are not to run any more, as this worker remembers it: ids and stamps, each for its time, bounded.

Every message is looked up here, so this is memory alone. What fills it: remote control (``commands/change.py``), the
registry (``revocations.py``), neighbours (``mingle.py``) and the state file (``state_file.py``).
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from celeriac.clock import Clock
    from celeriac.wire.revocation import Standing

#: ids remembered: some 80 MB; beyond that the oldest are forgotten
_MOST = 500_000
#: seconds, where nobody says how long
_KEPT = 30 * 86400.0
#: stamped headers, and values of each
_MOST_HEADERS, _MOST_VALUES = 100, 10_000
#: ids, and characters of them, that others are told: what one control message takes, with room to spare
_MOST_TOLD, _MOST_TOLD_CHARACTERS = 50_000, 3_000_000


class Revoked:
    """A set of ids, and of stamps, from which the oldest vanish."""

    def __init__(self, clock: Clock, most: int = _MOST, kept: float = _KEPT) -> None:
        self._clock = clock
        self._most = most
        self.kept = kept
        self._ends: dict[str, float] = {}
        #: header → values, with their end (monotonic)
        self.stamps: dict[str, dict[str, float]] = {}
        #: (header or '', value) → end; what was taken back, so that nobody's old knowledge brings it again
        self._pardoned: dict[tuple[str, str], float] = {}
        #: told when something was added or taken back
        self.on_change: Callable[[], None] = lambda: None

    def add(self, ids: Iterable[str], kept: float | None = None) -> None:
        """Tasks with these ids are not to run, for so many seconds."""
        now = self._clock.monotonic()
        ends = now + (self.kept if kept is None else kept)
        for one in ids:
            self._put(one, ends)
        self._trim(now)
        self.on_change()

    def add_stamps(self, header: str, values: Iterable[str], kept: float | None = None) -> None:
        """Tasks that bear one of ``values`` in the stamped header are not to run."""
        ends = self._clock.monotonic() + (self.kept if kept is None else kept)
        for value in values:
            self._put_stamp(header, value, ends)
        self.on_change()

    def learn(self, standing: Iterable[Standing]) -> None:
        """Add entries that somebody else has kept."""
        now = self._clock.monotonic()
        for one in standing:
            if one.entry.header:
                self._put_stamp(one.entry.header, one.entry.value, now + one.left)
            else:
                self._put(one.entry.value, now + one.left)
        self._trim(now)
        self.on_change()

    def pardon(self, values: Iterable[tuple[str, str]], kept: float | None = None) -> None:
        """Forget these: (header, value), or ('', id) for tasks. What was revoked earlier is to be heeded no more."""
        ends = self._clock.monotonic() + (self.kept if kept is None else kept)
        for header, value in values:
            self._pardoned.pop((header, value), None)
            self._pardoned[header, value] = ends
            if not header:
                self._ends.pop(value, None)
            elif header in self.stamps:
                self.stamps[header].pop(value, None)
                if not self.stamps[header]:
                    del self.stamps[header]
        while len(self._pardoned) > self._most:
            del self._pardoned[next(iter(self._pardoned))]
        self.on_change()

    def is_pardoned(self, header: str, value: str) -> bool:
        """Whether it was taken back after it was revoked."""
        ends = self._pardoned.get((header, value))
        return ends is not None and ends > self._clock.monotonic()

    def _put(self, one: str, ends: float) -> None:
        self._pardoned.pop(("", one), None)
        before = self._ends.pop(one, 0.0)  # to the end of the order
        self._ends[one] = max(before, ends)

    def _trim(self, now: float) -> None:
        while self._ends:
            oldest = next(iter(self._ends))
            if len(self._ends) <= self._most and self._ends[oldest] > now:
                break
            del self._ends[oldest]

    def _put_stamp(self, header: str, value: str, ends: float) -> None:
        self._pardoned.pop((header, value), None)
        if header not in self.stamps and len(self.stamps) >= _MOST_HEADERS:
            del self.stamps[next(iter(self.stamps))]
        known = self.stamps.setdefault(header, {})
        known[value] = max(known.get(value, 0.0), ends)
        if len(known) > _MOST_VALUES:
            del known[next(iter(known))]

    def tidy(self) -> None:
        """Let go of what has had its time; ids go by themselves, stamps only here."""
        now = self._clock.monotonic()
        self._trim(now)
        for key in [key for key, ends in self._pardoned.items() if ends <= now]:
            del self._pardoned[key]
        for header in list(self.stamps):
            known = self.stamps[header]
            for value in [value for value, ends in known.items() if ends <= now]:
                del known[value]
            if not known:
                del self.stamps[header]

    @property
    def ids(self) -> Collection[str]:
        """All of them, and some whose time is over: to see quickly that one is not among them."""
        return self._ends

    def __contains__(self, one: object) -> bool:
        ends = self._ends.get(one)  # type: ignore[call-overload]  # anything may be asked for
        return ends is not None and ends > self._clock.monotonic()

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[str]:
        now = self._clock.monotonic()
        return (one for one, ends in list(self._ends.items()) if ends > now)

    def newest(self) -> list[str]:
        """The ids to tell others of, the oldest first: all of them, or as many as one message takes."""
        told: list[str] = []
        characters = 0
        now = self._clock.monotonic()
        for one, ends in reversed(self._ends.items()):
            characters += len(one)
            if len(told) >= _MOST_TOLD or characters > _MOST_TOLD_CHARACTERS:
                break
            if ends > now:
                told.append(one)
        told.reverse()
        return told

    def left(self, most: int) -> list[tuple[str, str, float]]:
        """(header, value, seconds left), to be kept elsewhere: all stamps, and the newest ids, the oldest first."""
        now = self._clock.monotonic()
        found = [
            (header, value, ends - now)
            for header, values in self.stamps.items()
            for value, ends in values.items()
            if ends > now
        ]
        chosen = islice(self._ends.items(), max(len(self._ends) - most, 0), None)
        found.extend(("", one, ends - now) for one, ends in chosen if ends > now)
        return found
