"""Basic properties: the fixed fields around the headers."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.amqp.errors import Malformed, Unencodable
from celeriac.amqp.messages import Message
from celeriac.amqp.properties import decode_properties, encode_properties, split
from celeriac.amqp.tables import encode_table

short = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
octet = st.integers(0, 255)
everything = st.fixed_dictionaries(
    {},
    optional={
        "content_type": short, "content_encoding": short, "delivery_mode": octet, "priority": octet,
        "correlation_id": short, "reply_to": short, "expiration": short, "message_id": short,
        "timestamp": st.integers(0, 2**64 - 1), "type": short, "user_id": short, "app_id": short, "cluster_id": short,
    },
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(everything, st.dictionaries(short, st.none() | st.integers(-5, 5) | short, max_size=5))
def test_what_is_written_is_read(properties: dict[str, Any], headers: dict[str, Any]) -> None:
    raw = encode_properties(properties, headers)
    assert decode_properties(raw) == (properties, headers)
    # passed on undecoded, they are the same bytes
    found, table = split(raw)
    assert encode_properties(found, table) == raw


def test_the_order_of_names_does_not_matter() -> None:
    one = encode_properties({"reply_to": "r", "content_type": "c", "priority": 3}, {"k": 1})
    other = encode_properties({"priority": 3, "content_type": "c", "reply_to": "r"}, {"k": 1})
    assert one == other


def test_none_and_strange_names_are_left_out() -> None:
    raw = encode_properties({"content_type": None, "body_encoding": "base64", "headers": {"no": 1}, "type": "t"}, None)
    assert decode_properties(raw) == ({"type": "t"}, {})


def test_times_and_numbers_find_their_form() -> None:
    raw = encode_properties({"timestamp": datetime(2020, 1, 1, tzinfo=UTC), "expiration": 60000}, {})
    assert decode_properties(raw) == ({"timestamp": 1577836800, "expiration": "60000"}, {})


@pytest.mark.parametrize(
    "properties",
    [
        {"content_type": "x" * 256}, {"content_type": b"bytes"}, {"content_type": ["x"]}, {"type": "\ud800"},
        {"priority": 256}, {"priority": -1}, {"priority": "3"}, {"delivery_mode": 1.0}, {"timestamp": 2**64},
        {"timestamp": -1}, {"timestamp": datetime(1960, 1, 1)},
    ],
)  # fmt: skip
def test_what_has_no_form_is_refused(properties: dict[str, Any]) -> None:
    with pytest.raises(Unencodable):
        encode_properties(properties, {})


def test_undecoded_headers_have_a_limit_too() -> None:
    with pytest.raises(Unencodable):
        encode_properties({}, b"x" * 70000)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\x80", b"\x80\x00", b"\x80\x00\x05ab", b"\x00\x01", b"\x00\x02", b"\x00\x00extra", b"\x10\x00",
        b"\x80\x00\x02\xff\xfe", b"\x20\x00\xff\xff\xff\xff", b"\x20\x00\x00\x00", b"\x00\x40\x00\x00",
        b"\x20\x00\x00\x00\x00\x05abc",
    ],
)  # fmt: skip
def test_hostile_bytes_are_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        split(raw)


def test_a_hostile_table_is_found_when_it_is_asked_for() -> None:
    table = b"\x01kT" + b"\xff" * 8
    message = Message("", "q", 1, False, "", encode_properties({"type": "t"}, table), b"")
    assert message.properties == {"type": "t"}
    assert message.headers_bytes == table
    with pytest.raises(Malformed):
        _ = message.headers
    with pytest.raises(Malformed):
        message.decoded()


def test_a_timestamp_of_any_size_is_a_number() -> None:
    assert decode_properties(b"\x00\x40" + b"\xff" * 8) == ({"timestamp": 2**64 - 1}, {})


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes(raw: bytes) -> None:
    with contextlib.suppress(Malformed):
        decode_properties(raw)


def test_headers_are_decoded_only_on_demand() -> None:
    raw = encode_properties({}, {"a": 1})
    assert split(raw) == ({}, encode_table({"a": 1})[4:])
