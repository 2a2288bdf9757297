"""Where a worker has several pools: dispatch and intake that keep them apart, so that a full one does not stop another.

What waits for a full pool is passed over, a crowd of a bounded size; beyond that it goes back to the broker for a
while, so that what is behind it in the queue comes here. A worker with one pool uses nothing of this.
"""

from __future__ import annotations

import logging
from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from celeriac.rules.claim import LOST, RUNNING, advance_all
from celeriac.transports.base import RELEASE
from celeriac.worker.dispatch import Dispatch
from celeriac.worker.hoard import Hoard
from celeriac.worker.intake import Intake

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from celeriac.clock import Clock
    from celeriac.executors.base import Divided
    from celeriac.worker.admit import Admission
    from celeriac.worker.claims import Claim, Claims
    from celeriac.worker.options import Plan
    from celeriac.worker.session import Session
    from celeriac.worker.settle import Settle

logger = logging.getLogger("celeriac.worker")

#: messages that may wait here for full pools, beyond those that one pool would hold ahead as well
CROWD = 64
#: seconds between two looks at the crowd; that one is in it before it goes back; over which a pool's pace is taken
_LOOK, _PATIENCE, _WINDOW = 0.25, 0.5, 8.0
#: seconds; what will probably start sooner stays
_SOON = 2.0
#: seconds in which nothing has started in a pool: then what it has taken and not begun goes back
_STILL = 1.0
#: of those that were sent back, how many may return in a second; and the longest that one is away
_RETURNS, _LONGEST = 32, 600.0
#: seconds between two words about one pool
_TELL = 60.0


class Queues(NamedTuple):
    """Of each pool, at one moment."""

    rooms: list[int]  #: how many more may start
    waiting: list[int]  #: how many are here for that

    @property
    def free(self) -> int:
        """Places for which nobody is here."""
        return sum(max(room - waiting, 0) for room, waiting in zip(*self, strict=True))

    @property
    def surplus(self) -> int:
        """Those for whom there is no place."""
        return sum(max(waiting - max(room, 0), 0) for room, waiting in zip(*self, strict=True))

    @property
    def any_full(self) -> bool:
        return any(room <= waiting for room, waiting in zip(*self, strict=True))


class DividedDispatch(Dispatch):
    """Hands over in order, past those whose pool is full."""

    def __init__(self, claims: Claims, executor: Divided, session: Session) -> None:
        super().__init__(claims, executor, session)  # type: ignore[arg-type]  # an executor that is divided
        self._pools = executor
        #: by pool, how many have been handed over
        self.started = [0] * len(executor.pools)
        #: by pool, the one that runs with nothing beside it
        self._alone: dict[int, Claim] = {}

    def place(self, claim: Claim) -> int:
        return self._pools.place(claim.request.task)

    def rooms(self) -> list[int]:
        """How many more may start in each pool."""
        rooms = self._pools.rooms()
        for claim in (*self._in_flight, *self._claims.early):
            rooms[self.place(claim)] -= 1
        return rooms

    def room(self) -> int:
        return sum(max(room, 0) for room in self.rooms()) - self.promised

    def is_open(self) -> bool:
        return not self.paused

    def allot(self) -> Callable[[str], bool]:
        rooms, waiting = self.queues()
        left = [room - count for room, count in zip(rooms, waiting, strict=True)]
        for place in self._closed():
            left[place] = 0

        def fits(task: str) -> bool:
            place = self._pools.place(task)
            left[place] -= 1
            return left[place] >= 0

        return fits

    def queues(self, *, with_gated: bool = False) -> Queues:
        claims = self._claims
        waiting = [0] * len(self._pools.pools)
        for claim in (*claims.ready, *claims.suspects):
            waiting[self.place(claim)] += 1
        if with_gated:
            for claim in claims.gated.values():
                waiting[self.place(claim)] += claim.id not in claims.lined
        return Queues(self.rooms(), waiting)

    def pump(self) -> None:
        """Hand over what is ready and fits."""
        claims = self._claims
        if claims.gated:
            self.on_gated()
        if self.paused:
            return
        if claims.suspects or self._alone:
            self._isolate()
        if not claims.ready:
            return
        taken = self._take_fitting()
        if claims.ready:
            self.on_blocked()
        if taken:
            self._hand(taken)

    def _isolate(self) -> None:
        """Suspects, each once nothing else runs in its pool: a process that one takes down is not another pool's."""
        claims = self._claims
        for place, claim in list(self._alone.items()):
            if claim.state not in (RUNNING, LOST):
                del self._alone[place]
        busy = {self.place(claims.held[task_id]) for task_id in claims.running_ids()}
        busy.update(map(self.place, (*self._in_flight, *claims.early)))
        for claim in list(claims.suspects):
            place = self.place(claim)
            if place in busy:
                continue
            claims.suspects = deque(one for one in claims.suspects if one is not claim)
            if claims.may_expire and not self.unexpired([claim]):
                continue
            busy.add(place)
            self._alone[place] = claim
            advance_all((claim,), RUNNING)
            self._executor.submit([claim.request])
        if claims.suspects:
            self.on_blocked()

    def _closed(self) -> set[int]:
        """Pools in which one runs alone, or is to."""
        return {*self._alone, *map(self.place, self._claims.suspects)}

    def _take_fitting(self) -> list[Claim]:
        ready, rooms, place = self._claims.ready, self.rooms(), self._pools.place
        for closed in self._closed():
            rooms[closed] = 0
        free = sum(max(room, 0) for room in rooms) - self.promised - self.reserved
        taken: list[Claim] = []
        passed: list[Claim] = []
        while ready and len(taken) < free:
            claim = ready.popleft()
            where = place(claim.request.task)
            if rooms[where] > 0:
                rooms[where] -= 1
                self.started[where] += 1
                taken.append(claim)
            else:
                passed.append(claim)
        ready.extendleft(reversed(passed))
        return taken


class DividedIntake(Intake):
    """Fetches for those that have room, as long as the crowd before the others is not too large."""

    _dispatch: DividedDispatch

    def credit(self) -> int:
        plan, claims = self._plan, self._claims
        if self._settle.backlog >= plan.backlog or claims.later_count >= plan.held_limit:
            return 0
        queues = self._dispatch.queues(with_gated=True)
        free, left = queues.free, self.ahead() - queues.surplus
        credit = free + max(left, 0)
        if not free:
            credit = left
        elif queues.any_full:
            # what comes may all be for the full one
            credit = min(credit, left + self.crowd)
        return min(plan.batch, credit)

    @property
    def crowd(self) -> int:
        """Where the broker cannot keep them for a while, they wait here, as what is for later does."""
        return CROWD if self._admission.can_send_back else self._plan.held_limit

    def _least(self) -> int:
        return min(super()._least(), self.crowd // 2)


class Crowd(Hoard):
    """Sends back those who stand in the way: too many for a full pool, and not to start soon."""

    def __init__(
        self, intake: Intake, dispatch: DividedDispatch, settle: Settle, claims: Claims, executor: Divided,
        admission: Admission, plan: Plan, clock: Clock, random: Random,
    ) -> None:  # fmt: skip
        super().__init__(intake, dispatch, settle, claims, executor, clock)  # type: ignore[arg-type]  # as above
        self._divided = dispatch
        self._pools = executor
        self._admission = admission
        self._plan = plan
        self._random = random
        #: id → monotonic time since which it has been seen waiting
        self._since: dict[str, float] = {}
        #: (monotonic time, handed over by pool), the oldest first
        self._samples = deque([(clock.monotonic(), list(dispatch.started))])
        self._moved_at = [clock.monotonic()] * len(executor.pools)
        #: by pool, when those will be back who were sent away
        self._away: list[list[float]] = [[] for _ in executor.pools]
        self._untold = [0] * len(executor.pools)
        self._told_at: list[float | None] = [None] * len(executor.pools)

    async def run(self, started: Callable[[], None]) -> None:
        started()
        while True:
            await self._clock.sleep(_LOOK)
            self.look()

    def look(self) -> None:
        now = self._clock.monotonic()
        self._note_pace(now)
        if self._dispatch.paused or self._intake.is_stopping:
            return
        waiting: list[list[Claim]] = [[] for _ in self._pools.pools]
        for claim in self._claims.ready:
            waiting[self._divided.place(claim)].append(claim)
        for claim in self._claims.gated.values():
            if claim.id not in self._claims.lined:
                waiting[self._divided.place(claim)].append(claim)
        self._since = {claim.id: self._since.get(claim.id, now) for part in waiting for claim in part}
        rooms = self._divided.rooms()
        if self._admission.can_send_back:
            for place, part in enumerate(waiting):
                self._disperse(place, part[self._may_stay(place, rooms[place], now) :], now)
        self._give_back_taken(now)

    def _note_pace(self, now: float) -> None:
        started = list(self._divided.started)
        for place, (count, before) in enumerate(zip(started, self._samples[-1][1], strict=True)):
            if count != before:
                self._moved_at[place] = now
        self._samples.append((now, started))
        while self._samples[0][0] < now - _WINDOW:
            self._samples.popleft()

    def _may_stay(self, place: int, room: int, now: float) -> int:
        """How many of those who wait for this pool: who has room, was asked for, or will start soon."""
        multiplier = self._plan.prefetch_multiplier
        asked_for = (multiplier - 1) * self._pools.pools[place].slots if multiplier else self._plan.batch
        since, before = self._samples[0]
        pace = (self._divided.started[place] - before[place]) / max(now - since, 1.0)
        return max(room, 0) + max(asked_for, int(-(-pace * _SOON // 1)))

    def _disperse(self, place: int, surplus: list[Claim], now: float) -> None:
        gone = [claim for claim in surplus if now - self._since[claim.id] >= _PATIENCE]
        if not gone:
            return
        away = self._away[place]
        while away and away[0] <= now:
            heappop(away)
        self._claims.take_ready([claim for claim in gone if claim.id not in self._claims.gated])
        for claim in gone:
            absence = min(max(self._admission.shortest_absence, len(away) / _RETURNS), _LONGEST)
            absence *= self._random.uniform(1.0, 1.25)
            heappush(away, now + absence)
            self._since.pop(claim.id, None)
            is_gated = self._claims.gated.get(claim.id) is claim
            send = self._admission.send_back if is_gated else self._admission.send_away
            send(claim, self._clock.time() + absence)
        self._tell(place, len(gone), now)
        self._intake.wake()

    def _tell(self, place: int, count: int, now: float) -> None:
        self._untold[place] += count
        told_at = self._told_at[place]
        if told_at is None or now - told_at >= _TELL:
            name = self._pools.names[place]
            logger.info("sent %d messages back for a while: pool %s is full", self._untold[place], name)
            self._told_at[place], self._untold[place] = now, 0

    def _give_back_taken(self, now: float) -> None:
        """What a pool has taken and no child has begun."""
        still = {place for place, moved in enumerate(self._moved_at) if now - moved >= _STILL}
        if not still:
            return
        claims = self._spared(lambda request: self._pools.place(request.task) in still and self._may_go_back(request))
        for claim in claims:
            claim.verdict = RELEASE
        if claims:
            logger.info("gave back %d messages that waited for %.0f s behind long tasks", len(claims), _STILL)
            self._settle.add_released(claims)


class OfOnePool:
    """The claims of one pool, as the autoscaler counts them."""

    def __init__(self, claims: Claims, dispatch: DividedDispatch, place: int) -> None:
        self._claims = claims
        self._dispatch = dispatch
        self._place = place

    def running_ids(self) -> list[str]:
        held, dispatch = self._claims.held, self._dispatch
        return [task_id for task_id in self._claims.running_ids() if dispatch.place(held[task_id]) == self._place]

    @property
    def ready_count(self) -> int:
        early = sum(self._dispatch.place(claim) == self._place for claim in self._claims.early)
        return early + self._dispatch.queues(with_gated=True).waiting[self._place]
