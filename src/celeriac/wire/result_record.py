"""The stored result: one record per task id, laid out as Celery's backends store it.

A record travels from the child that ran the task to the store as bytes that are never decoded on the way
(:class:`ResultRecord`); a reader turns it into the meta mapping of Celery (``status``, ``result``, ``traceback``,
``children``, ``date_done``, ``task_id`` …). Source of the format: ``Backend._get_result_meta`` of Celery 5.7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from celeriac.errors import DecodeError
from celeriac.wire.failure import exception_from_wire, exception_to_wire
from celeriac.wire.json_types import is_plain
from celeriac.wire.limits import DEFAULT_LIMITS, Limits
from celeriac.wire.serializers import dumps, loads
from celeriac.wire.stored_status import plain

#: states whose result is an exception
EXCEPTION_STATES = frozenset({"FAILURE", "RETRY", "REVOKED"})


class ResultRecord(msgspec.Struct, array_like=True, gc=False):
    """A task's state, ready to be stored."""

    task_id: str
    status: str
    payload: bytes  #: the whole meta mapping, serialized with ``result_serializer``
    content_type: str = "application/json"
    content_encoding: str = "utf-8"
    group_id: str | None = None
    #: seconds this record is kept, or None for ever
    expires_in: float | None = None
    #: where rpc-like stores send it: the message's ``reply_to``
    reply_to: str | None = None


class _Meta(msgspec.Struct, gc=False):
    """The mapping of a record that belongs to nothing, in its order."""

    status: str
    result: Any
    traceback: str | None
    children: tuple[()] | None
    date_done: str | None
    task_id: str


_NONE: tuple[()] = ()
_fast_encode = msgspec.json.Encoder().encode


def encode_record(
    *, task_id: str, status: str, result: Any, traceback: str | None = None, children: Sequence[Any] | None = (),
    date_done: str | None, group_id: str | None = None, parent_id: str | None = None,
    extended: Mapping[str, Any] | None = None, serializer: str = "json", expires_in: float | None = None,
    reply_to: str | None = None,
) -> ResultRecord:  # fmt: skip
    """The record of a state. An exception as ``result`` is written as one. Raises ``EncodeError``.

    ``children``: results as tuples, ``None`` outside of a request. ``date_done``: ISO-8601, only in ready states.
    ``extended``: what ``result_extended`` adds (name, args, kwargs, worker, retries, queue, stamps).
    """
    if isinstance(result, BaseException):
        result = exception_to_wire(result, serializer)
    if serializer == "json" and not (group_id or parent_id or extended or children) and is_plain(result):
        # the usual record, without the mapping
        kept = None if children is None else _NONE
        try:
            payload = _fast_encode(_Meta(status, result, traceback, kept, date_done, task_id))
            return ResultRecord(
                task_id, status, payload, "application/json", "utf-8", None, expires_in, reply_to
            )  # fmt: skip
        except (ValueError, TypeError, OverflowError, RecursionError):
            pass  # a lone surrogate, or what the careful way complains about
    meta: dict[str, Any] = {
        "status": status,
        "result": result,
        "traceback": traceback,
        "children": list(children) if children is not None else None,
        "date_done": date_done,
    }
    if group_id:
        meta["group_id"] = group_id
    if parent_id:
        meta["parent_id"] = parent_id
    if extended:
        meta.update(extended)
    meta["task_id"] = task_id
    payload, content_type, content_encoding = dumps(meta, serializer)
    return ResultRecord(task_id, status, payload, content_type, content_encoding, group_id, expires_in, reply_to)


def decode_record(
    record: ResultRecord, accept: frozenset[str] | None = None, limits: Limits = DEFAULT_LIMITS
) -> dict[str, Any]:
    """The meta mapping; in exception states ``result`` is the exception. Raises ``MessageError``, ``SecurityError``.

    ``accept=None``: JSON only.
    """
    meta = loads(plain(record.payload, limits), record.content_type, record.content_encoding, accept, limits)
    if not isinstance(meta, dict) or not isinstance(meta.get("status"), str):
        raise DecodeError(f"The record of task {record.task_id[:255]!r} is not a result: it has no status")
    if meta["status"] in EXCEPTION_STATES and meta.get("result") is not None:
        meta["result"] = exception_from_wire(meta["result"])
    return meta
