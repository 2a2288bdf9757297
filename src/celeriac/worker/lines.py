"""Where limited messages wait for their turn: some here, in line by key, the rest at the broker.

No I/O: the time is an argument. A line knows from its last refusal when it is worth while to ask again, and from what
has started so far how long those behind will have to wait.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING

import msgspec

from celeriac.rules.counting import Need

if TYPE_CHECKING:
    from collections.abc import ItemsView, Sequence
    from random import Random

    from celeriac.rules.counting import Permit, Refused
    from celeriac.worker.claims import Claim

#: seconds; what will probably start sooner waits here, so that a turn is used as soon as it comes
SOON = 5.0
#: seconds; nobody waits here for longer, whatever was expected; but those who are next, so that somebody is at hand
PATIENCE, FRONT_PATIENCE = 30.0, 300.0
#: messages that wait here for one key, and for all
LINE, LINES = 200, 1000
#: seconds between two questions for a permit: the first after a refusal, and the longest
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
#: A message comes back after this part of what it is expected to wait: a wrong guess must not leave permits unused,
#: and coming back once or twice more costs little.
_PART = 0.5
#: seconds; the longest that it is away, so that a limit that is lifted is felt. Permits come back when they do, turns
#: at a known time
_LONGEST_FOR_TURN, _LONGEST_FOR_PERMIT = 600.0, 60.0
#: seconds between two permits that come back, as long as nobody knows (a high guess would leave them unused), and over
#: which their pace is measured
_GUESS, _WINDOW = 0.01, 0.25
#: keys that are remembered
_KEYS = 10_000
#: messages of one key that are remembered to be away
_MOST_AWAY = 10_000


class Applicant(msgspec.Struct, gc=False, eq=False):
    """A message that needs something to start."""

    claim: Claim
    needs: tuple[Need, ...]
    holder: str
    #: monotonic; when it was first refused since it came here
    since: float | None = None
    #: the line it waits in, or comes from
    line: Line | None = None


class Line:
    """Those who wait for one key."""

    def __init__(self, need: Need, now: float) -> None:
        self.need = need
        self.waiting: deque[Applicant] = deque()
        self.next_at = now  #: when to ask again
        self.used_at = now
        self.sent_back = 0
        self.told_at: float | None = None
        self.untold = 0
        self._pause = 0.0
        #: permits given out by all workers' questions, when that was first seen, and the seconds between two of them
        self._served: int | None = None
        self._served_at = now
        self._between: float | None = None
        self._away: list[float] = []

    def refused(self, need: Need, answer: Refused, now: float) -> None:
        """The store has said no."""
        self.need = need
        wait = answer.wait
        if need.most:
            self._pause = min(_LONGEST_PAUSE, self._pause * 1.5) if self._pause else _FIRST_PAUSE
            wait = self._pause
            self._watch(answer.served, now)
        self.next_at = now + max(wait, 0.001)
        self.used_at = now

    def _watch(self, served: int, now: float) -> None:
        """How fast permits come back, to whichever worker."""
        passed = now - self._served_at
        if self._served is None or served < self._served:  # the store has begun anew
            self._served, self._served_at = served, now
        elif served > self._served and passed >= _WINDOW:
            found = passed / (served - self._served)
            # a stall (a worker died with its permits) is no pace
            self._between = found if self._between is None else (self._between + min(found, 4 * self._between)) / 2
            self._served, self._served_at = served, now

    def await_free(self, now: float) -> None:
        """Ask again when a permit has been given back here, or after a while."""
        self.next_at = now + _LONGEST_PAUSE
        self.used_at = now

    def granted(self, now: float) -> None:
        """The store has said yes."""
        self._pause = 0.0
        self.used_at = now

    def freed(self, now: float) -> None:
        """A permit has been given back here: whoever is next may have it at once."""
        self.next_at = now
        self._pause = 0.0

    def portion(self, room: int) -> int:
        """How many to ask for at a time: as many as may have a chance, and where turns come singly one more, whose
        refusal tells when to ask again."""
        return max(1, min(room, self.need.most) if self.need.most else min(room, self.need.burst) + 1)

    def is_closed(self, now: float) -> bool:
        """Whether a newcomer need not ask: others are before it, or the last answer was no a moment ago."""
        return bool(self.waiting) or now < self.next_at

    def expected(self, now: float) -> float:
        """Seconds until a newcomer would start, if those who are away are before it."""
        away = self._away
        while away and away[0] <= now:
            heappop(away)
        return self._next_in(now) + (len(self.waiting) + len(away)) * self._spacing

    def _next_in(self, now: float) -> float:
        """Seconds until the next start."""
        wait = max(0.0, self.next_at - now)
        if not self.need.most or self._served is None:
            return wait
        # none has come back for longer than usual: perhaps for as long again. Then they come as they did before
        return max(wait, now - self._served_at - _WINDOW - _LONGEST_PAUSE)

    @property
    def _spacing(self) -> float:
        """Seconds between two starts."""
        return (self._between or _GUESS) if self.need.most else self.need.interval

    def has_room(self, now: float) -> bool:
        """Whether one more may wait here. Those who are away don't count: what is here must never run out, and who
        comes by takes the place."""
        count, most = len(self.waiting), self.need.most
        expected = self._next_in(now) + count * self._spacing
        # nobody knows when a permit comes back: as many as may run are at hand, and all until the pace is known
        at_hand = most and (count < most or self._between is None)
        return count < LINE and bool(at_hand or expected <= SOON)

    def absence(self, expected: float, least: float, now: float, random: Random) -> float:
        """Seconds that one more message should be away."""
        longest = _LONGEST_FOR_PERMIT if self.need.most else _LONGEST_FOR_TURN
        away = max(least, min(expected * _PART, longest * random.uniform(0.5, 1.0)))
        if len(self._away) < _MOST_AWAY:
            heappush(self._away, now + away)
        self.sent_back += 1
        self.used_at = now
        return away

    def count_away(self) -> int:
        return len(self._away)


#: what those wait for who could not be asked for: seconds between them are those of a store that is back
_STORE = Need("the store", interval=0.005)


class Lines:
    """All of them, and which are to be looked at next."""

    def __init__(self, now: float) -> None:
        self._all: dict[str, Line] = {}
        #: those in which somebody waits
        self._busy: dict[str, Line] = {}
        #: while the store does not answer, all wait here
        self.closed = Line(_STORE, now)
        self.due_at = inf  #: when somebody may have a chance

    def get(self, key: str) -> Line | None:
        return self._all.get(key)

    def of(self, need: Need, now: float) -> Line:
        """Its line, made where there is none."""
        line = self._all.get(need.key)
        if line is None:
            if len(self._all) >= _KEYS:
                self._forget_idle()
            line = self._all[need.key] = Line(need, now)
        return line

    def _forget_idle(self) -> None:
        """The older half of those where nobody waits."""
        idle = sorted((line.used_at, key) for key, line in self._all.items() if not line.waiting)
        for _, key in idle[: max(1, len(idle) // 2)]:
            del self._all[key]

    def join(self, applicant: Applicant, line: Line, first: bool) -> None:
        (line.waiting.appendleft if first else line.waiting.append)(applicant)
        applicant.line = line
        self._busy[line.need.key] = line
        self.due_at = min(self.due_at, line.next_at)

    def freed(self, permits: Sequence[Permit], now: float) -> None:
        """Whoever waits for one of these may have it at once."""
        for permit in permits:
            line = self._all.get(permit.key)
            if line is not None:
                line.freed(now)
                self.due_at = now

    def due(self, now: float) -> list[Line]:
        """Those that may be asked for, the longest due first."""
        if now < self.due_at:
            return []
        return sorted((line for line in self._busy.values() if line.next_at <= now), key=_by_time)

    def note_due(self) -> None:
        """Some have been asked for, or asked about."""
        for key in [key for key, line in self._busy.items() if not line.waiting]:
            del self._busy[key]
        self.due_at = min((line.next_at for line in self._busy.values()), default=inf)

    def leave(self) -> None:
        """Whoever waited is not wanted any more: nothing is due."""
        for line in self._busy.values():
            line.waiting.clear()
        self._busy.clear()
        self.due_at = inf

    def busy(self) -> list[Line]:
        return list(self._busy.values())

    def items(self) -> ItemsView[str, Line]:
        return self._all.items()


def _by_time(line: Line) -> float:
    return line.next_at
