"""A real Celery reads our messages and results: through kombu's decoding, its worker's ``Request`` and its backend.

Needs ``CELERIAC_INTEROP_PYTHON``: an interpreter that has Celery (``tools/capture_golden.py`` tells how to make one).
"""

from __future__ import annotations

import base64
import json
import math
import os
import subprocess
import uuid
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from celeriac import errors
from celeriac.wire.compression import compression_names
from celeriac.wire.envelope import Route
from celeriac.wire.kombu_json import encode_envelope
from celeriac.wire.result_record import ResultRecord, encode_record
from celeriac.wire.task_message import TaskCall, encode_task

PYTHON = os.environ.get("CELERIAC_INTEROP_PYTHON")
pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        not PYTHON, reason="CELERIAC_INTEROP_PYTHON is not set: Celery's reading of our messages is NOT checked"
    ),
]
SCRIPT = Path(__file__).parent / "celery_reads_messages.py"
NOW = 1_700_000_000.0
ETA = datetime(2036, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
DONE = "2026-11-22T15:21:50.462153+00:00"
SIGNATURE = {
    "task": "pkg.add", "args": [1], "kwargs": {}, "options": {"task_id": "c"}, "subtask_type": None, "immutable": False,
}  # fmt: skip
EXTENDED = {
    "datetime": datetime(2024, 1, 2, 3, 4, 5, 678), "aware": ETA, "date": date(2024, 1, 2), "time": time(3, 4, 5),
    "decimal": Decimal("1.50"), "uuid": uuid.UUID(int=5), "bytes": b"abc", "binary": b"\xff\x00", "nested": [[b"\x00"]],
}  # fmt: skip
ODD = [math.nan, math.inf, -math.inf, 1e300, 2**80, "ünï\u2028 \x7f \ud800", {"1": [[], {}, ""]}, -0.0, 1e-7, 1e16]


def add(**options: Any) -> TaskCall:
    return TaskCall(**{"task": "pkg.add", "id": "id-1", "args": [2, "x"], "kwargs": {"y": [3, None]}, **options})


CALLS = [
    *[add(serializer=name, protocol=p) for name in ("json", "pickle", "yaml", "msgpack") for p in (1, 2)],
    *[add(compression=name, protocol=p) for name in compression_names() for p in (1, 2)],
    *[add(args=[EXTENDED], kwargs=EXTENDED, protocol=p) for p in (1, 2)],
    *[add(args=ODD, protocol=p) for p in (1, 2)],
    *[
        add(
            eta=ETA, expires=datetime(2036, 1, 3), group_id="g", group_index=3, retries=2, time_limit=30.0,
            soft_time_limit=20.5, reply_to="oid", priority=7, headers={"my": "header"}, callbacks=[SIGNATURE],
            errbacks=[SIGNATURE], chord=SIGNATURE, protocol=p,
        )
        for p in (1, 2)
    ],
    add(root_id="r", parent_id="p", shadow="other", ignore_result=True, chain=[SIGNATURE, SIGNATURE],
        stamped_headers=["tenant"], stamps={"tenant": "acme"}, origin="gen1@h"),
    add(args=[], kwargs={}),
    add(args=["a" * 3000, [[[[1]]]], list(range(500))]),
]  # fmt: skip

EXCEPTIONS: list[tuple[BaseException, str]] = [
    (ValueError("boom", 9), "builtins.ValueError"),
    (KeyError("k"), "builtins.KeyError"),
    (errors.TaskRevokedError("revoked"), "celery.exceptions.TaskRevokedError"),
    (errors.NotRegistered("x"), "celery.exceptions.NotRegistered"),
    (errors.ChordError("x"), "celery.exceptions.ChordError"),
    (errors.Reject("no", False), "celery.exceptions.Reject"),
    (errors.WorkerLostError("x"), "billiard.exceptions.WorkerLostError"),
    (errors.SoftTimeLimitExceeded(), "billiard.exceptions.SoftTimeLimitExceeded"),
    (errors.TimeLimitExceeded(5), "billiard.exceptions.TimeLimitExceeded"),
    (errors.ContentDisallowed("x"), "kombu.exceptions.ContentDisallowed"),
    (errors.PoisonTask("x"), "celery.exceptions.PoisonTask"),
]
SERIALIZERS = ["json", "pickle", "yaml", "msgpack"]


def records() -> list[tuple[ResultRecord, Any, str]]:
    """(record, the value it holds, the exception class Celery is to make)"""
    made: list[tuple[ResultRecord, Any, str]] = []
    for serializer in SERIALIZERS:
        values: list[Any] = [3, None, "ü", [1, {"a": [True, 1.5]}]]
        if serializer == "json":
            values += [EXTENDED, ODD]
        for value in values:
            record = encode_record(task_id="i", status="SUCCESS", result=value, date_done=DONE, serializer=serializer)
            made.append((record, value, ""))
        for exc, name in EXCEPTIONS:
            status = "REVOKED" if isinstance(exc, errors.TaskRevokedError) else "FAILURE"
            record = encode_record(
                task_id="i", status=status, result=exc, traceback="tb", date_done=DONE, group_id="g", parent_id="p",
                children=None, extended={"name": "pkg.add", "retries": 1}, serializer=serializer,
            )  # fmt: skip
            made.append((record, exc, name))
    return made


@pytest.fixture(scope="module")
def reading() -> dict[str, Any]:
    """What Celery made of everything, in one process."""
    assert PYTHON is not None
    envelopes = [encode_envelope(encode_task(call, NOW), Route("", "celery")) for call in CALLS]
    work = {
        "messages": [base64.b64encode(data).decode() for data in envelopes],
        "records": [
            [record.content_type, record.content_encoding, base64.b64encode(record.payload).decode()]
            for record, _, _ in records()
        ],
    }
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [PYTHON, str(SCRIPT)], input=json.dumps(work), capture_output=True, text=True, timeout=50, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("index", range(len(CALLS)))
def test_messages(index: int, reading: dict[str, Any]) -> None:
    call = CALLS[index]
    read = reading["messages"][index]
    chain = call.chain if call.protocol == 2 else None
    assert read["args"] == repr(list(call.args))
    assert read["kwargs"] == repr(call.kwargs)
    assert read["embed"] == {
        "callbacks": repr(call.callbacks), "errbacks": repr(call.errbacks), "chain": repr(chain),
        "chord": repr(call.chord),
    }  # fmt: skip
    assert (read["id"], read["correlation_id"]) == (call.id, call.id)
    assert read["name"] == (call.shadow or call.task)
    assert read["eta"] == (None if call.eta is None else ETA.timestamp())
    if call.expires is None:
        assert (read["expires"], read["expiration"]) == (None, None)
    else:
        expires = datetime(2036, 1, 3, tzinfo=UTC).timestamp()
        assert (read["expires"], read["expiration"]) == (expires, str(int((expires - NOW) * 1000)))
    assert read["time_limits"] == [call.time_limit, call.soft_time_limit]
    assert (read["group"], read["group_index"]) == (call.group_id, call.group_index)
    assert (read["retries"], read["reply_to"]) == (call.retries, call.reply_to)
    assert read["priority"] == (call.priority or 0)
    assert read["my"] == (call.headers or {}).get("my")
    if call.protocol == 2:
        assert (read["root_id"], read["parent_id"]) == (call.root_id or call.id, call.parent_id)
        assert read["ignore_result"] == call.ignore_result or not call.ignore_result
        assert read["stamps"] == (call.stamps or {})


@pytest.mark.parametrize("index", range(len(records())))
def test_records(index: int, reading: dict[str, Any]) -> None:
    _, value, exception = records()[index]
    read = reading["records"][index]
    assert read["exception"] == exception
    assert (read["task_id"], read["date_done"]) == ("'i'", repr(DONE))
    if not exception:
        assert read["result"] == repr(value)
        assert (read["status"], read["children"]) == ("'SUCCESS'", "[]")
        return
    assert (read["traceback"], read["children"]) == ("'tb'", "None")
    assert (read["group_id"], read["parent_id"], read["name"], read["retries"]) == ("'g'", "'p'", "'pkg.add'", "1")
    if isinstance(value, errors.NotRegistered | errors.Reject) or exception.startswith("billiard"):
        return  # their reprs are their own
    assert read["result"] == repr(value)
