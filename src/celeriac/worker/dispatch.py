"""Ready claims → the executor, as many as it has room for.

Late-acknowledging tasks go straight in. Messages that are to be acknowledged early are acknowledged first, as one
batch; one whose acknowledgement is refused belongs to somebody else by now and does not run here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from celeriac.errors import OperationalError
from celeriac.rules.claim import LOST, READY, RUNNING, advance_all
from celeriac.transports.base import ACK, Settlement

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.clock import Clock
    from celeriac.executors.base import Executor
    from celeriac.transports.base import Receipt
    from celeriac.worker.claims import Claim, Claims
    from celeriac.worker.session import Session

#: seconds between two looks for room
_LOOK = 0.02


class Dispatch:
    """Fills the executor."""

    name = "dispatch"

    def __init__(self, claims: Claims, executor: Executor, session: Session) -> None:
        self._claims = claims
        self._executor = executor
        self._session = session
        #: those whose early acknowledgement is under way; they have room promised
        self._in_flight: list[Claim] = []
        self._wake = asyncio.Event()
        self._at_rest = asyncio.Event()
        self._at_rest.set()
        self.paused = False
        self._isolated: Claim | None = None
        self.on_blocked: Callable[[], None] = lambda: None
        #: room kept for limited tasks: those that are being asked for, and those that are to be
        self.promised = self.reserved = 0
        self.handed = 0  #: claims that were taken from what is ready
        #: of those that are to start, the ones that have not expired; asked only where any may
        self.unexpired: Callable[[list[Claim]], list[Claim]] = list
        #: the same for what was revoked while it was acknowledged early, when nobody finds it
        self.unrevoked: Callable[[list[Claim]], list[Claim]] = list
        #: told when limited ones may have a chance
        self.on_gated: Callable[[], None] = lambda: None

    def room(self) -> int:
        """How many more may start."""
        return self._executor.room() - len(self._in_flight) - len(self._claims.early) - self.promised

    def is_open(self) -> bool:
        """Whether more may start at all; not while one is to be alone."""
        return not self.paused and not self._claims.suspects

    def allot(self) -> Callable[[str], bool]:
        """Gives places to tasks, by name, as long as there is any :meth:`room`; False: not to this one."""
        return _to_all

    def pump(self) -> None:
        """Hand over what is ready and fits. Cheap when there is nothing to do."""
        ready = self._claims.ready
        if self._claims.gated:
            self.on_gated()
        if self._claims.suspects and not self.paused:
            self._pump_suspect()
            return
        if not ready or self.paused or self._is_isolating():
            return
        room = self.room() - self.reserved
        if room <= 0:
            self.on_blocked()
            return
        if room >= len(ready):
            taken = list(ready)
            ready.clear()
        else:
            pop = ready.popleft
            taken = [pop() for _ in range(room)]
        self._hand(taken)

    def _hand(self, taken: list[Claim]) -> None:
        """These have room."""
        batch: list[Claim] = []
        if self._claims.may_expire:
            taken = self.unexpired(taken)
        self.handed += len(taken)
        for claim in taken:
            if (claim.facts is not None and claim.facts.late) or claim.request.failure is not None:
                batch.append(claim)
            else:
                self._claims.early.append(claim)
        if len(batch) < len(taken):
            self._wake.set()
        if batch:
            advance_all(batch, RUNNING)
            self._executor.submit([claim.request for claim in batch])

    def _pump_suspect(self) -> None:
        """The next suspect, once nothing else runs."""
        if self._in_flight or self._executor.room() < 1 or self._claims.running_ids():
            self.on_blocked()
            return
        claim = self._claims.suspects.popleft()
        if self._claims.may_expire and not self.unexpired([claim]):
            self.on_blocked()
            return
        self._isolated = claim
        advance_all((claim,), RUNNING)
        self._executor.submit([claim.request])

    def _is_isolating(self) -> bool:
        claim = self._isolated
        if claim is None:
            return False
        if claim.state == RUNNING or claim.state == LOST:
            return True
        self._isolated = None
        return False

    async def run(self, started: Callable[[], None]) -> None:
        """Acknowledge the early ones, then let them run."""
        started()
        while True:
            await self._wake.wait()
            self._wake.clear()
            consumer = await self._session.consumer()
            epoch = self._session.epoch
            batch = self._claims.early[:]
            self._claims.early.clear()
            self._in_flight = batch
            self._at_rest.clear()
            try:
                lost = await consumer.settle([Settlement(claim.receipt, ACK) for claim in batch]) if batch else ()
            except OperationalError as error:
                # perhaps acknowledged, perhaps not: at most once means not to run them here. What was not
                # acknowledged is delivered again.
                self._session.fail(epoch, error)
                lost = [claim.receipt for claim in batch]
            finally:
                self._in_flight = []
                self._at_rest.set()
            self._submit(batch, set(lost))
            self.pump()

    def _submit(self, batch: list[Claim], lost: set[Receipt]) -> None:
        runnable: list[Claim] = []
        for claim in batch:
            if claim.state != READY:
                continue
            if claim.receipt in lost:
                self._claims.mark_lost(claim)
                continue
            claim.receipt = None
            runnable.append(claim)
        runnable = self.unrevoked(runnable)
        if self._claims.may_expire:
            runnable = self.unexpired(runnable)
        advance_all(runnable, RUNNING)
        if runnable:
            self._executor.submit([claim.request for claim in runnable])

    async def pause(self) -> None:
        """Hand over nothing more; returns when no acknowledgement is under way."""
        self.paused = True
        await self._at_rest.wait()


def _to_all(_: str) -> bool:
    return True


class RoomWatch:
    """Looks again while there is no room: a pool whose children are being replaced has none, and tells nobody when it
    has some again. Asleep as long as everything flows.
    """

    name = "room"

    def __init__(self, go_on: Callable[[], None], clock: Clock) -> None:
        self._go_on = go_on
        self._clock = clock
        self._blocked = asyncio.Event()

    def blocked(self) -> None:
        """Somebody found no room."""
        self._blocked.set()

    async def run(self, started: Callable[[], None]) -> None:
        started()
        while True:
            await self._blocked.wait()
            self._blocked.clear()
            await self._clock.sleep(_LOOK)
            self._go_on()
