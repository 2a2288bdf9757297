"""kombu's JSON envelope."""

from __future__ import annotations

import base64
import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest

from celeriac.errors import DecodeError
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.kombu_json import decode_envelope, encode_envelope
from celeriac.wire.limits import Limits

ROUTE = Route("ex", "key")


def envelope(**headers: Any) -> Envelope:
    properties = {"content_type": "application/json", "content_encoding": "utf-8", "correlation_id": "i"}
    return Envelope(b"\x00[]\xff", {"task": "t", "id": "i", **headers}, properties)


def text(**changes: Any) -> bytes:
    fields = {"body": "W10=", "headers": {}, "properties": {"body_encoding": "base64"}, **changes}
    return json.dumps({key: value for key, value in fields.items() if value is not ...}).encode()


def test_layout_is_kombus() -> None:
    data = json.loads(encode_envelope(envelope(), ROUTE, "tag"))
    assert data == {
        "body": base64.b64encode(b"\x00[]\xff").decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "t", "id": "i"},
        "properties": {
            "correlation_id": "i", "delivery_info": {"exchange": "ex", "routing_key": "key"}, "priority": 0,
            "body_encoding": "base64", "delivery_tag": "tag",
        },
    }  # fmt: skip


def test_encoding_changes_nothing_and_tags_are_new() -> None:
    given = envelope()
    first, second = encode_envelope(given, ROUTE), encode_envelope(given, ROUTE)
    assert first != second
    assert given == envelope()


@pytest.mark.parametrize(
    "headers", [{}, {"when": datetime(2024, 1, 1, tzinfo=UTC)}, {"odd": math.inf}, {"raw": b"\xff"}, {"s": "\ud800"}]
)
def test_read_back(headers: dict[str, Any]) -> None:
    given = envelope(**headers)
    back, route = decode_envelope(encode_envelope(given, ROUTE, "tag"))
    assert route == ROUTE
    assert (back.body, back.headers) == (given.body, given.headers)
    assert back.properties == {**given.properties, "priority": 0, "delivery_tag": "tag"}


@pytest.mark.parametrize("changes", [{"redelivered": True}, {"properties": {"delivery_info": {"redelivered": True}}}])
def test_redelivery_is_told_in_the_headers(changes: dict[str, Any]) -> None:
    back, _ = decode_envelope(text(**changes))
    assert back.headers["redelivered"] is True


def test_body_may_be_plain_text_and_parts_may_be_missing() -> None:
    back, route = decode_envelope(text(body="[ü]", properties={}))
    assert back.body == "[ü]".encode()
    assert route == Route("", "")
    assert decode_envelope(b'{"body": ""}')[0] == Envelope(b"", {}, {})
    assert decode_envelope(text(properties={"delivery_info": 5, "body_encoding": "utf-8"}))[1] == Route("", "")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"5", b"{}", b"\xff", text(body=5), text(body=...), text(headers=[]), text(properties=5),
        text(body="*"), text(body="W10"), text(body="ü"), text(redelivered="x"), text(headers=[[]] * 70),
        text(body="\ud800", properties={}), b'{"body": "", "headers": ' + b'{"a":' * 70 + b"1" + b"}" * 71,
        text(headers={str(n): n for n in range(257)}), text(properties={str(n): n for n in range(257)}),
        b"[" * 200_000, text(headers={"a": {"__type__": "x", "__value__": 1}}), text(**{"content-type": 5}),
    ],
)  # fmt: skip
def test_nonsense_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_envelope(data)


def test_base64_in_lines_is_read() -> None:
    body = bytes(range(200))
    assert decode_envelope(text(body=base64.encodebytes(body).decode()))[0].body == body


def test_size_is_bounded() -> None:
    with pytest.raises(DecodeError, match="limit is 10"):
        decode_envelope(text(), Limits(wire_bytes=10))
