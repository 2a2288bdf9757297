"""The few records and messages the parent makes itself: for tasks that no child can speak for any more."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from celeriac.errors import MessageError
from celeriac.rules import states
from celeriac.wire import json_types
from celeriac.wire.envelope import Envelope, Outgoing
from celeriac.wire.failure import exception_to_wire
from celeriac.wire.result_record import ResultRecord, encode_record
from celeriac.wire.safe_repr import safe_repr

if TYPE_CHECKING:
    from celeriac.clock import Clock
    from celeriac.executors.base import Request
    from celeriac.worker.claims import Claim

#: a stored result of more bytes is not read for the sake of showing it
_SHORT_BYTES = 16 << 10
#: seconds that hooks and error callbacks may take; the attempt's own limits are over
CONCLUSION_LIMIT = 60.0

#: what dead-letter exchanges leave in the headers; a new attempt starts without it
_DEATH_HEADERS = (
    "x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason",
    "x-last-death-exchange", "x-last-death-queue", "x-last-death-reason",
)  # fmt: skip


def record_of(claim: Claim, state: str, error: BaseException, clock: Clock) -> ResultRecord | None:
    """The record that says how this task ended; None where nobody wants one."""
    headers = claim.request.envelope.headers
    options = None if claim.facts is None else claim.facts.options
    ignored = headers.get("ignore_result")
    if ignored is None:
        ignored = options is not None and options.ignore_result
    keeps_errors = options is not None and options.store_errors_even_if_ignored
    if ignored and not (keeps_errors and state == states.FAILURE):
        return None
    serializer = "json" if options is None else options.result_serializer
    return encode_record(
        task_id=claim.id,
        status=state,
        result=exception_to_wire(error, serializer),
        date_done=clock.now().isoformat(),
        group_id=headers.get("group"),
        parent_id=headers.get("parent_id"),
        serializer=serializer,
        expires_in=None if options is None else options.result_expires,
        reply_to=claim.request.envelope.properties.get("reply_to"),
    )


def result_shown(record: ResultRecord | None) -> str:
    """The stored result as short text, for events; empty where nothing is stored, or only a child could read it."""
    if record is None or record.content_type != "application/json" or len(record.payload) > _SHORT_BYTES:
        return ""
    with contextlib.suppress(MessageError):
        meta = json_types.decode(record.payload)
        return safe_repr(meta.get("result")) if isinstance(meta, dict) else ""
    return ""


def to_be_concluded(request: Request, error: BaseException, retry_in: float | None = None) -> Request:
    """The request by which a child calls the hooks and error callbacks of an attempt that the parent calls failed, or
    to be retried after so many seconds."""
    failure: dict[str, Any] = exception_to_wire(error)
    if retry_in is not None:
        failure["retry_in"] = retry_in
    return msgspec.structs.replace(request, failure=failure, hard_limit=CONCLUSION_LIMIT, soft_limit=None)


def next_attempt(claim: Claim, delay: float, clock: Clock) -> Outgoing:
    """The same message once more, retried after ``delay`` seconds: what ``Task.retry`` would send."""
    envelope = claim.request.envelope
    until = clock.time() + delay
    headers = {key: value for key, value in envelope.headers.items() if key not in _DEATH_HEADERS}
    headers["retries"] = (headers.get("retries") or 0) + 1
    headers["eta"] = datetime.fromtimestamp(until, UTC).isoformat()
    return Outgoing(Envelope(envelope.body, headers, envelope.properties), claim.route, until)


def same_again(claim: Claim) -> Outgoing:
    """The same message, as it came: for one that was acknowledged early and never started."""
    return Outgoing(claim.request.envelope, claim.route)
