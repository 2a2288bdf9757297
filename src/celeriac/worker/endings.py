"""One outcome → what is written and what the broker is told: asks ``rules/acking.py`` and fills in the claim."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Literal, assert_never

from celeriac import telemetry
from celeriac.errors import (
    OperationalError,
    ResultTooLarge,
    TaskRevokedError,
    TimeLimitExceeded,
    WorkerLostError,
)
from celeriac.executors.base import Failed, Ignored, Lost, Rejected, Succeeded, WantsRetry
from celeriac.rules import states
from celeriac.rules.acking import Fate, after_failure, after_loss, after_reject
from celeriac.rules.claim import FINISHED, LOST, RUNNING, advance_all
from celeriac.transports.base import ACK, RELEASE, RELEASE_COUNTED, Bury, Verdict
from celeriac.wire.failure import exception_from_wire
from celeriac.worker.records import next_attempt, record_of, result_shown, same_again, to_be_concluded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celeriac.clock import Clock
    from celeriac.executors.base import Executor, Outcome
    from celeriac.worker.claims import Claim, Claims, TaskFacts
    from celeriac.worker.dispatch import Dispatch
    from celeriac.worker.settle import Settle

logger = logging.getLogger("celeriac.worker")

_OTHER_ENDINGS: tuple[type[telemetry.Event], ...] = (
    telemetry.TaskFailed, telemetry.TaskRetried, telemetry.TaskRejected, telemetry.TaskIgnored,
)  # fmt: skip


class Endings:
    """Collects outcomes from the executor and passes them on, decided, to be settled."""

    name = "outcomes"

    def __init__(
        self, executor: Executor, claims: Claims, settle: Settle, dispatch: Dispatch, hostname: str, clock: Clock
    ) -> None:
        self._executor = executor
        self._claims = claims
        self._settle = settle
        self._dispatch = dispatch
        self._hostname = hostname
        self._clock = clock
        self.on_room: Callable[[], None] = lambda: None
        #: told of every task that has ended, where some hold permits
        self.on_finished: Callable[[list[Claim]], None] | None = None
        #: told of each batch; None: nobody counts
        self.on_outcomes: Callable[[Sequence[Outcome]], None] | None = None
        self._ended = asyncio.Event()
        self.cut = 0  #: tasks that were running when the worker made them end

    async def something_ended(self) -> None:
        """Wait for the next batch of outcomes."""
        self._ended.clear()
        await self._ended.wait()

    async def run(self, started: Callable[[], None]) -> None:
        started()
        while True:
            outcomes = await self._executor.outcomes()
            if not outcomes:  # it has stopped, and everything is told
                return
            self.take(outcomes)
            self._dispatch.pump()
            self.on_room()

    def take(self, outcomes: Sequence[Outcome]) -> None:
        """Decide about every outcome of the batch. One that can't be understood does not hold up the others."""
        held = self._claims.held
        finished: list[Claim] = []
        for outcome in outcomes:
            claim = held.get(outcome.id)
            if claim is None or (claim.state != RUNNING and claim.state != LOST):
                logger.warning("an outcome of task %s arrived, which is not running here", outcome.id)
                continue
            if claim.request.failure is not None:
                self._concluded(claim, outcome)
            elif type(outcome) is Succeeded:
                claim.record = outcome.record
                claim.sends = outcome.sends
                if claim.facts.late:  # type: ignore[union-attr]  # what runs is known
                    claim.verdict = ACK
            else:
                self._end(claim, outcome)
                if self._conclude(claim):
                    continue  # it is not over before a child has called those who are to know
            finished.append(claim)
        advance_all(finished, FINISHED)
        if self.on_finished is not None:
            self.on_finished(finished)
        self._settle.add_finished(finished)
        self._ended.set()
        self._tell(outcomes)
        if self.on_outcomes is not None:
            self.on_outcomes(outcomes)

    def _end(self, claim: Claim, outcome: Outcome) -> None:
        facts = claim.facts
        assert facts is not None  # what runs is known
        match outcome:
            case Succeeded(record=record, sends=sends):
                claim.record, claim.sends, claim.verdict = record, sends, ACK if facts.late else None
            case Failed(record=record, sends=sends, quarantine=None, error=error):
                claim.record, claim.sends = record, sends
                claim.verdict = self._verdict(after_failure(facts.policy), error)
            case Failed(record=record, sends=sends, quarantine=reason):
                claim.record, claim.sends = record, sends
                if facts.late:
                    claim.verdict = Bury(reason or "", quarantine=True, worker=self._hostname)
                telemetry.emit(
                    telemetry.MessageQuarantined(queue=claim.request.queue, id=claim.id, reason=reason or "")
                )
            case WantsRetry(record=record, sends=sends):
                claim.record, claim.sends, claim.verdict = record, sends, ACK if facts.late else None
            case Ignored(sends=sends):
                claim.sends, claim.verdict = sends, ACK if facts.late else None
            case Rejected(requeue=requeue, reason=reason, record=record, sends=sends):
                claim.record, claim.sends = record, sends
                claim.verdict = self._verdict(after_reject(facts.policy, requeue), reason)
            case Lost():
                self._lose(claim, facts, outcome)
            case _:
                assert_never(outcome)

    def _lose(self, claim: Claim, facts: TaskFacts, lost: Lost) -> None:
        """The process is gone. What becomes of the message is in ``acking.after_loss``."""
        request = claim.request
        retries = request.envelope.headers.get("retries") or 0
        delivery = max(request.delivery, 1)
        loss = after_loss(facts.policy, lost.cause, lost.started, delivery, retries, alone=lost.alone)
        if loss.state is not None:
            error = _error_of(loss.error, claim, lost)
            claim.record = record_of(claim, loss.state, error, self._clock)
            if loss.state == states.FAILURE:
                claim.request = to_be_concluded(request, error)
            elif loss.fate is Fate.RETRY:
                delay = facts.options.default_retry_delay
                # what holds if no child can tell better
                claim.sends = [next_attempt(claim, delay, self._clock)]
                claim.request = to_be_concluded(request, error, retry_in=delay)
                telemetry.emit(
                    telemetry.TaskRetried(id=claim.id, name=request.task, error=repr(error), when=f"in {delay:g}s")
                )
        if loss.fate is Fate.RESEND:
            claim.sends = [same_again(claim)]
        claim.verdict = self._verdict(loss.fate, f"the process running it was lost: {lost.detail}")
        if not facts.late:
            claim.verdict = None
        outcome: Literal["retried", "dead", "failed"] = "retried"
        if loss.fate is Fate.DEAD:
            outcome = "dead"
            telemetry.emit(
                telemetry.MessageDead(queue=request.queue, id=claim.id, name=request.task, reason=lost.detail)
            )
        elif loss.state == states.FAILURE:
            outcome = "failed"
        if lost.cause == "revoked":
            telemetry.emit(
                telemetry.TaskRevoked(
                    id=claim.id, name=request.task, expired=False, terminated=lost.started, request=request
                )
            )
        elif lost.started:
            self.cut += lost.cause == "stopped"
            telemetry.emit(telemetry.TaskLost(id=claim.id, name=request.task, detail=lost.detail, outcome=outcome))

    def _conclude(self, claim: Claim) -> bool:
        """Have a child call the hooks and error callbacks of a task that failed without saying so itself."""
        if claim.request.failure is None:
            return False
        try:
            self._executor.submit([claim.request])
        except OperationalError:  # the stopping pool has no time left: the record must do
            return False
        return True

    def _concluded(self, claim: Claim, outcome: Outcome) -> None:
        """A child has called them, or could not; how the message is settled was decided before."""
        if (type(outcome) is Failed and outcome.quarantine is None) or type(outcome) is WantsRetry:
            claim.record, claim.sends = outcome.record, outcome.sends
            return
        failure = claim.request.failure
        assert failure is not None
        if claim.record is None and "retry_in" not in failure:
            claim.record = record_of(claim, states.FAILURE, exception_from_wire(failure), self._clock)
        name = claim.request.task
        logger.error("task %s[%s]: its hooks and error callbacks were not called: %r", name, claim.id, outcome)

    def _verdict(self, fate: Fate, reason: str) -> Verdict | None:
        match fate:
            case Fate.ACK | Fate.RETRY:
                return ACK
            case Fate.RELEASE:
                return RELEASE
            case Fate.RELEASE_COUNTED:
                return RELEASE_COUNTED
            case Fate.DEAD:
                return Bury(reason, worker=self._hostname)
            case Fate.NOTHING | Fate.RESEND:
                return None
            case _:
                assert_never(fate)

    def _tell(self, outcomes: Sequence[Outcome]) -> None:
        """Who listens, hears; who doesn't, costs a look-up."""
        wanted = telemetry.wanted
        successes = wanted(telemetry.TaskSucceeded)
        if not successes and not any(wanted(kind) for kind in _OTHER_ENDINGS):
            return
        held = self._claims.held
        for outcome in outcomes:
            if type(outcome) is Succeeded and not successes:
                continue  # most of them, and by default only failures are listened for
            claim = held.get(outcome.id)
            if claim is not None and claim.request.failure is None:  # those are told of already
                event = _event_of(outcome, claim.request.task)
                if event is not None:
                    telemetry.emit(event)


def _error_of(kind: str, claim: Claim, lost: Lost) -> BaseException:
    match kind:
        case "TimeLimitExceeded":
            return TimeLimitExceeded(claim.request.hard_limit)
        case "TaskRevokedError":
            return TaskRevokedError("terminated" if lost.started else "revoked")  # Celery's words, on the wire
        case _:
            return WorkerLostError(f"Worker exited prematurely: {lost.detail} (task {claim.id}).")


def _event_of(outcome: Outcome, name: str) -> telemetry.Event | None:
    match outcome:
        case Succeeded(id=identifier, runtime=runtime, shown=shown, record=record):
            # no text was made where nobody read it when the pool started; somebody does now
            result = shown or result_shown(record)
            return telemetry.TaskSucceeded(id=identifier, name=name, runtime=runtime, result=result)
        case Failed():
            return telemetry.TaskFailed(
                id=outcome.id, name=name, runtime=outcome.runtime, error=outcome.error, traceback=outcome.traceback,
                expected=outcome.expected,
            )  # fmt: skip
        case WantsRetry(id=identifier, error=error, shown=shown):
            return telemetry.TaskRetried(id=identifier, name=name, error=error, when=shown)
        case Ignored(id=identifier):
            return telemetry.TaskIgnored(id=identifier, name=name)
        case Rejected(id=identifier, requeue=requeue, reason=reason):
            return telemetry.TaskRejected(id=identifier, name=name, requeue=requeue, reason=reason)
        case Lost():
            return None
        case _:
            assert_never(outcome)


def give_up(claim: Claim, error: Exception, hostname: str, clock: Clock) -> None:
    """Its outcome can never be written as it is (no such queue, too large): say so, and keep the message."""
    claim.sends = None
    if claim.record is not None:
        claim.record = record_of(claim, states.FAILURE, error, clock)
    if claim.verdict is None:
        return
    if isinstance(error, ResultTooLarge):
        claim.verdict = ACK
    elif not isinstance(claim.verdict, Bury):
        claim.verdict = Bury(f"its outcome could not be written: {error}", worker=hostname)
