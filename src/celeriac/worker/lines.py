"""Where limited messages wait for their turn: some here, in line by key, the rest at the broker.

No I/O: the time is an argument. A line knows from its last refusal when it is worth while to ask again, and from what
has started so far how long those behind will have to wait.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from random import Random

    from celeriac.rules.counting import Need, Refused
    from celeriac.worker.claims import Claim

#: seconds; what will probably start sooner waits here, so that a turn is used as soon as it comes
SOON = 5.0
#: seconds; nobody waits here for longer, whatever was expected
PATIENCE = 30.0
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
            self._between = found if self._between is None else (self._between + found) / 2
            self._served, self._served_at = served, now

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
        return max(0.0, self.next_at - now) + (len(self.waiting) + len(away)) * self._spacing(now)

    def _spacing(self, now: float) -> float:
        """Seconds between two starts."""
        if not self.need.most:
            return self.need.interval
        if self._served is None:
            return _GUESS
        # when none has come back for longer than usual, they take longer now
        return max(self._between or _GUESS, now - self._served_at - _WINDOW - _LONGEST_PAUSE)

    def has_room(self, now: float) -> bool:
        """Whether one more may wait here. Those who are away don't count: what is here must never run out, and who
        comes by takes the place."""
        count, most = len(self.waiting), self.need.most
        expected = max(0.0, self.next_at - now) + count * self._spacing(now)
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
