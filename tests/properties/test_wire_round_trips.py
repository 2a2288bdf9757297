"""Whatever can be written is read back the same, by us and by the standard library."""

from __future__ import annotations

import json
import math
from datetime import UTC
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celeriac.errors import DecodeError, EncodeError
from celeriac.wire.compression import compress, compression_names, decompress
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.failure import exception_from_wire, exception_to_wire
from celeriac.wire.kombu_json import decode_envelope, encode_envelope
from celeriac.wire.limits import Limits, check_json
from celeriac.wire.safe_repr import safe_repr
from celeriac.wire.serializers import accept_set, dumps, loads
from celeriac.wire.task_message import TaskCall, encode_task, normalize, read_body, timestamp_of

EVERYTHING = accept_set(["json", "pickle", "yaml", "msgpack"])
QUICK = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers() | st.floats(allow_nan=False)
plain_leaves = st.none() | st.booleans() | numbers | text
moments = st.datetimes() | st.datetimes(timezones=st.just(UTC)) | st.dates() | st.times()
marked_leaves = moments | st.uuids() | st.binary(max_size=20) | st.decimals(allow_nan=False)


def containers(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=12
    )


plain_values = containers(plain_leaves)
kombu_values = containers(plain_leaves | marked_leaves)
anything = containers(plain_leaves | marked_leaves | st.complex_numbers() | st.just(object) | st.timedeltas())
msgpack_values = containers(
    st.none() | st.booleans() | st.floats(allow_nan=False) | text | st.integers(-(2**63), 2**64 - 1)
)


@QUICK
@given(kombu_values)
def test_json_reads_back_what_it_wrote(value: Any) -> None:
    assert loads(*dumps(value, "json"), None) == value


@QUICK
@given(containers(plain_leaves | st.floats() | st.text(max_size=20)))
def test_plain_json_is_what_the_standard_library_writes(value: Any) -> None:
    ours = json.loads(dumps(value, "json")[0])
    assert repr(ours) == repr(json.loads(json.dumps(value)))


@QUICK
@given(plain_values, st.sampled_from([2, None]))
def test_what_the_standard_library_writes_is_read(value: Any, indent: int | None) -> None:
    assert loads(json.dumps(value, indent=indent).encode(), "application/json", "utf-8", None) == value


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


@QUICK
@given(
    st.recursive(
        st.text('[]{}",\\ab', max_size=8) | st.integers(0, 9),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('[]{}",\\', max_size=5), inner, max_size=3),
        max_leaves=20,
    ).map(lambda value: [value])
)
def test_depth_is_counted_exactly_whatever_the_strings_hold(value: Any) -> None:
    data = json.dumps(value).encode()
    depth = depth_of(value)
    check_json(data, Limits(depth=depth))
    if depth > 1:
        with pytest.raises(DecodeError, match="nested deeper"):
            check_json(data, Limits(depth=depth - 1))
    items = sum(data.count(mark) for mark in (b",", b"[", b"{"))
    check_json(data, Limits(items=items))


@QUICK
@given(msgpack_values)
def test_msgpack_reads_back_what_it_wrote(value: Any) -> None:
    assert loads(*dumps(value, "msgpack"), EVERYTHING) == value


@QUICK
@given(st.lists(plain_leaves, max_size=5), st.dictionaries(text, plain_leaves, max_size=5), st.data())
def test_messages_survive_every_path(args: list[Any], kwargs: dict[str, Any], data: st.DataObject) -> None:
    serializer = data.draw(st.sampled_from(["json", "pickle"]))
    protocol = data.draw(st.sampled_from([1, 2]))
    compression = data.draw(st.sampled_from([None, *compression_names()]))
    call = TaskCall(
        task="t", id="i", args=args, kwargs=kwargs, serializer=serializer, compression=compression, protocol=protocol
    )
    envelope, route = decode_envelope(encode_envelope(encode_task(call, 0.0), Route("", "celery")))
    body = read_body(normalize(envelope, accept=EVERYTHING), EVERYTHING)
    assert (body.args, body.kwargs) == (args, kwargs)
    assert route == Route("", "celery")


@QUICK
@given(st.binary(max_size=300), st.sampled_from(compression_names()))
def test_compression_reads_back(data: bytes, name: str) -> None:
    assert decompress(*compress(data, name)) == data


@QUICK
@given(st.binary(max_size=100), st.dictionaries(text, kombu_values, max_size=4))
def test_envelopes_read_back(body: bytes, headers: dict[str, Any]) -> None:
    back, _ = decode_envelope(encode_envelope(Envelope(body, headers, {}), Route("a", "b")))
    assert (back.body, back.headers) == (body, headers)


@QUICK
@given(anything, st.integers(4, 2000), st.integers(0, 5))
def test_reprs_are_short_printable_and_never_raise(value: Any, max_length: int, max_levels: int) -> None:
    shown = safe_repr(value, max_length, max_levels)
    assert shown.isprintable()
    # the last value may pass the limit by its own length, escapes make characters longer, brackets are closed
    assert len(shown) <= 12 * max_length + 100


@QUICK
@given(containers(plain_leaves))
def test_unescaped_reprs_are_pythons(value: Any) -> None:
    expected = repr([value])
    if "\\" not in expected and '"' not in expected:
        assert safe_repr([value], 0, 100) == expected


@QUICK
@given(st.lists(anything, max_size=3), st.sampled_from(["json", "yaml", "msgpack"]))
def test_exceptions_can_always_be_written(args: list[Any], serializer: str) -> None:
    data, content_type, encoding = dumps(exception_to_wire(ValueError(*args), serializer), serializer)
    rebuilt = exception_from_wire(loads(data, content_type, encoding, EVERYTHING))
    assert type(rebuilt) is ValueError
    assert len(rebuilt.args) == len(args)


@QUICK
@given(st.datetimes() | st.datetimes(timezones=st.timezones()))
def test_times_survive_as_text(moment: Any) -> None:
    seconds = timestamp_of(moment)
    assert seconds is not None
    # isoformat drops the fractions of a second that historical zones have
    assert math.isclose(timestamp_of(moment.isoformat()) or 0.0, seconds, abs_tol=1.0)


@QUICK
@given(anything)
def test_only_encode_errors_leave_an_encoder(value: Any) -> None:
    for name in ("json", "msgpack", "yaml", "pickle"):
        try:
            dumps(value, name)
        except EncodeError:
            continue
