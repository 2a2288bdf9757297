"""Result records: layout, exceptions, refusal."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest

from celeriac.errors import ContentDisallowed, DecodeError, EncodeError, RemoteError, SecurityError
from celeriac.wire.result_record import ResultRecord, decode_record, encode_record
from celeriac.wire.serializers import accept_set

DONE = "2026-11-22T15:21:50.462153+00:00"


def test_layout_is_celerys() -> None:
    record = encode_record(task_id="i", status="SUCCESS", result=3, date_done=DONE, expires_in=60.0, reply_to="r")
    assert record.payload == (
        b'{"status":"SUCCESS","result":3,"traceback":null,"children":[],'
        b'"date_done":"2026-11-22T15:21:50.462153+00:00","task_id":"i"}'
    )
    assert (record.task_id, record.status, record.content_type) == ("i", "SUCCESS", "application/json")
    assert (record.expires_in, record.reply_to, record.group_id) == (60.0, "r", None)


def test_group_parent_children_and_extended_fields() -> None:
    record = encode_record(
        task_id="i", status="SUCCESS", result=1, date_done=DONE, group_id="g", parent_id="p",
        children=[(("c", None), None)], extended={"name": "t", "args": (1,)},
    )  # fmt: skip
    meta = json.loads(record.payload)
    assert list(meta) == [
        "status", "result", "traceback", "children", "date_done", "group_id", "parent_id", "name", "args", "task_id",
    ]  # fmt: skip
    assert meta["children"] == [[["c", None], None]]
    assert record.group_id == "g"
    outside = encode_record(task_id="i", status="REVOKED", result=None, date_done=DONE, children=None)
    assert json.loads(outside.payload)["children"] is None


@pytest.mark.parametrize("serializer", ["json", "pickle", "yaml", "msgpack"])
@pytest.mark.parametrize("status", ["FAILURE", "RETRY", "REVOKED"])
def test_exceptions_are_rebuilt_in_exception_states(serializer: str, status: str) -> None:
    record = encode_record(
        task_id="i", status=status, result=KeyError("k", 1), traceback="tb", date_done=None, serializer=serializer
    )
    meta = decode_record(record, accept_set([serializer]))
    assert (type(meta["result"]), meta["result"].args) == (KeyError, ("k", 1))
    assert (meta["status"], meta["traceback"], meta["task_id"]) == (status, "tb", "i")


def test_in_other_states_a_mapping_stays_a_mapping() -> None:
    value = {"exc_type": "ValueError", "exc_message": ["x"], "exc_module": "builtins"}
    record = encode_record(task_id="i", status="SUCCESS", result=value, date_done=DONE)
    assert decode_record(record)["result"] == value


def test_a_failure_without_exception_reads_as_none() -> None:
    record = encode_record(task_id="i", status="FAILURE", result=None, date_done=DONE)
    assert decode_record(record)["result"] is None


def test_unknown_exception_classes_are_remote_errors() -> None:
    data = {"exc_type": "Gone", "exc_message": ["x"], "exc_module": "no.such"}
    record = encode_record(task_id="i", status="FAILURE", result=data, date_done=DONE)
    assert isinstance(decode_record(record)["result"], RemoteError)


def test_what_cannot_be_written_or_read() -> None:
    with pytest.raises(EncodeError):
        encode_record(task_id="i", status="SUCCESS", result=object(), date_done=DONE)
    pickled = encode_record(task_id="i", status="SUCCESS", result=1, date_done=DONE, serializer="pickle")
    with pytest.raises(ContentDisallowed):
        decode_record(pickled)
    for payload in (b"", b"[]", b"{}", b"5", b"\x00celery-compressed\x00", b"\x00celery-compressed\x00x\x00y"):
        with pytest.raises(DecodeError):
            decode_record(ResultRecord("i", "SUCCESS", payload))
    evil: Any = {"exc_type": "system", "exc_message": ["true"], "exc_module": "os"}
    with pytest.raises(SecurityError):
        decode_record(encode_record(task_id="i", status="FAILURE", result=evil, date_done=DONE))


def test_compressed_records_of_celery_57_are_read() -> None:
    plain = encode_record(task_id="i", status="SUCCESS", result=3, date_done=DONE)
    packed = b"\x00celery-compressed\x00application/x-gzip\x00" + zlib.compress(plain.payload)
    assert decode_record(ResultRecord("i", "SUCCESS", packed))["result"] == 3


@pytest.mark.parametrize("status", [b"5", b"[]", b"null", b"{}"])
def test_a_status_that_is_no_text_is_a_decode_error(status: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_record(ResultRecord("i", "?", b'{"status": ' + status + b', "result": 1}'))
