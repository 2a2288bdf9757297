"""Results that a real Celery stored are read as Celery reads them, and reprs look like Celery's."""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from celeriac import errors
from celeriac.errors import ContentDisallowed, DecodeError, RemoteError
from celeriac.wire.result_record import ResultRecord, decode_record, encode_record
from celeriac.wire.safe_repr import safe_repr
from celeriac.wire.serializers import accept_set

FOLDER = Path(__file__).parent / "golden"
RESULTS = json.loads((FOLDER / "results.json").read_text())["cases"]
REPRS = json.loads((FOLDER / "reprs.json").read_text())["cases"]
EVERYTHING = accept_set(["json", "pickle", "yaml", "msgpack"])

#: a class that existed only in the process that stored it: nobody can unpickle it
LOST_CLASS = "failure own, pickle"


def record_of(case: dict[str, Any]) -> ResultRecord:
    return ResultRecord(
        case["task_id"], "?", base64.b64decode(case["payload"]), case["content_type"], case["content_encoding"]
    )


@pytest.mark.parametrize("case", RESULTS, ids=lambda case: case["name"])
def test_record_is_read_as_celery_reads_it(case: dict[str, Any]) -> None:
    if case["name"] == LOST_CLASS:
        with pytest.raises(DecodeError, match="OwnError"):
            decode_record(record_of(case), EVERYTHING)
        return
    meta = decode_record(record_of(case), EVERYTHING)
    assert {key: repr(value) for key, value in meta.items()} == case["expect"]
    if "pickle" in case["name"]:
        with pytest.raises(ContentDisallowed):
            decode_record(record_of(case))


@pytest.mark.parametrize("serializer", ["json", "pickle", "yaml", "msgpack"])
def test_exceptions_are_caught_under_our_names(serializer: str) -> None:
    found = {case["name"]: case for case in RESULTS}

    def result(name: str) -> Any:
        return decode_record(record_of(found[f"{name}, {serializer}"]), EVERYTHING)["result"]

    assert type(result("failure value")) is ValueError
    assert type(result("failure chord")) is errors.ChordError
    assert type(result("failure lost")) is errors.WorkerLostError
    assert type(result("revoked")) is errors.TaskRevokedError
    assert result("revoked").args == ("revoked",)
    assert type(result("retry")) is KeyError
    if serializer != "pickle":
        own = result("failure own")
        assert isinstance(own, RemoteError)
        assert (type(own).__name__, own.args) == ("OwnError", ("mine", 1))


@pytest.mark.parametrize(
    "case", [case for case in RESULTS if case["name"].endswith(", json")], ids=lambda case: case["name"]
)
def test_our_record_of_the_same_state_says_the_same(case: dict[str, Any]) -> None:
    stored = json.loads(base64.b64decode(case["payload"]))
    meta = decode_record(record_of(case))
    standard = {"status", "result", "traceback", "children", "date_done", "group_id", "parent_id", "task_id"}
    record = encode_record(
        task_id=meta["task_id"],
        status=meta["status"],
        result=meta["result"],
        traceback=meta["traceback"],
        children=meta["children"],
        date_done=meta["date_done"],
        group_id=meta.get("group_id"),
        parent_id=meta.get("parent_id"),
        extended={key: value for key, value in meta.items() if key not in standard},
    )
    assert json.loads(record.payload) == stored
    assert list(json.loads(record.payload))[:5] == list(stored)[:5]


@pytest.mark.parametrize("case", REPRS, ids=lambda case: case["source"])
def test_reprs_look_like_celerys(case: dict[str, str]) -> None:
    assert safe_repr(eval(case["source"], {"Decimal": Decimal})) == case["repr"]
