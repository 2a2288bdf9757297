"""The stored result: one record per task id, laid out as Celery's backends store it.

A record travels from the child that ran the task to the store as bytes that are never decoded on the way
(:class:`ResultRecord`); a reader turns it into the meta mapping of Celery (``status``, ``result``, ``traceback``,
``children``, ``date_done``, ``task_id`` …). Source of the format: ``Backend._get_result_meta`` of Celery 5.7.
"""

from __future__ import annotations

import msgspec


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
