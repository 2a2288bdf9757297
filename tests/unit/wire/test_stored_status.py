"""The state of a stored record is read without decoding it, whatever serializer and compression it has."""

from __future__ import annotations

import pickle

import pytest

from celeriac.errors import DecodeError
from celeriac.wire.compression import compression_names
from celeriac.wire.limits import Limits
from celeriac.wire.result_record import decode_record, encode_record
from celeriac.wire.stored_status import packed, plain, stored_status

SERIALIZERS = ["json", "pickle", "msgpack", "yaml"]


def payload(serializer: str, status: str = "SUCCESS", result: object = "status: FAILURE\nstatus: x") -> bytes:
    record = encode_record(task_id="t", status=status, result=result, date_done=None, serializer=serializer)
    return record.payload


@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "PROGRESS", "HALF-WAY_1.5", "RETRY"])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_of_each_serializer(serializer: str, status: str):
    error = ValueError("boom") if status in ("FAILURE", "RETRY") else [1, {"status": "REVOKED"}]
    value = payload(serializer, status, error)
    stored = stored_status(value)
    record = encode_record(task_id="t", status=status, result=1, date_done=None, serializer=serializer)
    assert stored == (status, record.content_type, record.content_encoding)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_of_each_pickle_protocol(protocol: int):
    value = pickle.dumps({"status": "SUCCESS", "result": b"\x00" * 300}, protocol)
    assert stored_status(value).status == "SUCCESS"


def test_a_pickle_is_not_run(tmp_path):
    canary = tmp_path / "canary"

    class Trap:
        def __reduce__(self):
            return (open, (str(canary), "w"))

    assert stored_status(pickle.dumps({"status": "STARTED", "result": Trap()}, 2)).status == "STARTED"
    with pytest.raises(DecodeError):
        stored_status(pickle.dumps({"result": Trap(), "status": "STARTED"}, 0))
    assert not canary.exists()


def test_the_status_may_stand_anywhere_in_json():
    assert stored_status(b'{ "result": {"status": "no"}, "status" : "SUCCESS" }').status == "SUCCESS"


@pytest.mark.parametrize("method", compression_names())
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_compressed(serializer: str, method: str):
    value = payload(serializer, result="0123456789" * 100)
    small = packed(value, method)
    assert len(small) < len(value)
    assert plain(small) == value
    assert stored_status(small).status == "SUCCESS"
    record = encode_record(task_id="t", status="SUCCESS", result=1, date_done=None, serializer=serializer)
    record.payload = small
    accept = frozenset((record.content_type,))
    assert decode_record(record, accept)["result"] == "0123456789" * 100


def test_what_could_not_be_read_again_is_not_compressed():
    value = payload("json", result="0" * 30_000_000)
    assert packed(value, "gzip") == value  # a thousand times smaller: readers take it for a bomb
    assert packed(b"{}", "gzip") == b"{}"
    limits = Limits(wire_bytes=100)
    assert packed(payload("json", result=[*range(200)]), "gzip", limits) == payload("json", result=[*range(200)])


@pytest.mark.parametrize(
    "value",
    [
        b"", b"{", b'{"result": 1}', b"\x80", b"\x80\x04", b"\x86\xa6status", b"no yaml", b'{"status": 3}', b"\xff\xfe",
        b"\x00celery-compressed\x00", b"\x00celery-compressed\x00application/x-gzip\x00nonsense", b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_record_is_an_error(value: bytes):
    with pytest.raises(DecodeError):
        stored_status(value)
