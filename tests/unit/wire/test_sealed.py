"""Messages that are passed on unopened: whoever opens one later sees what an early reader would have seen."""

from __future__ import annotations

import json
from typing import Any

import pytest

from celeriac.errors import MessageError
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.kombu_json import decode_envelope, encode_envelope
from celeriac.wire.limits import DEFAULT_LIMITS, Limits
from celeriac.wire.sealed import essentials_of, opened, read_sealed
from celeriac.wire.task_message import TaskCall, encode_task

ROUTE = Route("ex", "key")


def sent(**options: Any) -> bytes:
    return encode_envelope(encode_task(TaskCall(task="app.add", id="i1", args=(1, 2), **options), 0.0), ROUTE)


USUAL = {
    "plain": sent(),
    "pickle": sent(serializer="pickle"),
    "msgpack": sent(serializer="msgpack"),
    "compressed": sent(compression="zlib"),
    "limits": sent(time_limit=5, soft_time_limit=2.5),
    "late": sent(eta="2030-01-01T00:00:00+00:00", expires="2031-01-01T00:00:00+00:00"),
    "member": sent(group_id="g", parent_id="p", reply_to="r", ignore_result=True),
    "stamped": sent(stamped_headers=["a"], stamps={"a": [1]}),
    "odd header": sent(headers={"ratio": float("nan")}),
    "text": sent(headers={"name": "\u00e4\n\""}),
    "celery's spacing": json.dumps(json.loads(sent())).encode(),
}  # fmt: skip


@pytest.mark.parametrize("data", USUAL.values(), ids=USUAL)
def test_a_reader_of_heads_sees_what_an_opener_sees(data: bytes) -> None:
    sealed = read_sealed(data, DEFAULT_LIMITS)
    if sealed is None:  # what msgspec's JSON has not: the careful way is taken for it from the start
        assert b"NaN" in data
        return
    envelope, route = decode_envelope(data)
    heads, info = sealed.headers, sealed.properties.delivery_info
    assert (info.exchange, info.routing_key) == (route.exchange, route.routing_key)
    assert heads.opened() == opened(heads.payload) == envelope
    for name in ("task", "id", "eta", "expires"):
        assert getattr(heads, name) == envelope.headers[name]
    assert list(heads.timelimit or ()) == envelope.headers["timelimit"]


@pytest.mark.parametrize("data", USUAL.values(), ids=USUAL)
def test_what_running_needs_is_the_same_opened_or_not(data: bytes) -> None:
    assert essentials_of(data) == essentials_of(decode_envelope(data)[0])


def changed(**changes: Any) -> bytes:
    """``headers__task=…`` changes a header; ``...`` takes it away."""
    message = json.loads(sent())
    for path, value in changes.items():
        *way, last = path.split("__")
        place = message
        for step in way:
            place = place[step]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return json.dumps(message).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"[1]", b"\xff\xfe", b'{"body": "W10=", "headers": {}, "properties": {}}',
        changed(headers__task=...), changed(headers__id=...), changed(headers__task=5), changed(headers__eta=5),
        changed(headers__timelimit=[1]), changed(headers__timelimit=["1", None]),
        changed(body=""), changed(properties__delivery_info=...), changed(body="eyJhcmdzIjogW119"),
        changed(body="{}", properties__body_encoding=None),
        changed(headers__eta={"__type__": "datetime", "__value__": "2030-01-01"}),
        changed(headers__filler="x" * 20_000),
    ],
)  # fmt: skip
def test_what_is_not_of_the_usual_form_is_left_to_the_careful_reader(data: bytes) -> None:
    assert read_sealed(data, DEFAULT_LIMITS) is None


def test_too_large_is_left_to_it_as_well() -> None:
    assert read_sealed(sent(), Limits(wire_bytes=100)) is None


def test_nobody_sends_a_payload_of_his_own() -> None:
    data = changed(headers__payload="c3R1ZmY=")
    sealed = read_sealed(data, DEFAULT_LIMITS)
    assert sealed is not None
    assert sealed.headers.payload == data


@pytest.mark.parametrize(
    "data",
    [
        {"redelivered": True},
        {"headers__redelivered": True},
        {"properties__delivery_info": {"exchange": "", "routing_key": "q", "redelivered": True}},
    ],
)
def test_redelivery_is_seen_wherever_it_is_written(data: dict[str, Any]) -> None:
    sealed = read_sealed(changed(**data), DEFAULT_LIMITS)
    assert sealed is not None
    assert sealed.headers.redelivered


def test_headers_that_turn_out_unreadable_harm_nobody() -> None:
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    data = changed(headers__deep=deep)
    sealed = read_sealed(data, DEFAULT_LIMITS)
    assert sealed is not None
    assert opened(data) == Envelope(data, {}, {})
    with pytest.raises(MessageError, match="nested deeper"):
        sealed.headers.opened()


def test_a_broken_body_is_found_by_whoever_reads_it() -> None:
    data = changed(body="W1*=")
    assert read_sealed(data, DEFAULT_LIMITS) is not None
    with pytest.raises(MessageError, match="base64"):
        essentials_of(data)
