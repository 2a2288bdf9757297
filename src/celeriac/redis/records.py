"""How results stand in Redis: their keys, their bytes, and the arguments that ``scripts/_store.lua`` takes.

Keys and values are Celery's (``celery-task-meta-<id>`` → the serialized meta), so that both read each other's results.
Used by the result store, and by the broker that settles results with its messages. Knows no connection.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

from celeriac.errors import DecodeError, ResultTooLarge
from celeriac.wire.compression import compress
from celeriac.wire.result_record import ResultRecord
from celeriac.wire.serializers import serializer_named
from celeriac.wire.stored_status import packed, stored_status

if TYPE_CHECKING:
    from collections.abc import Sequence

#: what Redis takes as one value
MAX_RECORD_BYTES = 512 * 1024 * 1024
_TASK = "celery-task-meta-"
_GROUP = "celery-taskset-meta-"
#: a prefix that ends in one of these is taken as it is
_SEPARATORS = ":_-."
#: serializers whose records are told apart by their bytes
_KNOWN = frozenset({"json", "pickle", "msgpack", "yaml"})


class RecordSettings(Protocol):
    """What of the result settings this reads."""

    @property
    def result_serializer(self) -> str: ...
    @property
    def result_compression(self) -> str | None: ...
    @property
    def result_expires(self) -> float | None: ...
    @property
    def result_failure_expires(self) -> float | None: ...


class Records:
    """Names and packs the results of one key prefix (``global_keyprefix`` as given)."""

    def __init__(self, settings: RecordSettings, keyprefix: str = "") -> None:
        between = "_" if keyprefix and keyprefix[-1] not in _SEPARATORS else ""
        self.task_prefix = f"{keyprefix}{between}{_TASK}".encode()
        self.group_prefix = f"{keyprefix}{between}{_GROUP}".encode()
        self._compression = settings.result_compression or None
        if self._compression:
            compress(b"", self._compression)  # an unknown method is found out now
        self._serializer = serializer_named(settings.result_serializer)
        failures, others = settings.result_failure_expires, settings.result_expires
        self._failures_differ = failures != others
        self._failure_expires = failures

    def key(self, task_id: str) -> bytes:
        """Where the record of a task stands, and the channel that tells of it."""
        return self.task_prefix + task_id.encode("utf-8", "surrogatepass")

    def group_key(self, group_id: str) -> bytes:
        return self.group_prefix + group_id.encode("utf-8", "surrogatepass")

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────

    def arguments(
        self, records: Sequence[ResultRecord], judged: Sequence[str] = ()
    ) -> tuple[list[bytes], list[bytes | str | int]]:
        """KEYS and ARGV for the Lua function ``store``.

        ``judged``: for each record, the :func:`digest` of a stored value that it may replace, or "". Raises
        ``ResultTooLarge``.
        """
        keys: list[bytes] = []
        arguments: list[bytes | str | int] = [len(records)]
        for number, record in enumerate(records):
            keys.append(self.key(record.task_id))
            arguments.append(self.packed(record.payload, record.task_id))
            arguments.append(self._milliseconds(record))
            arguments.append(judged[number] if judged else "")
        return keys, arguments

    def packed(self, payload: bytes, task_id: str | None = None) -> bytes:
        """As it is stored: compressed, if that is the setting."""
        value = packed(payload, self._compression) if self._compression else payload
        if len(value) > MAX_RECORD_BYTES:
            raise ResultTooLarge(
                f"The result of task {task_id} has {len(value)} bytes; Redis takes {MAX_RECORD_BYTES}", task_id=task_id
            )
        return value

    def _milliseconds(self, record: ResultRecord) -> int:
        seconds = record.expires_in
        if self._failures_differ and record.status == "FAILURE":
            seconds = self._failure_expires
        return milliseconds(seconds)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────

    def record(self, task_id: str, value: bytes) -> ResultRecord:
        """What is stored, its bytes as they are.

        Bytes that are no result are a FAILURE: whoever waits for it gets to know when it is decoded, and nobody else.
        """
        serializer = self._serializer
        try:
            status, content_type, encoding = stored_status(value)
        except DecodeError:
            status, content_type, encoding = "FAILURE", serializer.content_type, serializer.content_encoding
        if serializer.name not in _KNOWN:  # registered by the app; nobody else's records are there
            content_type, encoding = serializer.content_type, serializer.content_encoding
        return ResultRecord(task_id, status, value, content_type, encoding)


def milliseconds(seconds: float | None) -> int:
    """For ``PX``; 0 stands for ever, as 0 and None do in the settings."""
    return max(1, round(seconds * 1000)) if seconds is not None and seconds > 0 else 0


def digest(value: bytes | None) -> str:
    """What ``redis.sha1hex`` makes of it; of nothing, nothing."""
    return "" if value is None else hashlib.sha1(value, usedforsecurity=False).hexdigest()


def is_success(value: bytes | None) -> bool:
    """Whether these stored bytes must stay. Bytes that are no result need not."""
    if value is None:
        return False
    try:
        return stored_status(value).status == "SUCCESS"
    except DecodeError:
        return False
