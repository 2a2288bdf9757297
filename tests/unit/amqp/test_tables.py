"""Field tables: round trips, and nothing but our own errors for hostile bytes."""

from __future__ import annotations

import contextlib
import struct
import time
from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from celeriac.amqp.errors import Malformed, Unencodable
from celeriac.amqp.tables import DEPTH_LIMIT, KEYS_LIMIT, TABLE_LIMIT_BYTES, decode_table, encode_table
from celeriac.wire.stencil import Stencil
from celeriac.wire.task_message import TaskCall

keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=300)
    | st.binary(max_size=50)
    | st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)).map(
        lambda moment: moment.replace(microsecond=0)
    )
    | st.builds(lambda number, places: Decimal(number).scaleb(-places), st.integers(-(2**31) + 1, 2**31 - 1),
                st.integers(0, 15))
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
tables = st.dictionaries(keys, values, max_size=12)


def nested(levels: int, kind: bytes = b"F") -> bytes:
    """A table that holds ``levels - 1`` containers in each other."""
    data = b""
    for _ in range(levels - 1):
        entry = kind + struct.pack(">I", len(data)) + data
        data = b"\x01k" + entry if kind == b"F" else entry
    return data if kind == b"F" else b"\x01k" + data


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@settings(max_examples=300, deadline=None)
@given(tables)
@example({"a": [[], {}, [None, [{"b": {}}]]]})
@example({"": "", "ä": "ö" * 200, "x": "\x80"})
def test_what_is_written_is_read(table: dict[str, Any]) -> None:
    if depth(table) > DEPTH_LIMIT:
        return
    data = encode_table(table)
    assert struct.unpack_from(">I", data)[0] == len(data) - 4
    found = decode_table(data[4:])
    assert found == table
    assert [type(value) for value in found.values()] == [type(value) for value in table.values()]


class Color(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 9


def test_what_has_a_form_in_amqp_takes_it() -> None:
    written = {"e": Color.RED, "i": Level.HIGH, "t": (1, 2), "m": memoryview(b"ab"), "a": bytearray(b"c")}
    assert decode_table(encode_table(written)[4:]) == {"e": "red", "i": 9, "t": [1, 2], "m": b"ab", "a": b"c"}


def test_naive_times_are_utc() -> None:
    data = encode_table({"t": datetime(2020, 1, 1)})
    assert decode_table(data[4:]) == {"t": datetime(2020, 1, 1, tzinfo=UTC)}


def recursive() -> dict[str, Any]:
    table: dict[str, Any] = {}
    table["self"] = [table]
    return table


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ({"k": object()}, "object"),
        ({"k": {1, 2}}, "set"),
        ({1: "x"}, "not a string"),
        ({None: "x"}, "not a string"),
        ({("a",): 1}, "not a string"),
        ({"k" * 256: 1}, "255"),
        ({"k": 2**63}, "64 bits"),
        ({"k": [2**64]}, "64 bits"),
        ({"k": datetime(1969, 12, 31)}, "1970"),
        ({"k": Decimal("NaN")}, "decimals"),
        ({"k": Decimal("1e300")}, "decimals"),
        ({"k": Decimal("12345678901")}, "decimals"),
        ({str(number): 1 for number in range(KEYS_LIMIT + 1)}, "keys"),
        ({"k": "x" * TABLE_LIMIT_BYTES}, "limit"),
        ({"k": [None] * (TABLE_LIMIT_BYTES + 1)}, "limit"),
        (recursive(), "nested"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_has_none_is_refused(table: dict[str, Any], word: str) -> None:
    with pytest.raises(Unencodable, match=word):
        encode_table(table)


HOSTILE = {
    "key longer than the table": b"\xffabc",
    "key without value": b"\x01k",
    "unknown type": b"\x01kZ",
    "string longer than the table": b"\x01kS\x00\x00\x00\xffabc",
    "string of 4 GiB": b"\x01kS\xff\xff\xff\xffabc",
    "bytes of 4 GiB": b"\x01kx\xff\xff\xff\xffabc",
    "array of 4 GiB": b"\x01kA\xff\xff\xff\xff",
    "table of 4 GiB": b"\x01kF\xff\xff\xff\xff",
    "cut length": b"\x01kS\x00\x00",
    "cut integer": b"\x01kI\x00",
    "cut bool": b"\x01kt",
    "cut double": b"\x01kd\x00\x00",
    "cut decimal": b"\x01kD\x00\x00",
    "timestamp of 2**63": b"\x01kT\x80\x00\x00\x00\x00\x00\x00\x00",
    "timestamp of 2**64-1": b"\x01kT" + b"\xff" * 8,
    "timestamp of the year 10000": b"\x01kT" + struct.pack(">Q", 253402300800),
    "key that is not UTF-8": b"\x02\xff\xfeV",
    "key in a table that is not UTF-8": b"\x01kF\x00\x00\x00\x03\x01\xffV",
    "value of a nested table runs over": b"\x01kF\x00\x00\x00\x04\x01aI\x00\x00\x00\x00\x00",
    "item of an array runs over": b"\x01kA\x00\x00\x00\x02I\x00\x00\x00\x00\x00",
    "container in a container runs over": b"\x01kA\x00\x00\x00\x05A\x00\x00\x00\x09VVVVVVVVV",
    "key in a nested table runs over": b"\x01kF\x00\x00\x00\x02\x09aVVVVVVVVVVV",
    "too many keys": b"".join(b"\x03%03dV" % number for number in range(KEYS_LIMIT + 1)),
    "too many keys below": b"\x01kF" + struct.pack(">I", 5 * (KEYS_LIMIT + 1))
    + b"".join(b"\x03%03dV" % number for number in range(KEYS_LIMIT + 1)),
    "over the limit": b"\x01kS" + struct.pack(">I", TABLE_LIMIT_BYTES) + b"x" * TABLE_LIMIT_BYTES,
    "one level too deep": nested(DEPTH_LIMIT + 1),
    "arrays one level too deep": nested(DEPTH_LIMIT + 1, b"A"),
    "thousands of levels": nested(9000),
    "thousands of arrays": nested(9000, b"A"),
}  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        decode_table(data)
    assert 0 < len(str(caught.value)) < 200


@pytest.mark.parametrize("kind", [b"F", b"A"])
def test_the_deepest_that_is_allowed(kind: bytes) -> None:
    found = decode_table(nested(DEPTH_LIMIT, kind))
    assert depth(found) == DEPTH_LIMIT
    assert decode_table(encode_table(found)[4:]) == found


def test_as_many_keys_as_are_allowed() -> None:
    table = {str(number): None for number in range(KEYS_LIMIT)}
    assert decode_table(encode_table({"t": table, "l": [table]})[4:]) == {"t": table, "l": [table]}


def test_many_small_containers_take_no_time() -> None:
    """64 KiB of empty tables in arrays: work is proportional to bytes."""
    data = b"A\x00\x00\x00\x00" * 13000
    started = time.process_time()
    found = decode_table(b"\x01kA" + struct.pack(">I", len(data)) + data)
    assert len(found["k"]) == 13000
    assert time.process_time() - started < 5.0  # 20 ms; were it quadratic, minutes


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        decode_table(data)


@settings(max_examples=300, deadline=None)
@given(tables, st.data())
def test_mutated_tables(table: dict[str, Any], data: st.DataObject) -> None:
    if depth(table) > DEPTH_LIMIT:
        return
    raw = bytearray(encode_table(table)[4:])
    start = data.draw(st.integers(0, len(raw)))
    raw[start : start + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=5))
    with contextlib.suppress(Malformed):
        decode_table(bytes(raw))


@pytest.mark.parametrize("args", [(), (1, "zwei"), ("ü" * 300,), ("x" * 3000,), ("\ud800",)])
def test_headers_that_share_a_model_are_written_as_if_they_did_not(args: Any) -> None:
    stencil = Stencil(TaskCall(task="shop.pay", id="", time_limit=30.0, origin="gen1@host"))
    for number in range(3):
        headers = stencil.write(f"id-{number}", args, {"n": number}, None).headers
        assert encode_table(headers) == encode_table(dict(headers))
        assert decode_table(encode_table(headers)[4:])["id"] == f"id-{number}"


def test_what_is_added_to_them_later_is_written_too() -> None:
    headers = Stencil(TaskCall(task="shop.pay", id="")).write("1", (), {}, None).headers
    encode_table(headers)
    headers["more"] = 1
    assert encode_table(headers) == encode_table(dict(headers))
