"""Hostile control requests, replies and events are refused whole, and nothing else is."""

from __future__ import annotations

import json
import pickle
import time
from typing import Any

import pytest

from celeriac.errors import MessageError
from celeriac.wire.control_message import ControlRequest, ReplyTo, decode_reply, decode_request, encode_reply
from celeriac.wire.envelope import Envelope
from celeriac.wire.event_message import decode_events, is_sound
from celeriac.wire.serializers import accept_set

JSON = {"content_type": "application/json", "content_encoding": "utf-8"}
PICKLE = {"content_type": "application/x-python-serialize", "content_encoding": "binary"}


def envelope(body: Any, **headers: Any) -> Envelope:
    return Envelope(json.dumps(body).encode(), headers, dict(JSON))


def request(**changes: Any) -> Envelope:
    return envelope({"method": "ping", "arguments": {}, **changes}, clock=3)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": None}, {"method": "a" * 101}, {"method": "../x"}, {"method": "a b"}, {"method": ["ping"]},
        {"arguments": [1]}, {"arguments": {f"a{n}": 1 for n in range(101)}}, {"arguments": {"a" * 300: 1}},
        {"destination": "w1@h"}, {"destination": {"w1@h": 1}}, {"destination": ["w"] * 10_001},
        {"pattern": "x" * 256}, {"pattern": 3}, {"matcher": ["glob"]}, {"ticket": 5}, {"ticket": "x" * 256},
        {"reply_to": "somewhere"}, {"reply_to": {"exchange": "", "routing_key": "celery"}},
        {"reply_to": {"exchange": "x"}}, {"reply_to": {"exchange": "x", "routing_key": 7}},
    ],
)  # fmt: skip
def test_bad_requests(changes: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        decode_request(request(**changes))


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"1", b"{", b'{"method":', b"\xff", b"[" * 100_000])
def test_bodies_that_are_no_request(body: bytes) -> None:
    for read in (decode_request, decode_reply):
        with pytest.raises(MessageError):
            read(Envelope(body, {}, dict(JSON)))


def test_pickle_is_never_read_even_where_tasks_may_use_it() -> None:
    accept = accept_set(["json", "pickle"])
    body = pickle.dumps({"method": "ping", "arguments": {}})
    for read in (decode_request, decode_reply, decode_events):
        with pytest.raises(MessageError, match="Refusing"):
            read(Envelope(body, {}, dict(PICKLE)), accept)


def test_sizes_are_bounded() -> None:
    with pytest.raises(MessageError, match="bytes"):
        decode_request(request(arguments={"x": "y" * (5 << 20)}))


def test_a_request_says_whom_it_means() -> None:
    def means(node: str, **fields: Any) -> bool:
        return ControlRequest(method="ping", **fields).is_for(node)

    assert means("w1@h")
    assert means("w1@h", destination=["w2@h", "w1@h"])
    assert not means("w1@h", destination=["w2@h"])
    assert not means("w1@h", destination=[])
    assert means("w1@h", pattern="w*@h", matcher="glob")
    assert not means("w1@g", pattern="w*@h", matcher="glob")
    assert means("w1@h", pattern=r"w\d@", matcher="pcre")
    assert not means("x1@h", pattern=r"w\d@", matcher="pcre")
    assert means("w1@h", pattern="w*@h")  # without a matcher it says nothing, as with Celery


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*", "(", "a*b*c*d*e*", "(x{1,9}){1,9}", "[", "(a|b|ab)*c"])
def test_patterns_cannot_take_for_ever(pattern: str) -> None:
    began = time.process_time()
    with pytest.raises(MessageError):
        ControlRequest(method="ping", pattern=pattern, matcher="pcre").is_for("a" * 60 + "!")
    assert time.process_time() - began < 5  # 2**60 steps take years


def test_the_costliest_pattern_that_is_allowed_is_cheap() -> None:
    began = time.process_time()
    assert not ControlRequest(method="ping", pattern=".*.*.*.*x", matcher="pcre").is_for("celery@" + "a" * 50)
    assert time.process_time() - began < 10


def test_clocks_of_strangers() -> None:
    assert decode_request(request()).clock == 3
    for clock in (-1, 1 << 70, "7", None, 1.5, True):
        assert decode_request(envelope({"method": "ping"}, clock=clock)).clock == 0


def test_replies() -> None:
    sent = encode_reply("w1@h", {"ok": "pong"}, ticket="t", clock=4)
    reply = decode_reply(sent)
    assert (reply.ticket, reply.clock, reply.by_node) == ("t", 4, {"w1@h": {"ok": "pong"}})
    unspeakable = decode_reply(encode_reply("w1@h", {"ok": object()}, ticket="t", clock=4))
    assert "cannot be sent" in unspeakable.by_node["w1@h"]["error"]
    with pytest.raises(MessageError):
        decode_reply(envelope({"x" * 300: 1}, ticket="t"))


EVENT = {"type": "task-started", "hostname": "w@h", "timestamp": 1.5, "pid": 3, "clock": 4, "utcoffset": -1.0}


@pytest.mark.parametrize(
    "changes",
    [
        {"type": None}, {"type": ""}, {"type": "a b"}, {"type": "x" * 101}, {"type": "-x"}, {"type": "task--x"},
        {"hostname": ""}, {"hostname": 5}, {"hostname": "h" * 256}, {"timestamp": "now"}, {"timestamp": True},
        {"timestamp": float("nan")}, {"timestamp": float("inf")}, {"timestamp": 1e300}, {"clock": -1},
        {"clock": 1 << 70}, {"clock": "1"}, {"pid": "x"}, {"pid": True}, {"utcoffset": 1e9}, {"utcoffset": "w"},
        {"uuid": 5}, {"uuid": ""}, {"uuid": "u" * 256}, {f"f{n}": 1 for n in range(101)},
    ],
)  # fmt: skip
def test_bad_events(changes: dict[str, Any]) -> None:
    assert is_sound(EVENT)
    assert not is_sound({**EVENT, **changes})


def test_one_bad_event_does_not_spoil_its_batch() -> None:
    heard = decode_events(envelope([EVENT, {"type": 3}, 7, EVENT]))
    assert len(heard.events) == 2
    assert heard.refused == 2
    assert decode_events(envelope({**EVENT, "clock": None})).events == [{**EVENT, "clock": None}]
    for bad in ([7], 7, "x", [[EVENT]], [EVENT] * 10_001):
        with pytest.raises(MessageError):
            decode_events(envelope(bad))


def test_where_replies_go() -> None:
    found = decode_request(request(ticket="t", reply_to={"exchange": "reply.celery.pidbox", "routing_key": "k"}))
    assert found.reply_to == ReplyTo("reply.celery.pidbox", "k")
    assert found.reply_to.route.exchange_type == "direct"
