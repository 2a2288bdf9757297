"""The simulated executor: tasks that take their time, fail, ask for a retry, or take their process with them.

What an attempt does depends on the seed and its id alone, not on where or how often it runs; whether its process dies
is left to chance.
"""

from __future__ import annotations

import asyncio
from collections import deque
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from celeriac.errors import OperationalError
from celeriac.executors.base import Failed, Ignored, Lost, Outcome, Rejected, Request, Succeeded, WantsRetry
from celeriac.transports.base import Envelope, Outgoing, Route
from celeriac.wire.failure import exception_from_wire
from celeriac.wire.result_record import encode_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.executors.base import Cancel
    from scorecard.simulation.ledger import Run
    from scorecard.simulation.world import Host, World

#: seconds between a soft and a hard end
_GRACE = 0.5


class Behaviour(msgspec.Struct, frozen=True):
    """What one attempt does."""

    seconds: float
    ending: str  #: ok, fails, retries, ignores, requeues
    wait: float  #: until the next attempt


def behaviour(seed: int, task_id: str, retries: int, slow: bool) -> Behaviour:
    """Decided by the attempt alone."""
    random = Random(f"{seed}/{task_id}/{retries}")
    seconds = random.choice((0.001, 0.02, 0.1, 0.5, 2.0)) * (0.5 + random.random())
    if slow and random.random() < 0.3:
        seconds *= 10
    ending = "ok"
    dice = random.random()
    if dice < 0.06:
        ending = "fails"
    elif dice < 0.16 and retries < 2:
        ending = "retries"
    return Behaviour(seconds, ending, random.choice((0.0, 0.3, 3.0)))


class SimulatedPool:
    """``slots`` processes with one task each, and room for ``ahead`` more requests."""

    def __init__(self, world: World, host: Host, slots: int, ahead: int, crash_rate: float, slow: bool) -> None:
        self.slots = slots
        self._world, self._host = world, host
        self._ahead = ahead
        self._crash_rate = crash_rate
        self._slow = slow
        self._waiting: deque[Request] = deque()
        self._running: dict[str, tuple[Request, Run | None, asyncio.TimerHandle]] = {}
        self._ended: list[Outcome] = []
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._is_stopping = self._is_stopped = False

    async def start(self) -> None:
        await asyncio.sleep(0.05)

    def room(self) -> int:
        return self.slots + self._ahead - len(self._running) - len(self._waiting)

    def submit(self, batch: Sequence[Request]) -> None:
        if self._is_stopping:
            raise OperationalError("the pool is stopping")
        for request in batch:
            self._world.ledger.handed_over(request, self._host)
        self._waiting.extend(batch)
        self._fill()

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self.slots and not self._is_stopping:
            self._begin(self._waiting.popleft())

    def _begin(self, request: Request) -> None:
        loop, random = self._world.loop, self._world.random
        if request.failure is not None:  # only its callbacks are called
            handle = loop.call_later(0.01, self._end, request.id, self._concluded(request))
            self._running[request.id] = request, None, handle
            return
        run = self._world.ledger.started(request, self._host)
        plan = behaviour(self._world.seed, request.id, run.attempt[1], self._slow)
        self._world.note(self._host.name, "start", (*run.attempt, request.delivery, plan.ending))
        ends, outcome = plan.seconds, self._outcome(request, run, plan)
        if random.random() < self._crash_rate:
            ends, outcome = ends * random.random(), Lost(request.id, True, "died", "signal 9 (SIGKILL)")
        if request.hard_limit is not None and ends > request.hard_limit:
            ends, outcome = request.hard_limit, Lost(request.id, True, "hard_limit", "too long")
        self._running[request.id] = request, run, loop.call_later(ends, self._end, request.id, outcome)

    def _end(self, task_id: str, outcome: Outcome) -> None:
        _, run, handle = self._running.pop(task_id)
        handle.cancel()
        if run is not None:
            value = f"{task_id}:{run.attempt[1]}" if isinstance(outcome, Succeeded) else None
            self._world.ledger.ended(run, value, was_cut=isinstance(outcome, Lost))
        self._world.note(self._host.name, "end", (task_id, type(outcome).__name__))
        self._tell(outcome)
        self._fill()
        if not self._running:
            self._idle.set()

    def _tell(self, outcome: Outcome) -> None:
        self._ended.append(outcome)
        self._news.set()

    # ── how attempts end ─────────────────────────────────────────────────────────────────────────────────────────

    def _record(self, request: Request, status: str, result: Any) -> Any:
        return encode_record(task_id=request.id, status=status, result=result, date_done=None)

    def _outcome(self, request: Request, run: Run, plan: Behaviour) -> Outcome:
        retries = run.attempt[1]
        match plan.ending:
            case "ok":
                text = f"{request.id}:{retries}"
                return Succeeded(request.id, self._record(request, "SUCCESS", text), [], plan.seconds, text)
            case "fails":
                record = self._record(request, "FAILURE", ValueError(f"{request.id}:{retries}"))
                return Failed(request.id, record, [], plan.seconds, "ValueError", "", False)
            case "retries":
                record = self._record(request, "RETRY", ValueError("again"))
                return WantsRetry(request.id, record, [self._next(request, plan.wait)], plan.seconds, "again", "soon")
            case "requeues":
                return Rejected(request.id, True, "not now", None, plan.seconds)
            case _:
                return Ignored(request.id, [], plan.seconds)

    def _next(self, request: Request, wait: float) -> Outgoing:
        envelope = request.envelope
        headers = {**envelope.headers, "retries": (envelope.headers.get("retries") or 0) + 1, "eta": None}
        until = None
        if wait:
            until = self._host.time() + wait
        return Outgoing(
            Envelope(envelope.body, headers, envelope.properties), Route("", request.queue), until
        )  # fmt: skip

    def _concluded(self, request: Request) -> Outcome:
        assert request.failure is not None
        record = self._record(request, "FAILURE", exception_from_wire(request.failure))
        return Failed(request.id, record, [], 0.01, "told", "", False)

    # ── the seam's other half ────────────────────────────────────────────────────────────────────────────────────

    async def outcomes(self) -> Sequence[Outcome]:
        while not self._ended and not self._is_stopped:
            self._news.clear()
            await self._news.wait()
        ended, self._ended = self._ended, []
        return ended

    def cancel(self, task_id: str, how: Cancel) -> bool:
        for request in self._waiting:
            if request.id == task_id:
                self._waiting.remove(request)
                self._tell(Lost(task_id, False, "revoked", "cancelled before it started"))
                return True
        if task_id not in self._running:
            return False
        if how != "unstarted":
            self._end_by_force(task_id, Lost(task_id, True, "revoked", "killed"))
        return True

    def _end_by_force(self, task_id: str, outcome: Lost) -> None:
        if self._running[task_id][0].failure is None:
            self._running[task_id][2].cancel()
            self._end(task_id, outcome)

    async def recall(self) -> Sequence[Request]:
        self._is_stopping = True
        back = list(self._waiting)
        self._waiting.clear()
        return back

    async def stop(self, grace: float) -> Sequence[Request]:
        back = await self.recall()
        if self._running:
            self._idle.clear()
            try:
                async with asyncio.timeout(grace):
                    await self._idle.wait()
            except TimeoutError:
                for task_id in list(self._running):
                    self._running[task_id][2].cancel()
                    self._end(task_id, Lost(task_id, True, "stopped", "signal 9 (SIGKILL)"))
        self._is_stopped = True
        self._news.set()
        return back
