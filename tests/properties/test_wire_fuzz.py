"""Hostile bytes: nothing but our own message errors leaves the readers, whatever comes in."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from celeriac.errors import MessageError, SecurityError
from celeriac.wire.compression import compression_names, decompress
from celeriac.wire.envelope import Envelope
from celeriac.wire.failure import exception_from_wire
from celeriac.wire.kombu_json import decode_envelope
from celeriac.wire.result_record import ResultRecord, decode_record
from celeriac.wire.serializers import accept_set, loads
from celeriac.wire.task_message import normalize, read_body, timestamp_of

GOLDEN = Path(__file__).parent.parent / "wire" / "golden"
PICKLE = "application/x-python-serialize"
ENVELOPES = [base64.b64decode(case["envelope"]) for case in json.loads((GOLDEN / "messages.json").read_text())["cases"]]
RECORDS = [
    (base64.b64decode(case["payload"]), case["content_type"])
    for case in json.loads((GOLDEN / "results.json").read_text())["cases"]
    if case["content_type"] != PICKLE
]
#: pickle is left out: whoever accepts it has agreed to run what it says
HARMLESS = accept_set(["json", "yaml", "msgpack"])
FUZZ = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
CONTENT_TYPES = ["application/json", "application/x-yaml", "application/x-msgpack", "application/data", PICKLE]

WORDS = ["__type__", "datetime", "uuid", "task", "id", "builtins", "ValueError", "os", "system"]
KEYS = [
    "__type__", "__value__", "task", "id", "args", "kwargs", "body", "headers", "properties", "taskset", "callbacks",
    "chain", "chord", "timelimit", "exc_type", "exc_message", "exc_module", "status", "result",
]  # fmt: skip
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=15,
)
json_bytes = json_values.map(lambda value: json.dumps(value).encode())


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """A real message with some bytes cut out, overwritten or inserted."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 8)))
        data[start:end] = draw(st.binary(max_size=8) | st.sampled_from([b"[" * 100, b"null", b'"', b"{}", b"NaN"]))
    return bytes(data)


def survives(reader: Callable[[], Any]) -> Any:
    """What the reader returns, or None after one of our own, readable errors."""
    try:
        return reader()
    except (MessageError, SecurityError) as error:
        text = str(error)
    assert 0 < len(text) < 5000
    return None


def read_fully(envelope: Envelope) -> None:
    normal = survives(lambda: normalize(envelope, accept=HARMLESS))
    if normal is None:
        return
    survives(lambda: read_body(normal, HARMLESS))
    survives(lambda: timestamp_of(normal.headers.get("eta")))
    survives(lambda: timestamp_of(normal.headers.get("expires")))


@FUZZ
@given(st.binary(max_size=200) | mutated(ENVELOPES) | json_bytes)
def test_envelopes(data: bytes) -> None:
    decoded = survives(lambda: decode_envelope(data))
    if decoded is not None:
        read_fully(decoded[0])


@FUZZ
@given(
    st.binary(max_size=100) | json_bytes,
    st.dictionaries(st.sampled_from(["task", "id", "compression", "eta", "lang"]), json_values, max_size=4),
    st.fixed_dictionaries(
        {},
        optional={
            "content_type": st.sampled_from(CONTENT_TYPES) | json_values,
            "content_encoding": st.sampled_from(["utf-8", "binary", "utf-16", "nonsense"]) | json_values,
        },
    ),
)
@example(b"{}", {"task": "t", "id": "i"}, {})
@example(b"{", {}, {})
@example(b'{"args": [], "task": "t", "id": "i"}', {}, {"content_type": "application/x-yaml"})
def test_bodies_and_headers(body: bytes, headers: dict[str, Any], properties: dict[str, Any]) -> None:
    read_fully(Envelope(body, headers, properties))


@FUZZ
@given(
    st.fixed_dictionaries({"task": json_values, "id": st.just("i")}, optional=dict.fromkeys(KEYS[4:], json_values)),
    st.sampled_from(["task", "id", "other"]),
)
def test_legacy_bodies(body: dict[str, Any], header: str) -> None:
    data = json.dumps(body).encode()
    read_fully(Envelope(data, {}, {"content_type": "application/json"}))
    read_fully(Envelope(data, {header: "x"}, {"content_type": "application/json"}))


@FUZZ
@given(st.binary(max_size=200), st.sampled_from(CONTENT_TYPES))
@example(b"[" * 2000, "application/json")
@example(b'{"a":' * 2000, "application/json")
@example(b"[" * 2000, "application/x-yaml")
@example(b"\x91" * 2000, "application/x-msgpack")
@example(b"- " * 2000, "application/x-yaml")
@example(b"? " * 2000, "application/x-yaml")
@example(b"\xdf\xff\xff\xff\xff", "application/x-msgpack")
def test_serialized_data(data: bytes, content_type: str) -> None:
    survives(lambda: loads(data, content_type, None, HARMLESS))


@FUZZ
@given(st.sampled_from(RECORDS), st.data())
def test_mutated_records(record: tuple[bytes, str], data: st.DataObject) -> None:
    payload, content_type = record
    changed = data.draw(mutated([payload]))
    survives(lambda: decode_record(ResultRecord("i", "FAILURE", changed, content_type), HARMLESS))


@FUZZ
@given(json_values)
def test_recorded_exceptions(value: Any) -> None:
    survives(lambda: exception_from_wire(value))


@FUZZ
@given(
    st.sampled_from(["builtins", "os", "sys", "celery.exceptions", "celeriac.errors", "json", "", "no.such"]),
    st.sampled_from([
        "ValueError", "OSError", "SystemExit", "Exception.__init__", "exit", "UnicodeDecodeError", "errors", "Retry",
        "Reject", "BaseExceptionGroup", "ExceptionGroup", "decoder.JSONDecodeError", "type", "a.b", "JSONDecodeError",
    ]),
    json_values,
)  # fmt: skip
def test_recorded_exceptions_of_real_classes(module: str, name: str, message: Any) -> None:
    data = {"exc_type": name, "exc_module": module, "exc_message": message}
    rebuilt = survives(lambda: exception_from_wire(data))
    assert rebuilt is None or isinstance(rebuilt, BaseException)


@FUZZ
@given(st.binary(max_size=200), st.sampled_from(compression_names()))
def test_compressed_data(data: bytes, name: str) -> None:
    survives(lambda: decompress(data, name))
