"""Buckets hold Celery's keys and values, whatever the serializer, and hostile ids do not leave their prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import BackendError, BackendGetMetaError, ImproperlyConfigured
from celeriac.results.disabled import DisabledStore
from celeriac.results.key_value import key_value_store
from celeriac.wire.result_record import ResultRecord, decode_record, encode_record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class DictBucket:
    def __init__(self, url: str, settings: Any, clock: Any) -> None:
        self.values: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        return {key: self.values[key] for key in keys if key in self.values}

    def set(self, key: str, value: bytes, expires_in: float | None) -> None:
        self.values[key] = value

    def add(self, key: str, value: bytes, expires_in: float | None) -> bool:
        return self.values.setdefault(key, value) is value

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.values.pop(key, None)


Store: Any = key_value_store("dict", DictBucket, expires=False)


class Json:
    result_serializer = "json"


class Yaml:
    result_serializer = "yaml"


@pytest.mark.parametrize("settings", [Json, Yaml])
def test_any_serializer_is_read_back(settings: Any) -> None:
    store = Store("dict://", settings, SYSTEM_CLOCK)
    written = encode_record(
        task_id="t", status="FAILURE", result=KeyError("k"), date_done=None, serializer=settings.result_serializer
    )
    store.write([written])
    assert list(store._bucket.values) == ["celery-task-meta-t"]
    found = store.read(["t"])["t"]
    assert (found.status, found.payload, found.content_type) == ("FAILURE", written.payload, written.content_type)
    meta = decode_record(found, accept=frozenset({found.content_type}))
    assert isinstance(meta["result"], KeyError)


def test_what_cannot_be_read_says_whose_it_is() -> None:
    store = Store("dict://", Json, SYSTEM_CLOCK)
    for value in (b"", b"{", b"\xff", b'{"no": "status"}', b"[]"):
        store._bucket.values["celery-task-meta-t"] = value
        with pytest.raises(BackendGetMetaError, match="'t'") as caught:
            store.read(["t"])
        assert caught.value.task_id == "t"


@pytest.mark.parametrize("hostile", ["../x", "a/b", "", ".", "..", "a b", "a*", "x" * 256, "a\0b"])
def test_hostile_ids_are_refused(hostile: str) -> None:
    store = Store("dict://", Json, SYSTEM_CLOCK)
    for refused in (
        lambda: store.write([ResultRecord(hostile, "SUCCESS", b"{}")]),
        lambda: store.read([hostile]),
        lambda: store.forget([hostile]),
        lambda: store.restore_group(hostile),
    ):
        with pytest.raises(BackendError):
            refused()
    assert not store._bucket.values


def test_the_disabled_store_says_that_it_is() -> None:
    store = DisabledStore("disabled", None, SYSTEM_CLOCK)
    store.write([ResultRecord("t", "SUCCESS", b"{}")])
    store.forget(["t"])
    assert store.cleanup() == 0
    with pytest.raises(ImproperlyConfigured, match="result_backend"):
        store.read(["t"])
