"""The easy way in for result stores: a bucket of keys and values → a full ResultStore.

Keys and values are Celery's (``celery-task-meta-<id>`` → the serialized meta mapping), so both can read each
other's results. A bucket needs five methods, see ``results/base.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Protocol

import msgspec

from celeriac.errors import BackendError, BackendGetMetaError, MessageError
from celeriac.ids import is_safe_id
from celeriac.results.base import Bucket, StoreCapabilities
from celeriac.wire.result_record import ResultRecord, decode_record
from celeriac.wire.serializers import serializer_named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celeriac.clock import Clock
    from celeriac.results.base import ResultStore

_TASK_PREFIX = "celery-task-meta-"
_GROUP_PREFIX = "celery-taskset-meta-"
_JSON = "application/json"


class KeyValueSettings(Protocol):
    """What of the result settings this reads."""

    result_serializer: str


class _Status(msgspec.Struct):
    status: str


_read_status = msgspec.json.Decoder(_Status).decode


def key_value_store(
    name: str, bucket_class: Callable[[str, KeyValueSettings, Clock], Bucket], *, expires: bool,
    max_record_bytes: int | None = None,
) -> type[ResultStore]:  # fmt: skip
    """Make a driver class of a bucket class, which is constructed with ``(url, settings, clock)`` when first used.

    ``expires``: the bucket removes values after their time.
    """

    class KeyValueStore:
        capabilities: ClassVar[StoreCapabilities] = StoreCapabilities(
            persistent=True, expires=expires, watch=False, groups=True, counts_chords=False,
            max_record_bytes=max_record_bytes,
        )  # fmt: skip

        def __init__(self, url: str, settings: KeyValueSettings, clock: Clock) -> None:
            self.engine_key: tuple[str, ...] = (name, url)
            self._open: Callable[[], Bucket] = partial(bucket_class, url, settings, clock)
            self._opened: Bucket | None = None
            self._settings = settings

        @property
        def _bucket(self) -> Bucket:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

        def write(self, records: Sequence[ResultRecord]) -> None:
            keys = {record.task_id: _key(_TASK_PREFIX, record.task_id) for record in records}
            # not atomic: between this look and the write another worker may store a SUCCESS. Stores that can
            # compare and set should implement the seam themselves.
            stored = self._bucket.get_many(list(keys.values()))
            succeeded = {key for key, value in stored.items() if self._status(value) == "SUCCESS"}
            for record in records:
                key = keys[record.task_id]
                if key not in succeeded:
                    self._bucket.set(key, record.payload, record.expires_in)
                    if record.status == "SUCCESS":
                        succeeded.add(key)

        def read(self, ids: Sequence[str], deadline: float | None = None) -> Mapping[str, ResultRecord]:
            # how long a bucket may take is its own affair
            keys = {_key(_TASK_PREFIX, task_id): task_id for task_id in ids}
            found = self._bucket.get_many(list(keys))
            return {keys[key]: self._record(keys[key], value) for key, value in found.items()}

        def _record(self, task_id: str, value: bytes) -> ResultRecord:
            serializer = serializer_named(self._settings.result_serializer)
            record = ResultRecord(task_id, "", value, serializer.content_type, serializer.content_encoding)
            record.status = self._status(value, record)
            return record

        def _status(self, value: bytes, record: ResultRecord | None = None) -> str:
            if record is None:
                return self._record("", value).status
            try:
                if record.content_type == _JSON and value[:1] == b"{":
                    return _read_status(value).status
                accept = frozenset((record.content_type,))
                return str(decode_record(record, accept)["status"])
            except (MessageError, msgspec.MsgspecError, UnicodeDecodeError, KeyError) as error:
                raise BackendGetMetaError(
                    f"The stored result of task {record.task_id!r} cannot be read as {record.content_type}: {error}",
                    task_id=record.task_id,
                ) from error

        def forget(self, ids: Sequence[str]) -> None:
            self._bucket.delete([_key(_TASK_PREFIX, task_id) for task_id in ids])

        def cleanup(self) -> int:
            """The bucket expires its values itself, or keeps them."""
            return 0

        def save_group(self, group_id: str, payload: bytes, expires_in: float | None) -> None:
            self._bucket.set(_key(_GROUP_PREFIX, group_id), payload, expires_in)

        def restore_group(self, group_id: str) -> bytes | None:
            return self._bucket.get(_key(_GROUP_PREFIX, group_id))

        def delete_group(self, group_id: str) -> None:
            self._bucket.delete([_key(_GROUP_PREFIX, group_id)])

        def close(self) -> None:
            closing = getattr(self._opened, "close", None)
            if closing is not None:
                closing()

    KeyValueStore.__name__ = KeyValueStore.__qualname__ = f"{name.capitalize()}Store"
    return KeyValueStore


def _key(prefix: str, identifier: str) -> str:
    # an identifier that comes from outside must not lead out of its prefix (a directory, a glob, a URL path)
    if not is_safe_id(identifier) or identifier in (".", ".."):
        raise BackendError(f"{identifier[:80]!r} cannot be a key: up to 255 letters, digits and _.:@- are allowed.")
    return prefix + identifier
