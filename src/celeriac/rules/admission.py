"""What is to be done with a message that has just been received: run it now, later, elsewhere or never.

Pure: the headers (protocol 2), the facts the engine knows and the time go in, a decision comes out. The usual
message costs a few look-ups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from celeriac.errors import MessageError
from celeriac.ids import is_safe_id
from celeriac.wire.task_message import timestamp_of

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Mapping


class Run(msgspec.Struct, frozen=True, tag=True):
    """Run it as soon as there is room."""


class Park(msgspec.Struct, frozen=True, tag=True):
    """Its time has not come: the broker is to keep it until then (seconds since the epoch)."""

    until: float


class Hold(msgspec.Struct, frozen=True, tag=True):
    """Its time has not come and this worker has to keep it: the broker can't, or it is due very soon."""

    until: float


class Discard(msgspec.Struct, frozen=True, tag=True):
    """Nobody wants it any more: acknowledge it and record REVOKED."""

    reason: str  #: ``expired`` or ``revoked``


class Quarantine(msgspec.Struct, frozen=True, tag=True):
    """It cannot be understood: set it aside, bytes unchanged, with this reason."""

    reason: str


class Unknown(msgspec.Struct, frozen=True, tag=True):
    """A sound message for a task this worker does not have: set it aside, to be replayed where it is known."""

    name: str


class Isolate(msgspec.Struct, frozen=True, tag=True):
    """It was held whenever a worker died, perhaps without having been started: run it, but nothing else beside it."""


class Poison(msgspec.Struct, frozen=True, tag=True):
    """It has cost as many processes as it may: to the dead letters."""

    attempts: int


Decision = Run | Park | Hold | Discard | Quarantine | Unknown | Isolate | Poison

RUN = Run()
ISOLATE = Isolate()

#: a worker that dies whole takes more messages with it than it had started, and the broker counts them all; so many
#: more starts, alone, until a message is held to be the cause (semantics 3.10)
BENEFIT_OF_DOUBT = 2


class AdmissionPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker and its broker bring to the decision."""

    crash_budget: int = 3
    broker_keeps_delays: bool = True
    #: the longest delay the broker takes, in seconds; None: any
    max_delay: float | None = None
    #: seconds; what is due sooner is not worth a trip to the broker
    horizon: float = 0.2


DEFAULT_POLICY = AdmissionPolicy()
NO_STAMPS: Mapping[str, Container[str]] = {}


def decide(
    headers: Mapping[str, Any],
    tasks: Container[str],
    attempt: int | None,
    now: float,
    policy: AdmissionPolicy = DEFAULT_POLICY,
    revoked: Collection[str] = (),
    stamps: Mapping[str, Container[str]] = NO_STAMPS,
    *,
    identified: bool = False,
) -> Decision:
    """What to do with the message of these headers.

    ``attempt``: how often it was started before; None where the broker does not count. ``now``: seconds since the
    epoch. ``revoked``: ids, ``stamps``: values of stamped headers whose tasks nobody wants any more.
    ``identified``: name and id have passed ``task_message.check_identity`` already.
    """
    name = headers.get("task")
    if type(name) is not str or name not in tasks or not (identified or is_safe_id(headers.get("id"))):
        return _refuse(headers)
    may_run: Run | Isolate = RUN
    if attempt is not None and attempt >= policy.crash_budget:
        if attempt >= policy.crash_budget + BENEFIT_OF_DOUBT:
            return Poison(attempt)
        may_run = ISOLATE
    if (revoked and headers["id"] in revoked) or (stamps and is_stamped(headers, stamps)):
        return Discard("revoked")
    eta, expires = headers.get("eta"), headers.get("expires")
    if eta is None and expires is None:
        return may_run
    due = end = None
    try:
        due = timestamp_of(eta)
        end = timestamp_of(expires)
    except MessageError as error:
        return Quarantine(f"{'eta' if due is None and eta is not None else 'expires'}: {error}")
    if end is not None and end <= now:
        return Discard("expired")
    if due is None or due <= now:
        return may_run
    return _wait(due if end is None else min(due, end), now, policy)


def is_stamped(headers: Mapping[str, Any], stamps: Mapping[str, Container[str]]) -> bool:
    """Whether the message bears one of these stamps: ``{header: values}``."""
    borne = headers.get("stamps")
    if not isinstance(borne, dict):
        return False
    for name, values in stamps.items():
        found = borne.get(name)
        for value in found if isinstance(found, list | tuple) else (found,):
            if value is not None and str(value) in values:
                return True
    return False


def _refuse(headers: Mapping[str, Any]) -> Quarantine | Unknown:
    name, identifier = headers.get("task"), headers.get("id")
    if not isinstance(name, str) or not name:
        return Quarantine("the message names no task")
    if not is_safe_id(identifier):
        return Quarantine(f"task id {identifier!r:.80} is not 1 to 255 of [A-Za-z0-9_.:@-]")
    return Unknown(name)


def _wait(until: float, now: float, policy: AdmissionPolicy) -> Park | Hold:
    if not policy.broker_keeps_delays or until - now <= policy.horizon:
        return Hold(until)
    if policy.max_delay is not None:
        return Park(min(until, now + policy.max_delay))
    return Park(until)
