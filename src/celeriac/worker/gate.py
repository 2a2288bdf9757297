"""Lets limited tasks through, as many as all limits of the cluster allow: asked before dispatch, a batch at a time.

A message that may not start takes no slot and no prefetch: it waits in line here if its turn comes soon, else at the
broker (``lines.py`` says which). Permits are leased; they are renewed for what runs, given back as tasks end, and come
back by themselves when this worker dies. While the store does not answer, nothing limited starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import Counter, deque
from functools import partial
from typing import TYPE_CHECKING

from celeriac import telemetry
from celeriac.errors import BackendError, OperationalError
from celeriac.rules.counting import Demand, Granted, Need, Permit, Refused, Unasked
from celeriac.rules.retry import reconnect_delay
from celeriac.worker.lines import FRONT_PATIENCE, LINES, PATIENCE, Applicant, Line, Lines
from celeriac.worker.permits import HeldPermits, permits_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from celeriac.clock import Clock
    from celeriac.executors.base import Executor
    from celeriac.limiters.base import Answer, Limiter
    from celeriac.worker.admit import Admission
    from celeriac.worker.claims import Claim, Claims
    from celeriac.worker.dispatch import Dispatch
    from celeriac.worker.lane import Lane
    from celeriac.worker.limited import Limited

logger = logging.getLogger("celeriac.worker")

#: the most starts that one question is about
_BATCH = 256
#: seconds between two looks at who has expired, or gone without a word
_SWEEP = 1.0
#: seconds between two looks whether limits were changed
_LOOK = 5.0
#: seconds between two words about one key
_TELL = 60.0
#: seconds that the last permits may take to be given back when the worker ends
_LAST = 5.0


class Gate:
    """A service. Owns whatever is limited and has not started; ``claims.gated`` says who is still wanted."""

    name = "limits"

    def __init__(
        self, limited: Limited, limiter: Limiter, claims: Claims, dispatch: Dispatch, executor: Executor,
        admission: Admission, lane: Lane, lease: float, mark: str, clock: Clock, random: Random,
    ) -> None:  # fmt: skip
        self._limited = limited
        self._limiter = limiter
        self._claims = claims
        self._dispatch = dispatch
        self._executor = executor
        self._admission = admission
        self._lane = lane
        self._lease = lease
        self._mark = mark  #: tells this worker's holders from those of others, also of one before it of the same name
        self._clock = clock
        self._random = random
        self._wake = asyncio.Event()
        #: in order of arrival, not asked for yet
        self._fresh: deque[Applicant] = deque()
        #: those that are being asked for
        self._asking: list[Applicant] = []
        self._lines = Lines(clock.monotonic())
        self._permits = HeldPermits(claims, lease, clock.monotonic())
        self._starts = 0
        self._swept_at = clock.monotonic()
        self._look_at = 0.0  #: when to ask whether limits were changed
        self._failures = 0
        self._told_at: float | None = None
        #: tasks that had been handed over when the last limited ones were
        self._handed = 0

    # ── what the others tell ─────────────────────────────────────────────────────────────────────────────────────

    def wake(self) -> None:
        """There is somebody new, or room."""
        self._wake.set()

    def ended(self, claims: Sequence[Claim]) -> None:
        """These tasks have ended: their permits are free before their results are written."""
        self._note_freed(self._permits.ended(claims))

    def _note_freed(self, freed: Sequence[Permit]) -> None:
        """Whoever waits for one of these may have it at once."""
        if not freed:
            return
        self._lines.freed(freed, self._clock.monotonic())
        self._wake.set()

    # ── the service ──────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self, started: Callable[[], None]) -> None:
        await self._greet()
        started()
        while True:
            self._wake.clear()
            now = self._clock.monotonic()
            if now >= self._look_at and not self._is_shut(now):
                await self._look(now)
            await self._take_in()
            self._sweep(now)
            batch, quota = self._choose(now)
            if (batch or self._permits.released or self._permits.are_due(now)) and not self._is_shut(now):
                await self._exchange(batch, quota)
                await asyncio.sleep(0)
            else:
                await self._rest(now)

    async def _greet(self) -> None:
        """A wrong password is found at the start; a store that is away may come back."""
        nothing = [Permit("greeting", self._mark)]
        with contextlib.suppress(OperationalError, BackendError):
            await self._lane.run(partial(self._limiter.release, nothing))

    async def _look(self, now: float) -> None:
        """Have the limits been changed? Whoever waits is looked at anew then."""
        self._look_at = now + _LOOK  # not afterwards: a change that is made meanwhile is to be looked for
        try:
            changes = await self._lane.run(self._limiter.changes)
        except (OperationalError, BackendError) as error:
            self._fail(error, [])
            self._look_at = self._lines.closed.next_at
            return
        if not self._limited.apply(changes):
            return
        waiting = [one for line in self._lines.busy() for one in line.waiting] + list(self._fresh)
        for applicant in reversed(waiting):
            if self._is_wanted(applicant):
                self._claims.lined.discard(applicant.claim.id)
                self._claims.newly_gated.appendleft(applicant.claim)
        self._fresh.clear()
        self._lines = Lines(self._clock.monotonic())

    async def change(self, counter: str, change: bytes | None) -> None:
        """Keep it for all workers; here it is heeded at once. Raises what the limiter raises."""
        await self._lane.run(partial(self._limiter.change, counter, change))
        self._look_at = 0.0
        self._wake.set()

    @property
    def limited(self) -> Limited:
        return self._limited

    def _is_shut(self, now: float) -> bool:
        """Whether the store did not answer a moment ago."""
        return self._failures > 0 and now < self._lines.closed.next_at

    async def _rest(self, now: float) -> None:
        """Until woken, or until something is due."""
        until = min(self._look_at, self._permits.due_at)
        if self._room() > 0:  # who makes room, wakes
            until = min(until, self._lines.due_at)
        if self._is_shut(now):
            until = max(until, self._lines.closed.next_at)
        if self._permits or self._claims.gated:
            until = min(until, self._swept_at + _SWEEP)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.001, until - now)):
                await self._wake.wait()

    async def _take_in(self) -> None:
        """Newcomers: find out what they need."""
        while self._claims.newly_gated:
            claim = self._claims.newly_gated.popleft()
            if self._claims.gated.get(claim.id) is not claim:
                continue
            if self._limited.is_large(claim):
                needs = await self._lane.run(partial(self._limited.needs_of, claim))
            else:
                needs = self._limited.needs_of(claim)
            self._fresh.append(Applicant(claim, needs, self._holder(claim)))

    def _holder(self, claim: Claim) -> str:
        self._starts += 1
        return f"{claim.id}/{self._mark}.{self._starts}"

    def _room(self) -> int:
        return self._dispatch.room() if self._dispatch.is_open() else 0

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _choose(self, now: float) -> tuple[list[Applicant], int]:
        """Whom to ask for, and how many of them there is room for."""
        claims, dispatch = self._claims, self._dispatch
        dispatch.reserved = 0
        if not claims.gated:
            self._fresh.clear()
            self._lines.leave()
            return [], 0
        if self._is_shut(now):
            self._turn_away_all(now)
            return [], 0
        if not self._fresh and now < self._lines.due_at:
            return [], 0
        room = self._room()
        here, ready = len(self._fresh) or 1, len(claims.ready)
        if room <= 0:
            if ready:  # the unlimited get the next room, but for a fair share
                share = self._executor.slots * here // (here + ready)
                dispatch.reserved = share or int(dispatch.handed > self._handed)
            dispatch.on_blocked()
            return [], 0
        if ready:
            room = max(1, room * here // (here + ready))
        batch: list[Applicant] = []
        asked: Counter[str] = Counter()  #: permits, by counter
        fits = self._dispatch.allot()  # a permit is not for what would wait for a slot
        self._choose_waiting(batch, asked, room, now, fits)
        later: list[Applicant] = []
        while self._fresh and len(batch) < _BATCH:
            applicant = self._fresh.popleft()
            if not self._is_wanted(applicant):
                continue
            closed = self._closed_line(applicant, now)
            if closed is not None:
                self._put(applicant, closed, now)
            elif fits(applicant.claim.request.task) and all(self._left(need, asked) > 0 for need in applicant.needs):
                _add(applicant, batch, asked)
            else:
                later.append(applicant)
        self._fresh.extendleft(reversed(later))
        return batch, min(room, len(batch))

    def _choose_waiting(
        self, batch: list[Applicant], asked: Counter[str], room: int, now: float, fits: Callable[[str], bool]
    ) -> None:
        """Of every line whose time has come, as many as may have a chance; the longest due first."""
        for line in self._lines.due(now):
            portion = _BATCH if line is self._lines.closed else min(line.portion(room), self._left(line.need, asked))
            if portion <= 0:
                line.await_free(now)
            passed: list[Applicant] = []
            for _ in range(portion):
                if len(batch) >= _BATCH * 3 // 4 or not line.waiting:  # newcomers of other keys are not to wait
                    break
                applicant = line.waiting.popleft()
                if not self._is_wanted(applicant):
                    continue
                if fits(applicant.claim.request.task):
                    _add(applicant, batch, asked)
                else:
                    passed.append(applicant)
            if passed:
                line.waiting.extendleft(reversed(passed))
                line.await_free(now)
        self._lines.note_due()

    def _left(self, need: Need, asked: Counter[str]) -> int:
        """How many more may be asked for now. What waits in a child for a slot has its permit already, and other
        workers are to have some as well; who is left over for that waits for a slot as everybody does."""
        if not need.most:
            return _BATCH
        return max(2 * self._executor.slots, need.most // 4) - self._permits.counts[need.key] - asked[need.key]

    def _is_wanted(self, applicant: Applicant) -> bool:
        return self._claims.gated.get(applicant.claim.id) is applicant.claim

    def _closed_line(self, applicant: Applicant, now: float) -> Line | None:
        """The line that a newcomer has to wait in without being asked for."""
        for need in applicant.needs:
            line = self._lines.get(need.key)
            if line is not None and line.is_closed(now):
                return line
        return None

    async def _exchange(self, batch: list[Applicant], quota: int) -> None:
        """One hop: give back, renew what is due, ask."""
        released, renewed = self._permits.take_released(), self._permits.take_due(self._clock.monotonic())
        demands = [Demand(applicant.holder, applicant.needs) for applicant in batch]
        self._dispatch.promised = quota if batch else 0
        self._asking = batch
        try:
            lapsed, answers = await self._lane.run(
                partial(_exchange, self._limiter, released, renewed, demands, quota, self._lease)
            )
        except BaseException as error:
            # whatever of it was done, or is being done: giving back again and renewing again do no harm
            perhaps_taken = [one for each in batch for one in permits_of(each.needs, each.holder)]
            self._permits.put_back([*released, *perhaps_taken], renewed, self._clock.monotonic())
            self._fail(error, batch)
            if not isinstance(error, OperationalError | BackendError):
                raise
            return
        finally:
            self._dispatch.promised, self._asking = 0, []
        self._failures = 0
        for permit in lapsed:
            logger.warning("a permit of %s had lapsed while its task ran; more than allowed may have run", permit.key)
        self._hear(batch, answers)

    def _fail(self, error: BaseException, batch: list[Applicant]) -> None:
        if isinstance(error, asyncio.CancelledError):
            return  # the worker ends
        self._failures += 1
        now = self._clock.monotonic()
        delay = reconnect_delay(self._failures, self._random)
        self._lines.closed.next_at = now + delay
        if self._told_at is None or now - self._told_at >= _TELL:
            self._told_at = now
            telemetry.emit(telemetry.LimitsUnavailable(error=str(error), retry_in=delay))
        for applicant in batch:
            # another name, so that giving back what it may have got, late, does not take what it will get
            applicant.holder = self._holder(applicant.claim)
            if self._is_wanted(applicant):
                self._put(applicant, self._lines.closed, now)
        self._turn_away_all(now)

    def _turn_away_all(self, now: float) -> None:
        """Nobody can be asked for: what waits must not keep unlimited tasks from being fetched."""
        fresh, self._fresh = self._fresh, deque()
        for applicant in fresh:
            if self._is_wanted(applicant):
                self._put(applicant, self._lines.closed, now)

    # ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _hear(self, batch: list[Applicant], answers: Sequence[Answer]) -> None:
        now = self._clock.monotonic()
        passing: list[Claim] = []
        unasked: list[Applicant] = []
        refused: list[tuple[Applicant, Line]] = []
        for applicant, answer in zip(batch, answers, strict=True):
            match answer:
                case Granted():
                    if self._is_wanted(applicant):
                        passing.append(self._pass(applicant, now))
                    else:
                        self._permits.released += permits_of(applicant.needs, applicant.holder)
                case Unasked():
                    unasked.append(applicant)
                case Refused(need=index):
                    line = self._lines.of(applicant.needs[index], now)
                    line.refused(applicant.needs[index], answer, now)
                    refused.append((applicant, line))
        if passing:
            self._claims.pass_gate(passing)
            self._admission.tell_passed(passing)
        # in reverse, since those who waited before go back to the front
        for applicant in reversed(unasked):
            if not self._is_wanted(applicant):
                continue
            if applicant.line is None:
                self._fresh.appendleft(applicant)
            else:
                self._put(applicant, applicant.line, now, first=True)
        for applicant, line in reversed(refused):
            if applicant.line is not None and self._is_wanted(applicant):
                self._put(applicant, line, now, first=True)
        for applicant, line in refused:
            if applicant.line is None and self._is_wanted(applicant):
                self._put(applicant, line, now)
        self._dispatch.pump()
        if passing:
            self._handed = self._dispatch.handed

    def _pass(self, applicant: Applicant, now: float) -> Claim:
        self._permits.add(applicant.claim, permits_of(applicant.needs, applicant.holder))
        for need in applicant.needs:
            line = self._lines.get(need.key)
            if line is not None:
                line.granted(now)
        return applicant.claim

    def _put(self, applicant: Applicant, line: Line, now: float, *, first: bool = False) -> None:
        """It may not start now: into the line, or back to the broker."""
        claims = self._claims
        if applicant.since is None:
            applicant.since = now
        expected = line.expected(now)
        stays = first or (line.has_room(now) and len(claims.lined) < LINES)
        patience = FRONT_PATIENCE if first else PATIENCE
        if not self._admission.can_send_back or (stays and now - applicant.since < patience):
            claims.lined.add(applicant.claim.id)
            self._lines.join(applicant, line, first)
        else:
            away = line.absence(expected, self._admission.shortest_absence, now, self._random)
            self._admission.send_back(applicant.claim, self._clock.time() + away)
        self._tell(applicant, line, now)

    def _tell(self, applicant: Applicant, line: Line, now: float) -> None:
        line.untold += 1
        if line is self._lines.closed or (line.told_at is not None and now - line.told_at < _TELL):
            return
        telemetry.emit(
            telemetry.TasksLimited(
                key=line.need.key, name=applicant.claim.request.task, count=line.untold, wait=line.expected(now)
            )
        )
        line.told_at, line.untold = now, 0

    # ── looking after ────────────────────────────────────────────────────────────────────────────────────────────

    def _sweep(self, now: float) -> None:
        if now < self._swept_at + _SWEEP:
            return
        self._swept_at = now
        self._note_freed(self._permits.sweep())
        for line in self._lines.busy():
            self._sweep_line(line, now)

    def _sweep_line(self, line: Line, now: float) -> None:
        kept: deque[Applicant] = deque()
        late: list[Applicant] = []
        for applicant in line.waiting:
            if not self._is_wanted(applicant) or not self._admission.still_runs(applicant.claim):
                continue
            patience = FRONT_PATIENCE if len(kept) < line.need.most else PATIENCE
            over = applicant.since is not None and now - applicant.since >= patience
            (late if over and self._admission.can_send_back else kept).append(applicant)
        line.waiting = kept
        for applicant in late:
            self._put(applicant, line, now)

    def lined(self) -> list[tuple[float, Claim, str]]:
        """Who waits here: (monotonic time at which its line is asked for again, claim, key)."""
        waiting = itertools.chain(self._asking, *(line.waiting for line in self._lines.busy()))
        return [
            (applicant.line.next_at, applicant.claim, applicant.line.need.key)
            for applicant in waiting
            if applicant.line is not None and self._is_wanted(applicant)
        ]

    def keys(self) -> list[tuple[str, Line, int]]:
        """The keys that are or were of late full, and those of which permits are held here: (key, line, permits)."""
        here = dict(self._permits.counts)
        found = [(key, line, here.pop(key, 0)) for key, line in self._lines.items()]
        return found + [(key, Line(Need(key), 0.0), count) for key, count in here.items()]

    async def close(self) -> None:
        """Nothing runs here any more: give everything back. Leases do it if this can't."""
        permits = self._permits.take_all()
        with contextlib.suppress(OperationalError, BackendError, TimeoutError):
            async with asyncio.timeout(_LAST):
                if permits:
                    await self._lane.run(partial(self._limiter.release, permits))
                await self._lane.run(self._limiter.close)
        self._lane.close()


def _add(applicant: Applicant, batch: list[Applicant], asked: Counter[str]) -> None:
    batch.append(applicant)
    for need in applicant.needs:
        if need.most:
            asked[need.key] += 1


def _exchange(
    limiter: Limiter, released: Sequence[Permit], renewed: Sequence[Permit], demands: Sequence[Demand], quota: int,
    lease: float,
) -> tuple[Sequence[Permit], Sequence[Answer]]:  # fmt: skip
    """Blocking; on the lane."""
    if released:
        limiter.release(released)
    lapsed = limiter.renew(renewed, lease) if renewed else ()
    return lapsed, limiter.take(demands, quota, lease) if demands else ()
