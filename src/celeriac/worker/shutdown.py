"""Leaving, as a protocol of ordered phases (semantics 3.6), so that nothing is lost and nothing runs twice.

Warm: 1 ask for no more messages, the fetch in flight is given back; 2 what has not started goes back to the head of
its queue, at once; 3 what runs may end within the grace; 4 results, follow-ups and acknowledgements are written; 5 the
connection is closed. Soft: what runs gets a last time-out instead. Cold: it is made to end, and its messages go back.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from celeriac import telemetry
from celeriac.executors.base import Lost, Recalls
from celeriac.rules.claim import RUNNING
from celeriac.transports.base import RELEASE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.clock import Clock
    from celeriac.executors.base import Executor, Request
    from celeriac.worker.claims import Claim, Claims
    from celeriac.worker.dispatch import Dispatch
    from celeriac.worker.endings import Endings
    from celeriac.worker.intake import Intake
    from celeriac.worker.options import Plan
    from celeriac.worker.settle import Settle

logger = logging.getLogger("celeriac.worker")

WARM = 0  #: everything that ran has ended and is written
FORCED = 1  #: running tasks were cut off
LOST_CONTACT = 2  #: not everything could be written: the broker or the store did not answer

#: seconds beyond the executor's own deadlines until it is given up on
_EXECUTOR_SLACK = 10.0
#: seconds that a restart lets tasks run; a stop that is asked for meanwhile shortens that to the grace
_A_WEEK = 7 * 86400.0


class Shutdown:
    """Takes the pipeline down. ``force`` may be called at any time, also before :meth:`run`."""

    def __init__(
        self, intake: Intake, dispatch: Dispatch, endings: Endings, settle: Settle, claims: Claims,
        executor: Executor, plan: Plan, clock: Clock,
    ) -> None:  # fmt: skip
        self._intake = intake
        self._dispatch = dispatch
        self._endings = endings
        self._settle = settle
        self._claims = claims
        self._executor = executor
        self._plan = plan
        self._clock = clock
        self._forced = asyncio.Event()
        self._forced_again = asyncio.Event()
        self._hastened = asyncio.Event()
        #: the worker will begin again: what runs may take as long as it needs
        self.is_restart = False
        self.signal = ""  #: the name of the last one that asked for anything
        self.handed_back = 0
        self._hurry: asyncio.Task[Sequence[Request]] | None = None  #: kept, so that it is not collected

    def force(self) -> None:
        """Cold: do not wait for running tasks, but for the soft time-out where one is set; the second time, not even
        for that."""
        if self._forced.is_set():
            self._forced_again.set()
        self._forced.set()

    def hasten(self) -> None:
        """It is no restart after all: the grace begins now."""
        self.is_restart = False
        self._tell("warm")
        self._hastened.set()

    async def run(self) -> int:
        """Go through the phases; the exit code. The services must still run, they do the writing."""
        plan = self._plan
        self._tell(self._cold_name() if self._forced.is_set() else "warm")
        await self._intake.stop(plan.receive_wait + plan.flush_timeout / 2)
        await self._dispatch.pause()
        self._release(self._claims.take_unstarted())
        if isinstance(self._executor, Recalls):
            self._put_back(await self._executor.recall())
        was_cut = await self._end_running()
        if not await self._settle.flushed(plan.flush_timeout):
            logger.error(
                "%d outcomes could not be written; their messages will be delivered again", self._settle.backlog
            )
            return LOST_CONTACT
        return FORCED if was_cut else WARM

    def _tell(self, how: str) -> None:
        plan = self._plan
        telemetry.emit(
            telemetry.WorkerStopping(
                hostname=plan.hostname, how=how, grace=plan.shutdown_grace if how == "warm" else plan.soft_timeout,
                restart=self.is_restart, sig=self.signal,
            )
        )  # fmt: skip

    def _cold_name(self) -> str:
        return "soft" if self._plan.soft_timeout > 0 and self._claims.running_ids() else "cold"

    def _release(self, claims: list[Claim]) -> None:
        for claim in claims:
            claim.verdict = RELEASE
        self.handed_back += len(claims)
        self._settle.add_released(claims)

    async def _end_running(self) -> bool:
        """Let them end, or make them; whether any had to be made."""
        forced = asyncio.create_task(self._forced.wait())
        cut_before = self._endings.cut  # neighbours of tasks that were killed while the worker worked
        try:
            if not self._forced.is_set():
                stop = await self._stop_warm(forced)
                if not stop.done():
                    await self._cut(stop)
                    return True
                self._put_back(stop.result())
            else:
                await self._cut(None)
            await self._outcomes_are_in()
            return self._endings.cut > cut_before
        finally:
            forced.cancel()

    async def _stop_warm(self, forced: asyncio.Task[Any]) -> asyncio.Task[Sequence[Request]]:
        """Until the executor has stopped, or it is forced, or late."""
        grace = self._plan.shutdown_grace
        first = asyncio.create_task(self._executor.stop(_A_WEEK if self.is_restart else grace))
        if self.is_restart:
            hastened = asyncio.create_task(self._hastened.wait())
            await asyncio.wait((first, forced, hastened), timeout=_A_WEEK, return_when=asyncio.FIRST_COMPLETED)
            hastened.cancel()
            if first.done() or forced.done():
                return first
            self._hurry = asyncio.create_task(self._executor.stop(grace))
        await asyncio.wait((first, forced), timeout=grace + _EXECUTOR_SLACK, return_when=asyncio.FIRST_COMPLETED)
        return first

    async def _cut(self, warm: asyncio.Task[Sequence[Request]] | None) -> None:
        """End what runs at once, or after the soft time-out where one is set."""
        plan = self._plan
        if warm is not None:
            self._tell(self._cold_name())
        if plan.soft_timeout > 0 and self._claims.running_ids():
            ended = asyncio.create_task(self._nothing_runs(plan.soft_timeout))
            again = asyncio.create_task(self._forced_again.wait())
            await asyncio.wait((ended, again), timeout=plan.soft_timeout + 1, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            again.cancel()
        stop = asyncio.create_task(self._executor.stop(0.0))
        pending = {stop} if warm is None else {stop, warm}
        done, late = await asyncio.wait(pending, timeout=_EXECUTOR_SLACK)
        for task in done:
            self._put_back(task.result())
        for task in late:
            logger.error("the pool did not stop within %g s", _EXECUTOR_SLACK)
            task.cancel()
        await self._outcomes_are_in()

    def _put_back(self, requests: Sequence[Request]) -> None:
        """What the executor took and did not start."""
        held = self._claims.held
        back = [held[request.id] for request in requests if request.id in held]
        decided = [
            claim
            for claim in back
            if claim.state == RUNNING and (claim.receipt is None or claim.request.failure is not None)
        ]
        if decided:
            # acknowledged already, so there is nothing to give back: they are published anew; or failed already
            self._endings.take([Lost(claim.id, False, "not_started", "the worker stops") for claim in decided])
        self._release([self._claims.put_back(claim) for claim in back if claim.state == RUNNING])

    async def _outcomes_are_in(self) -> None:
        """The executor has stopped; its last outcomes are still to be collected."""
        if not await self._nothing_runs(_EXECUTOR_SLACK):
            for task_id in self._claims.running_ids():
                logger.error("the pool never said how task %s ended; its message will be delivered again", task_id)

    async def _nothing_runs(self, timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                while self._claims.running_ids():
                    await self._endings.something_ended()
        except TimeoutError:
            return False
        return True
