"""The table of methods: every one is written and read again, and no bytes break the reader."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.amqp.errors import Malformed, Unencodable
from celeriac.amqp.methods import BY_INDEX, BY_NAME, Layout, decode_method, encode_method

SAMPLES: dict[str, Any] = {
    "octet": 7, "uint16": 60000, "uint32": 4000000000, "uint64": 2**63 + 5, "short": "schön", "long": "a b",
    "bytes": b"\0u\0p", "table": {"k": [1, None]}, "bit": True,
}  # fmt: skip


@pytest.mark.parametrize("layout", BY_NAME.values(), ids=lambda layout: layout.name)
def test_every_method_is_read_as_it_was_written(layout: Layout) -> None:
    arguments = {field: SAMPLES[kind] for field, kind in layout.fields}
    method = decode_method(encode_method(layout.name, arguments))
    assert (method.name, method.arguments) == (layout.name, arguments)


@pytest.mark.parametrize("layout", BY_NAME.values(), ids=lambda layout: layout.name)
def test_a_cut_or_longer_method_is_malformed(layout: Layout) -> None:
    data = encode_method(layout.name, {field: SAMPLES[kind] for field, kind in layout.fields})
    for broken in [*(data[:end] for end in range(len(data))), data + b"\0"]:
        with pytest.raises(Malformed):
            decode_method(broken)


def test_bits_share_an_octet() -> None:
    data = encode_method("queue.declare", {"queue": "q", "durable": True, "auto_delete": True})
    assert data == b"\x00\x32\x00\x0a\x00\x00\x01q\x0a\x00\x00\x00\x00"


def test_the_numbers_are_unique() -> None:
    assert len(BY_INDEX) == len(BY_NAME)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("queue.declare", {"queue": "q" * 256}),
        ("queue.declare", {"queue": "\ud800"}),
        ("queue.declare", {"arguments": {"x": object()}}),
        ("basic.qos", {"prefetch_count": 70000}),
        ("basic.qos", {"prefetch_count": -1}),
        ("basic.qos", {"prefetch_count": "5"}),
    ],
)
def test_what_has_no_form_is_refused(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(Unencodable):
        encode_method(name, arguments)


def test_names_of_any_bytes_come_back_as_they_were() -> None:
    data = b"\x00\x32\x00\x28\x00\x00\x03q\xff\xfe\x00"
    method = decode_method(data)
    assert encode_method("queue.delete", method.arguments) == data


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(sorted(BY_INDEX)), st.binary(max_size=60))
def test_any_bytes(index: bytes, data: bytes) -> None:
    with contextlib.suppress(Malformed):
        decode_method(index + data)
