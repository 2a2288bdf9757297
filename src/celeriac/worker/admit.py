"""Received messages → claims: applies ``rules/admission.py`` to a batch.

The parent reads headers only. Whatever is wrong with a message ends in quarantine with its bytes unchanged; nothing
a message contains may end this process (semantics D27).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from celeriac import telemetry
from celeriac.errors import MessageError, NotRegistered, PoisonTask, TaskRevokedError
from celeriac.executors.base import Request
from celeriac.ids import is_safe_id
from celeriac.rules import states
from celeriac.rules.admission import (
    RUN,
    AdmissionPolicy,
    Decision,
    Discard,
    Hold,
    Isolate,
    Park,
    Poison,
    Quarantine,
    Run,
    Unknown,
    decide,
    is_stamped,
)  # fmt: skip
from celeriac.rules.claim import DROPPED, READY, advance
from celeriac.transports import base as broker
from celeriac.wire.sealed import Heads, opened
from celeriac.wire.task_message import normalize, timestamp_of
from celeriac.worker.claims import Claim, was_given_before
from celeriac.worker.pacing import AWAY, SOON
from celeriac.worker.records import record_of, to_be_concluded
from celeriac.worker.revoked import Revoked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from celeriac.clock import Clock
    from celeriac.transports.base import Delivery
    from celeriac.wire.envelope import Envelope
    from celeriac.wire.limits import Limits
    from celeriac.worker.claims import Claims, TaskFacts
    from celeriac.worker.dispatch import Dispatch
    from celeriac.worker.pacing import Pacing
    from celeriac.worker.settle import Settle

logger = logging.getLogger("celeriac.worker")

_NO_LIMITS = [None, None]
_NONE = (None, None)


class Admission:
    """Decides about every message once; what is not to run now goes straight to settlement."""

    def __init__(
        self, claims: Claims, settle: Settle, tasks: Mapping[str, TaskFacts], policy: AdmissionPolicy,
        limits: Limits, pacing: Pacing, hostname: str, clock: Clock,
    ) -> None:  # fmt: skip
        self._claims = claims
        self._settle = settle
        self._tasks = tasks
        self._policy = policy
        self._limits = limits
        self._pacing = pacing
        self._hostname = hostname
        self._clock = clock
        self.revoked = Revoked(clock)
        self.on_later: Callable[[], None] = lambda: None

    def admit(self, batch: Sequence[Delivery]) -> None:
        """Take the batch into the table. Never raises for what a message contains."""
        tasks, limits, policy, revoked = self._tasks, self._limits, self._policy, self.revoked
        held, done_before = self._claims.held, self._claims.was_done
        now = self._clock.time()
        paced = self._pacing.is_on
        fresh: list[Claim] = []
        plain, gone = not revoked.stamps, revoked.ids
        for delivery in batch:
            message = delivery.message
            claim = None
            if plain and type(message) is Heads and message.id not in gone:
                claim = _usual(delivery, message, tasks, policy.crash_budget)
            if claim is None:
                try:
                    if delivery.malformed is not None:
                        self._refuse(delivery, Quarantine(delivery.malformed))
                        continue
                    envelope = normalize(delivery.envelope, limits)
                    headers = envelope.headers
                    decision = decide(
                        headers, tasks, delivery.attempt, now, policy, revoked, revoked.stamps, identified=True
                    )
                    if decision is not RUN:
                        self._divert(delivery, envelope, decision)
                        continue
                    claim = self._claim(delivery, envelope, tasks[headers["task"]])
                except MessageError as error:
                    self._refuse(delivery, Quarantine(str(error)))
                    continue
                except Exception as error:
                    logger.exception("a message from queue %r could not be examined", delivery.queue)
                    self._refuse(delivery, Quarantine(f"{type(error).__name__}: {error}"))
                    continue
            if claim.id in held or done_before(claim):
                self._meet_again(claim)
                continue
            if paced and self._must_wait(claim, now):
                continue
            held[claim.id] = claim
            fresh.append(claim)
        self._claims.add_ready(fresh)
        if telemetry.wanted(telemetry.TaskReceived):
            gated = self._claims.gated
            for claim in fresh:
                if claim.id not in gated:  # of those it is told when they may start: they may come and go until then
                    self._tell_received(claim, now)

    def _claim(self, delivery: Delivery, envelope: Envelope, facts: TaskFacts | None) -> Claim:
        claim = _claim(delivery, envelope, facts)
        if envelope.headers.get("expires") is not None:
            with contextlib.suppress(MessageError):
                claim.expires = timestamp_of(envelope.headers["expires"])
                self._claims.may_expire = True
        return claim

    def unexpired(self, taken: list[Claim]) -> list[Claim]:
        """Of those that are to start now, the ones whose time is not over; the others are dropped."""
        now = self._clock.time()
        over = [claim for claim in taken if claim.expires is not None and claim.expires <= now]
        return self._without(over, taken, "expired")

    def unrevoked(self, taken: list[Claim]) -> list[Claim]:
        """Of those that are to start now, the ones that are still wanted; the others are dropped."""
        revoked = self.revoked
        if not revoked.ids and not revoked.stamps:
            return taken
        unwanted = [
            claim
            for claim in taken
            if claim.id in revoked or (revoked.stamps and is_stamped(claim.request.envelope.headers, revoked.stamps))
        ]
        return self._without(unwanted, taken, "revoked")

    def _without(self, unwanted: list[Claim], taken: list[Claim], reason: str) -> list[Claim]:
        for claim in unwanted:
            self._claims.leave_ready(claim)
            self._drop(claim, Discard(reason))
        return [claim for claim in taken if claim.state == READY] if unwanted else taken

    def tell_passed(self, claims: Sequence[Claim]) -> None:
        """Limited ones are to start."""
        if telemetry.wanted(telemetry.TaskReceived):
            now = self._clock.time()
            for claim in claims:
                self._tell_received(claim, now)

    def _tell_received(self, claim: Claim, now: float) -> None:
        request = claim.request
        telemetry.emit(
            telemetry.TaskReceived(at=now, id=claim.id, name=request.task, queue=request.queue, request=request)
        )

    def revoke(self, is_wanted: Callable[[Claim], bool]) -> list[str]:
        """Drop what waits here and is wanted; the ids. What runs is the executor's."""
        taken = self._claims.take_waiting(is_wanted)
        for claim in taken:
            self._drop(claim, Discard("revoked"))
        return [claim.id for claim in taken]

    # ── what the gate asks of limited ones (worker/gate.py) ──────────────────────────────────────────────────────

    @property
    def can_send_back(self) -> bool:
        """Whether the broker keeps messages until their time."""
        return self._policy.broker_keeps_delays

    @property
    def shortest_absence(self) -> float:
        """Seconds; what is due sooner would come back at once."""
        return max(1.0, self._policy.horizon + 0.5)

    def still_runs(self, claim: Claim) -> bool:
        """Whether a gated message is still to run; if not, it is dropped."""
        message = claim.request.message
        if isinstance(message, bytes) or message.headers.get("expires") is None:
            return True  # revoked ones have been dropped when that was said
        now = self._clock.time()
        decision = decide(message.headers, self._tasks, None, now, self._policy, self.revoked, self.revoked.stamps)
        if isinstance(decision, Discard):
            self._claims.leave_gate(claim)
            self._drop(claim, decision)
            return False
        return True

    def send_back(self, claim: Claim, until: float) -> None:
        """A gated message waits at the broker, not beyond its expiry."""
        self._claims.leave_gate(claim)
        self.send_away(claim, until)

    def send_away(self, claim: Claim, until: float) -> None:
        """The same for one that is out of the table."""
        message = claim.request.message
        if not isinstance(message, bytes) and message.headers.get("expires") is not None:
            with contextlib.suppress(MessageError):
                until = min(until, timestamp_of(message.headers["expires"]) or until)
        if self._policy.max_delay is not None:
            until = min(until, self._clock.time() + self._policy.max_delay)
        self._settle_dropped(claim, broker.Park(until, relative=True))

    def _must_wait(self, claim: Claim, now: float) -> bool:
        """Whether its turn comes later: then it waits at the broker, or here if that is soon."""
        start = self._pacing.start_of(claim, now)
        if start <= now:
            return False
        if start - now <= SOON or not self._policy.broker_keeps_delays:
            self._claims.add_later(claim, start)
            self.on_later()
        else:
            self._settle_dropped(claim, broker.Park(min(start, now + AWAY), relative=True))
        return True

    def admit_due(self, claim: Claim) -> None:
        """The time of a message that was kept here has come; it may have expired meanwhile."""
        now = self._clock.time()
        decision = decide(
            claim.request.envelope.headers, self._tasks, None, now, self._policy, self.revoked, self.revoked.stamps
        )
        match decision:
            case Run() | Isolate():
                if self._pacing.is_on and claim.id not in self._claims.held and self._must_wait(claim, now):
                    return
                if claim.id in self._claims.held:
                    self._claims.add_again(claim, redelivered=False)
                else:
                    self._claims.held[claim.id] = claim
                    self._claims.add_ready([claim])
            case Hold() | Park():
                self._claims.add_later(claim, decision.until)
            case _:
                self._drop(claim, decision)

    def adopts(self, delivery: Delivery) -> bool:
        """Whether it is the message of an attempt that is here and had lost it. Nothing else is taken up."""
        if delivery.malformed is not None:
            return False
        try:
            envelope = normalize(delivery.envelope, self._limits)
            claim = self._claim(delivery, envelope, self._tasks.get(envelope.headers["task"]))
        except Exception:  # nothing a message contains may end this process; somebody else will say what is wrong
            return False
        return claim.id in self._claims.held and self._claims.adopt(claim, was_given_before(claim.request))

    def _meet_again(self, claim: Claim) -> None:
        """A message whose id is held already, or was finished here while its message was lost."""
        claims = self._claims
        redelivered = was_given_before(claim.request)
        if claim.id in claims.held:
            claims.add_again(claim, redelivered)
        elif redelivered and (verdict := claims.was_done(claim)) is not None:
            self._settle_dropped(claim, verdict)
        else:
            claims.held[claim.id] = claim
            claims.add_ready([claim])

    def _divert(self, delivery: Delivery, envelope: Envelope, decision: Decision) -> None:
        """Not now or not here."""
        if isinstance(decision, Quarantine):
            self._refuse(delivery, decision)
            return
        name = envelope.headers["task"]
        claim = self._claim(delivery, envelope, self._tasks.get(name))
        if isinstance(decision, Isolate):
            self._isolate(claim)
        elif isinstance(decision, Hold):
            self._claims.add_later(claim, decision.until)
            self._tell_received(claim, self._clock.time())
            self.on_later()
        elif isinstance(decision, Park):
            self._settle_dropped(claim, broker.Park(decision.until))
        else:
            self._drop(claim, decision)

    def _isolate(self, claim: Claim) -> None:
        held = self._claims.held
        if claim.id in held or self._claims.was_done(claim):
            self._meet_again(claim)
        elif claim.facts is not None and claim.facts.late:
            self._claims.add_suspect(claim)
        else:
            held[claim.id] = claim
            self._claims.add_ready([claim])

    def _drop(self, claim: Claim, decision: Decision) -> None:
        """It will not run: tell the broker, and whoever waits for the result."""
        name, queue = claim.request.task, claim.request.queue
        match decision:
            case Discard(reason=reason):
                claim.record = record_of(claim, states.REVOKED, TaskRevokedError(reason), self._clock)
                self._settle_dropped(claim, broker.ACK)
                telemetry.emit(
                    telemetry.TaskRevoked(id=claim.id, name=name, expired=reason == "expired", request=claim.request)
                )
            case Unknown():
                reason = f"no task named {name!r} is registered here"
                claim.record = record_of(claim, states.FAILURE, NotRegistered(name), self._clock)
                self._settle_dropped(claim, broker.Bury(reason, quarantine=True, worker=self._hostname))
                telemetry.emit(
                    telemetry.MessageQuarantined(
                        queue=queue, id=claim.id, reason=reason, unknown=name, request=claim.request
                    )
                )
            case Poison(attempts=attempts):
                reason = f"started {attempts} times, and each time the process running it was lost"
                self._fail(claim, PoisonTask(reason), broker.Bury(reason, worker=self._hostname))
                telemetry.emit(telemetry.MessageDead(queue=queue, id=claim.id, name=name, reason=reason))
            case Quarantine(reason=reason):
                self._settle_dropped(claim, broker.Bury(reason, quarantine=True, worker=self._hostname))
                telemetry.emit(
                    telemetry.MessageQuarantined(queue=queue, id=claim.id, reason=reason, request=claim.request)
                )
            case _:
                raise AssertionError(f"{decision!r} does not drop a message")

    def _fail(self, claim: Claim, error: Exception, verdict: broker.Verdict) -> None:
        """It fails here; its error callbacks are called by a child, which can read the body."""
        if claim.id in self._claims.held or self._claims.was_done(claim):
            claim.record = record_of(claim, states.FAILURE, error, self._clock)
            self._settle_dropped(claim, verdict)
            return
        claim.request = to_be_concluded(claim.request, error)
        claim.verdict = verdict
        self._claims.held[claim.id] = claim
        self._claims.add_ready([claim])

    def _refuse(self, delivery: Delivery, decision: Quarantine) -> None:
        """Nothing in it can be relied on, not even its id."""
        message = delivery.message
        envelope = opened(message.payload) if isinstance(message, Heads) else message
        identifier = envelope.headers.get("id")
        shown = identifier if isinstance(identifier, str) else ""
        claim = Claim(
            shown, _request(delivery, envelope, shown, "", None, None), delivery.receipt, delivery.route, None
        )
        self._drop(claim, decision)

    def _settle_dropped(self, claim: Claim, verdict: broker.Verdict) -> None:
        advance(claim, DROPPED)
        claim.verdict = verdict
        self._settle.add_dropped(claim)


def _usual(
    delivery: Delivery, heads: Heads, tasks: Mapping[str, TaskFacts], crash_budget: int
) -> Claim | None:  # fmt: skip
    """The claim of a message that is to run now, its headers unread; ``None``: it has to be looked at closely.

    Nine of ten messages go through here, so it is one expression with what ``decide`` would ask.
    """
    facts = tasks.get(heads.task)
    if (
        facts is None or heads.eta is not None or heads.expires is not None or (delivery.attempt or 0) >= crash_budget
        or not is_safe_id(heads.id)
    ):  # fmt: skip
        return None
    hard, soft = facts.hard_limit, facts.soft_limit
    limits = heads.timelimit
    if limits is not None and limits != _NONE:
        hard, soft = _time_limits(limits, hard, soft)
    route, attempt = delivery.route, delivery.attempt
    request = Request(
        heads.id, heads.task, heads.payload, delivery.queue, route.exchange, route.routing_key, delivery.redelivered,
        0 if attempt is None else attempt + 1, hard, soft,
    )  # fmt: skip
    return Claim(heads.id, request, delivery.receipt, route, facts)


def _claim(delivery: Delivery, envelope: Envelope, facts: TaskFacts | None) -> Claim:
    headers = envelope.headers
    limits = headers.get("timelimit")
    hard, soft = (None, None) if facts is None else (facts.hard_limit, facts.soft_limit)
    if limits is not None and limits != _NO_LIMITS:
        hard, soft = _time_limits(limits, hard, soft)
    identifier: str = headers["id"]
    request = _request(delivery, envelope, identifier, headers["task"], hard, soft)
    return Claim(identifier, request, delivery.receipt, delivery.route, facts)


def _request(
    delivery: Delivery, envelope: Envelope, identifier: str, task: str, hard: float | None, soft: float | None
) -> Request:
    route, attempt = delivery.route, delivery.attempt
    return Request(
        identifier, task, envelope, delivery.queue, route.exchange, route.routing_key, delivery.redelivered,
        0 if attempt is None else attempt + 1, hard, soft,
    )  # fmt: skip


def _time_limits(limits: Any, hard: float | None, soft: float | None) -> tuple[float | None, float | None]:
    """The call's own ``[hard, soft]`` over those of the task. Raises ``InvalidTaskError`` for anything else."""
    own = limits if isinstance(limits, list | tuple) and len(limits) == 2 else None
    if own is None or not all(limit is None or (type(limit) in (int, float) and limit >= 0) for limit in own):
        raise MessageError(f"timelimit {limits!r:.80} is not [hard, soft] in seconds")
    return own[0] if own[0] is not None else hard, own[1] if own[1] is not None else soft


class Alarm:
    """Brings back the messages that this worker keeps until their time."""

    name = "alarm"

    def __init__(self, claims: Claims, admission: Admission, dispatch: Dispatch, clock: Clock) -> None:
        self._claims = claims
        self._admission = admission
        self._dispatch = dispatch
        self._clock = clock
        self._changed = asyncio.Event()
        admission.on_later = self._changed.set

    async def run(self, started: Callable[[], None]) -> None:
        started()
        while True:
            self._changed.clear()
            due = self._claims.next_due()
            if due is None:
                await self._changed.wait()
                continue
            delay = due - self._clock.time()
            if delay > 0:
                await self._sleep(delay)
                continue
            for claim in self._claims.take_due(self._clock.time()):
                self._admission.admit_due(claim)
            self._dispatch.pump()

    async def _sleep(self, delay: float) -> None:
        """Until then, or until an earlier message is kept; never longer than a clock may be trusted."""
        sleep = asyncio.ensure_future(self._clock.sleep(min(delay, 60.0)))
        change = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait((sleep, change), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            change.cancel()
