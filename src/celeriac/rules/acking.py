"""When a message is acknowledged, and what becomes of it when its task does not end well.

Early, late, on failure, on time-out, on a lost process: rows of tables, not code paths. Facts: worker-beat.md 4
(Celery's task options), semantics 3.1 and D8 (our default for lost processes: again, within the crash budget).
"""

from __future__ import annotations

from enum import Enum
from typing import Literal

import msgspec

from celeriac.rules import states
from celeriac.rules.admission import BENEFIT_OF_DOUBT


class Fate(Enum):
    """What the broker is told about a message whose attempt is over."""

    ACK = "done"
    RELEASE = "give back, not counted"
    RELEASE_COUNTED = "give back, one more attempt counted"
    DEAD = "set aside as a dead letter"
    NOTHING = "the broker has forgotten it already"
    RESEND = "publish it anew: acknowledged early, yet certainly never started"
    RETRY = "acknowledge, and publish the next attempt"


class AckPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What a task's options say about acknowledging; see ``task_acks_*`` and ``task_*_on_worker_lost``."""

    late: bool = True
    on_failure: bool = True
    on_timeout: bool = True
    reject_on_worker_lost: bool | None = None  #: None as True: again within the crash budget
    retry_on_worker_lost: bool = False
    max_retries: int | None = 3  #: only read for ``retry_on_worker_lost``
    crash_budget: int = 3  #: how many processes one message may cost


class Loss(msgspec.Struct, frozen=True):
    """What a lost process means for the message and for who waits for the result."""

    fate: Fate
    #: the state to be stored, or None
    state: str | None
    #: which exception the record shows
    error: Literal["WorkerLostError", "TimeLimitExceeded", "TaskRevokedError", ""] = ""


def after_success(policy: AckPolicy) -> Fate:
    """Succeeded, ignored, or handed over to the next attempt."""
    return Fate.ACK if policy.late else Fate.NOTHING


def after_failure(policy: AckPolicy) -> Fate:
    """The task raised, or its soft time limit did."""
    if not policy.late:
        return Fate.NOTHING
    return Fate.ACK if policy.on_failure else Fate.DEAD


def after_reject(policy: AckPolicy, requeue: bool) -> Fate:
    """The task raised ``Reject``; of no effect on a message that is acknowledged already."""
    if not policy.late:
        return Fate.NOTHING
    return Fate.RELEASE if requeue else Fate.DEAD


def after_loss(
    policy: AckPolicy, cause: str, started: bool, delivery: int, retries: int, *, alone: bool = True
) -> Loss:  # fmt: skip
    """The process running the attempt is gone. ``delivery``: which start of this message it was, from 1. ``alone``:
    no other task ran in that process, so that it is certain which one it died of."""
    if cause == "revoked":  # before it started, too: nobody wants it any more
        return Loss(after_success(policy), states.REVOKED, "TaskRevokedError")
    if not started:
        return Loss(Fate.RELEASE if policy.late else Fate.RESEND, None)
    if cause == "hard_limit":
        return Loss(_after_timeout(policy, delivery), states.FAILURE, "TimeLimitExceeded")
    if policy.retry_on_worker_lost and cause != "stopped":
        if policy.max_retries is None or retries < policy.max_retries:
            return Loss(Fate.RETRY, states.RETRY, "WorkerLostError")
        return Loss(after_failure(policy), states.FAILURE, "WorkerLostError")
    if not policy.late:
        return Loss(Fate.NOTHING, states.FAILURE, "WorkerLostError")
    if cause == "stopped":
        # the worker was told to end: not the task's fault, so not on its budget
        return Loss(Fate.RELEASE, None)
    if policy.reject_on_worker_lost is False:
        return Loss(after_failure(policy), states.FAILURE, "WorkerLostError")
    # One that always ran beside others may be their victim: above the budget it is run alone (admission.Isolate).
    if delivery < policy.crash_budget or (not alone and delivery < policy.crash_budget + BENEFIT_OF_DOUBT):
        return Loss(Fate.RELEASE_COUNTED, None)
    return Loss(Fate.DEAD, states.FAILURE, "WorkerLostError")


def _after_timeout(policy: AckPolicy, delivery: int) -> Fate:
    if not policy.late:
        return Fate.NOTHING
    if policy.on_timeout:
        return Fate.ACK
    return Fate.RELEASE_COUNTED if delivery < policy.crash_budget else Fate.DEAD
