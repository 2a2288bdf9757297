"""The connection without I/O: handshake, channels, messages, confirms, closes, heartbeats; a broker of bytes."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.amqp.errors import (
    AmqpError,
    ChannelClosed,
    ConnectFailed,
    ConnectionClosed,
    ConnectionLost,
    LoginRefused,
    NotAmqp,
    ProtocolViolation,
    Unencodable,
    VhostRefused,
)  # fmt: skip
from celeriac.amqp.events import (
    Arrived,
    Blocked,
    Call,
    CameBack,
    ChannelEnded,
    ConnectionEnded,
    ConsumerEnded,
    Unblocked,
)  # fmt: skip
from celeriac.amqp.frames import HEARTBEAT_FRAME, PROTOCOL_HEADER, method_frame
from celeriac.amqp.messages import CONFIRMED, REJECTED, Fate, Publication
from celeriac.amqp.methods import encode_method
from celeriac.amqp.properties import encode_properties


def publication(key: str = "q", **more: Any) -> Publication:
    return Publication("", key, more.pop("properties", {}), None, more.pop("body", b"x"), **more)


# ── handshake ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_handshake(new_talk: Any) -> None:
    talk = new_talk(username="ann", password="pässword", vhost="/den", heartbeat=10.0)
    assert talk.core.take_output(0.0) == PROTOCOL_HEADER
    talk.says("connection.start", major=0, minor=9, mechanisms="AMQPLAIN PLAIN", server_properties={"product": "R"})
    (start_ok,) = talk.heard()
    assert start_ok["mechanism"] == "PLAIN"
    assert start_ok["response"] == b"\0ann\0p\xc3\xa4ssword"
    assert start_ok["client_properties"]["capabilities"] == {
        "consumer_cancel_notify": True, "basic.nack": True, "publisher_confirms": True, "connection.blocked": True,
        "authentication_failure_close": True, "exchange_exchange_bindings": True,
    }  # fmt: skip
    assert not talk.core.is_open
    talk.says("connection.tune", channel_max=100, frame_max=8192, heartbeat=60)
    tune_ok, opening = talk.heard()
    assert tune_ok.arguments == {"channel_max": 100, "frame_max": 8192, "heartbeat": 10}
    assert opening["virtual_host"] == "/den"
    (event,) = talk.says("connection.open-ok")
    assert event is talk.core.opening
    assert talk.core.is_open
    assert talk.core.server_properties == {"product": "R"}


@pytest.mark.parametrize(
    ("method", "response"),
    [
        ("AMQPLAIN", b"\x05LOGINS\x00\x00\x00\x05guest\x08PASSWORDS\x00\x00\x00\x05guest"),
        ("EXTERNAL", b""),
    ],
)
def test_login_methods(new_talk: Any, method: str, response: bytes) -> None:
    talk = new_talk(login_method=method)
    talk.core.take_output(0.0)
    talk.says("connection.start", major=0, minor=9, mechanisms="PLAIN AMQPLAIN EXTERNAL")
    (start_ok,) = talk.heard()
    assert (start_ok["mechanism"], start_ok["response"]) == (method, response)


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [
        (60.0, 10, 10), (10.0, 60, 10), (0.0, 60, 0), (60.0, 0, 60), (0.5, 60, 1), (2.5, 60, 3),
    ],
)  # fmt: skip
def test_the_heartbeat_is_agreed_on(new_talk: Any, ours: float, theirs: int, agreed: int) -> None:
    talk = new_talk(heartbeat=ours).opened(heartbeat=theirs)
    assert talk.core.heartbeat == agreed


@pytest.mark.parametrize(
    ("theirs", "agreed"), [(0, 131072), (131072, 131072), (8192, 8192), (2**31, 131072), (1, 4096)]
)
def test_the_frame_size_is_agreed_on(new_talk: Any, theirs: int, agreed: int) -> None:
    assert new_talk().opened(frame_max=theirs).core.body_limit == agreed - 8


def started(talk: Any) -> Any:
    talk.core.take_output(0.0)
    talk.says("connection.start", major=0, minor=9, mechanisms="PLAIN")
    return talk


@pytest.mark.parametrize(
    ("stage", "code", "kind", "word"),
    [
        (0, 320, ConnectFailed, "refused the connection"),
        (1, 403, LoginRefused, "user and password"),
        (2, 530, VhostRefused, "virtual host '/'"),
    ],
)
def test_a_refusal_names_the_setting(
    new_talk: Any, stage: int, code: int, kind: type[ConnectionClosed], word: str
) -> None:
    talk = new_talk()
    if stage:
        started(talk)
    if stage == 2:
        talk.says("connection.tune", channel_max=0, frame_max=0, heartbeat=0)
    talk.heard() if stage else talk.core.take_output(0.0)
    events = talk.says("connection.close", reply_code=code, reply_text="NO - secret reason")
    assert isinstance(events[-1], ConnectionEnded)
    assert type(talk.core.error) is kind
    assert talk.core.error.code == code
    assert word in str(talk.core.error)
    assert "secret reason" in str(talk.core.error)
    assert talk.core.opening.error is talk.core.error
    assert [method.name for method in talk.heard()] == ["connection.close-ok"]


@pytest.mark.parametrize(("stage", "kind"), [(0, ConnectFailed), (1, LoginRefused), (2, VhostRefused)])
def test_an_end_without_a_word_is_explained_by_the_stage(new_talk: Any, stage: int, kind: type[AmqpError]) -> None:
    talk = new_talk()
    if stage:
        started(talk)
    if stage == 2:
        talk.says("connection.tune", channel_max=0, frame_max=0, heartbeat=0)
    talk.reads(b"")
    assert type(talk.core.error) is kind


def test_a_login_method_that_is_not_offered(new_talk: Any) -> None:
    talk = new_talk(login_method="EXTERNAL")
    talk.says("connection.start", major=0, minor=9, mechanisms="PLAIN AMQPLAIN")
    assert isinstance(talk.core.error, LoginRefused)
    assert "broker_login_method" in str(talk.core.error)
    assert "AMQPLAIN" in str(talk.core.error)


@pytest.mark.parametrize(
    ("greeting", "word"),
    [
        (b"AMQP\x00\x01\x00\x00", "AMQP 0-9-1; it offers"),
        (b"AMQP\x03\x01\x00\x00", "offers"),
        (b"HTTP/1.1 400 Bad Request\r\n", "does not speak AMQP"),
        (b"\x15\x03\x01\x00\x02\x02\x16", "amqps://"),
        (b"-ERR unknown command\r\n", "host and port"),
        (b"\x00" * 64, "does not speak AMQP"),
    ],
)
def test_who_does_not_speak_amqp_is_told_apart(new_talk: Any, greeting: bytes, word: str) -> None:
    for pieces in ([greeting], [greeting[:1], greeting[1:]]):
        talk = new_talk()
        for piece in pieces:
            talk.reads(piece)
        assert isinstance(talk.core.error, NotAmqp)
        assert word in str(talk.core.error)


@pytest.mark.parametrize(
    "method", ["connection.tune", "connection.open-ok", "connection.secure", "connection.close-ok"]
)
def test_steps_out_of_turn_end_it(new_talk: Any, method: str) -> None:
    talk = new_talk()
    talk.says(method)
    assert isinstance(talk.core.error, ProtocolViolation)


# ── channels and calls ───────────────────────────────────────────────────────────────────────────────────────


def test_calls_are_answered_in_order(talk: Any) -> None:
    channel = talk.channel()
    first = channel.call("queue.declare", {"queue": "a"})
    second = channel.call("queue.declare", {"queue": "b"})
    events = talk.says("queue.declare-ok", 1, queue="a", message_count=1)
    assert events == [first]
    assert first.result()["message_count"] == 1
    assert not second.is_done
    talk.says("queue.declare-ok", 1, queue="b", message_count=2)
    assert second.result()["queue"] == "b"


def test_an_answer_may_overtake_another(talk: Any) -> None:
    """RabbitMQ's channel answers basic.qos itself; basic.consume is answered by the queue."""
    channel = talk.channel()
    consume, qos = channel.consume({"queue": "q", "consumer_tag": "me"}), channel.call("basic.qos")
    assert talk.says("basic.qos-ok", 1) == [qos]
    assert talk.says("basic.consume-ok", 1, consumer_tag="me") == [consume]


def test_what_does_not_fit_into_a_frame_is_not_sent(new_talk: Any) -> None:
    talk = new_talk().opened(frame_max=4096)
    channel = talk.channel()
    with pytest.raises(Unencodable, match="fit into a frame"):
        channel.publish([Publication("", "q", {}, {"long": "x" * 4080}, b"")])
    with pytest.raises(Unencodable, match="fit into a frame"):
        channel.call("queue.declare", {"arguments": {"long": "x" * 4080}})
    assert talk.core.take_output(0.0) == b""
    channel.publish([Publication("", "q", {}, {"long": "x" * 4050}, b"")])
    assert len(talk.core.take_output(0.0)) < 4096 + 40


def test_a_frame_in_tiny_pieces_is_put_together_once(talk: Any) -> None:
    channel = talk.channel()
    data = talk.deliver(1, 1, b"x" * 100_000)
    for at in range(len(data) - 1):
        talk.reads(data[at : at + 1])
    # put together anew for each piece, it would be gigabytes of copies
    assert len(talk.core._parts) > 99_000
    talk.reads(data[-1:])
    assert channel.inbox[0].body == b"x" * 100_000


def test_an_answer_that_was_not_asked_for_ends_the_connection(talk: Any) -> None:
    channel = talk.channel()
    call = channel.call("queue.declare", {"queue": "a"})
    talk.says("queue.bind-ok", 1)
    assert isinstance(talk.core.error, ProtocolViolation)
    with pytest.raises(ProtocolViolation):
        call.result()
    assert [method.name for method in talk.heard()] == ["queue.declare", "connection.close"]


def test_a_channel_closed_by_the_broker(talk: Any) -> None:
    channel, other = talk.channel(), talk.channel()
    call = channel.call("queue.declare", {"queue": "a", "passive": True})
    events = talk.says("channel.close", 1, reply_code=404, reply_text="NOT_FOUND - no queue 'a'")
    assert events[0] is call
    assert events[1] == ChannelEnded(channel, channel.error)
    with pytest.raises(ChannelClosed) as caught:
        call.result()
    assert (caught.value.code, str(caught.value)) == (404, "NOT_FOUND - no queue 'a' (404)")
    with pytest.raises(ChannelClosed):
        channel.ack(1)
    assert [method.name for method in talk.heard()][-1] == "channel.close-ok"
    assert other.error is None
    # its number is free again
    assert talk.channel().number == 1


def test_a_channel_closed_by_us(talk: Any) -> None:
    channel = talk.channel()
    call = channel.call("channel.close", {"reply_code": 200})
    assert talk.reads(talk.deliver(1, 5)) == []
    with pytest.raises(ChannelClosed):
        channel.publish([publication()])
    assert talk.says("channel.close-ok", 1) == [call]
    assert not channel.inbox
    assert talk.channel().number == 1


def test_both_sides_close_at_once(talk: Any) -> None:
    channel = talk.channel()
    call = channel.call("channel.close", {"reply_code": 200})
    talk.says("channel.close", 1, reply_code=406, reply_text="X")
    assert isinstance(call.error, ChannelClosed)
    assert talk.core.error is None


def test_channels_are_as_many_as_agreed(new_talk: Any) -> None:
    talk = new_talk().opened(channel_max=2)
    talk.channel()
    talk.channel()
    with pytest.raises(AmqpError, match="All 2 channels"):
        talk.core.open_channel()


def test_frames_on_a_channel_that_is_not_open_end_it(talk: Any) -> None:
    talk.reads(talk.deliver(9, 1))
    assert isinstance(talk.core.error, ProtocolViolation)


def test_flow_is_answered(talk: Any) -> None:
    channel = talk.channel()
    talk.says("channel.flow", channel.number, active=False)
    (answer,) = talk.heard()
    assert (answer.name, answer["active"]) == ("channel.flow-ok", False)


def test_a_secret_is_renewed(talk: Any) -> None:
    call = talk.core.update_secret("new", "expired")
    (method,) = talk.heard()
    assert (method["new_secret"], method["reason"]) == (b"new", "expired")
    assert talk.says("connection.update-secret-ok") == [call]


# ── messages that come in ────────────────────────────────────────────────────────────────────────────────────


def test_a_delivery(talk: Any) -> None:
    channel = talk.channel()
    data = talk.deliver(1, 7, b"hello", properties={"type": "t"}, headers={"k": [1]})
    assert talk.reads(data) == [Arrived(channel)]
    (message,) = channel.inbox
    assert (message.exchange, message.routing_key, message.delivery_tag) == ("e", "k", 7)
    assert (message.redelivered, message.consumer_tag, message.body) == (False, "me", b"hello")
    assert message.decoded() == ({"type": "t"}, {"k": [1]})
    assert (message.properties, message.headers, message.oversize) == ({"type": "t"}, {"k": [1]}, 0)


def test_arrival_is_told_once(talk: Any) -> None:
    channel = talk.channel()
    assert talk.reads(talk.deliver(1, 1) + talk.deliver(1, 2)) == [Arrived(channel)]
    assert talk.reads(talk.deliver(1, 3)) == []
    channel.inbox.clear()
    assert talk.reads(talk.deliver(1, 4)) == [Arrived(channel)]


def test_the_common_way_to_read_a_delivery_is_the_general_one(talk: Any) -> None:
    channel = talk.channel()
    for redelivered in (False, True):
        arguments = {
            "consumer_tag": "ü" * 20, "delivery_tag": 2**63 + 1, "redelivered": redelivered, "exchange": "é" * 5,
            "routing_key": "",
        }  # fmt: skip
        talk.reads(talk.content("basic.deliver", 1, b"", **arguments))
        message = channel.inbox.popleft()
        assert {name: getattr(message, name) for name in arguments} == arguments


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_any_interleaving_and_any_cut(seed: int, count: int) -> None:
    from celeriac.amqp.connection import Connection
    from celeriac.amqp.frames import content_frames
    from celeriac.amqp.parameters import Parameters

    rng = random.Random(seed)
    core = Connection(Parameters(), 0.0)
    for name, arguments in (
        ("connection.start", {"minor": 9, "mechanisms": "PLAIN"}), ("connection.tune", {"frame_max": 4096}),
        ("connection.open-ok", {}),
    ):  # fmt: skip
        core.receive(method_frame(0, encode_method(name, arguments)), 0.0)
    channels = [core.open_channel()[0] for _ in range(count)]
    for channel in channels:
        core.receive(method_frame(channel.number, encode_method("channel.open-ok")), 0.0)
    bodies = {channel.number: [rng.randbytes(rng.choice([0, 1, 4000, 9000])) for _ in range(3)] for channel in channels}
    # one list of frames per channel, merged at random
    streams: list[list[bytes]] = []
    for number, texts in bodies.items():
        frames: list[bytes] = []
        for tag, body in enumerate(texts):
            deliver = {"delivery_tag": tag, "consumer_tag": "c", "exchange": "", "routing_key": "q"}
            frames.append(method_frame(number, encode_method("basic.deliver", deliver)))
            joined = b"".join(content_frames(number, encode_properties({}, {"n": number}), body, 4088))
            at = 0
            while at < len(joined):
                length = struct.unpack_from(">BHI", joined, at)[2] + 8
                frames.append(joined[at : at + length])
                at += length
        streams.append(frames)
    data = b""
    while any(streams):
        data += rng.choice([frames for frames in streams if frames]).pop(0)
        if rng.random() < 0.2:
            data += HEARTBEAT_FRAME
    at = 0
    while at < len(data):
        step = rng.choice([1, 3, 7, 8, 1000, 100000])
        core.receive(data[at : at + step], 0.0)
        at += step
    assert core.error is None
    for channel in channels:
        assert [message.body for message in channel.inbox] == bodies[channel.number]
        assert all(message.headers == {"n": channel.number} for message in channel.inbox)


def test_a_body_over_the_limit_is_thrown_away_and_reported(new_talk: Any) -> None:
    talk = new_talk(message_limit=1000).opened(frame_max=4096)
    channel = talk.channel()
    data = talk.deliver(1, 1, b"x" * 50000, frame_max=4096) + talk.deliver(1, 2, b"y" * 1000, frame_max=4096)
    for at in range(0, len(data), 1000):
        talk.reads(data[at : at + 1000])
        assert sum(map(len, channel._chunks)) <= 1000
    big, fitting = channel.inbox
    assert (big.body, big.oversize, big.delivery_tag) == (b"", 50000, 1)
    assert (len(fitting.body), fitting.oversize) == (1000, 0)


def test_a_small_body_over_the_limit_is_reported_too(new_talk: Any) -> None:
    talk = new_talk(message_limit=10).opened()
    channel = talk.channel()
    talk.reads(talk.deliver(1, 1, b"x" * 11) + talk.deliver(1, 2, b"y" * 10))
    assert [(message.body, message.oversize) for message in channel.inbox] == [(b"", 11), (b"y" * 10, 0)]


def header(size: int, class_id: int = 60, properties: bytes = b"\0\0") -> bytes:
    return struct.pack(">BHIHHQ", 2, 1, 12 + len(properties), class_id, 0, size) + properties + b"\xce"


def body_frame(data: bytes) -> bytes:
    return struct.pack(">BHI", 3, 1, len(data)) + data + b"\xce"


DELIVER = method_frame(1, encode_method("basic.deliver", {"delivery_tag": 1}))
VIOLATIONS = {
    "a frame over the agreed size": struct.pack(">BHI", 3, 1, 131072 - 7) + b"x",
    "a frame of 4 GiB": struct.pack(">BHI", 1, 0, 2**32 - 1) + b"x",
    "a frame without its end": struct.pack(">BHI", 1, 0, 4) + b"abcdX",
    "an unknown type of frame": struct.pack(">BHI", 7, 1, 0) + b"\xce",
    "an unknown type of frame on channel 0": struct.pack(">BHI", 3, 0, 0) + b"\xce",
    "an unknown method": method_frame(0, b"\x00\x63\x00\x63"),
    "an empty method": method_frame(1, b""),
    "a method that is cut": method_frame(0, b"\x00\x0a\x00\x32\x01"),
    "a delivery that is cut": method_frame(1, encode_method("basic.deliver", {})[:-1]),
    "a delivery that is cut early": method_frame(1, b"\x00\x3c\x00\x3c"),
    "a delivery with too much": method_frame(1, encode_method("basic.deliver", {}) + b"x"),
    "a consumer tag that is too long": method_frame(1, b"\x00\x3c\x00\x3c\xff"),
    "a header without a method": header(1),
    "a body without a header": body_frame(b"x"),
    "a body in place of a header": DELIVER + body_frame(b"x"),
    "two deliveries at once": DELIVER + DELIVER,
    "a method in the middle of a message": DELIVER + method_frame(1, encode_method("basic.cancel-ok")),
    "two headers": DELIVER + header(5) + header(5),
    "a header of another class": DELIVER + header(5, 50),
    "a header that is cut": DELIVER + struct.pack(">BHI", 2, 1, 3) + b"\x00\x3c\x00\xce",
    "a body of 2**63 bytes": DELIVER + header(2**63),
    "a body of 2**64-1 bytes": DELIVER + header(2**64 - 1),
    "a body that is too long": DELIVER + header(5) + body_frame(b"123456"),
    "a body that is too long in the second frame": DELIVER + header(5) + body_frame(b"123") + body_frame(b"456"),
    "a confirm without having been asked": method_frame(1, encode_method("basic.ack", {"delivery_tag": 1})),
    "an answer without a question": method_frame(1, encode_method("queue.declare-ok")),
    "an opening on channel 0": method_frame(0, encode_method("connection.open-ok")),
    "a start again": method_frame(0, encode_method("connection.start", {"minor": 9, "mechanisms": "PLAIN"})),
    "a channel's method on channel 0": method_frame(0, encode_method("basic.cancel", {"consumer_tag": "x"})),
    "a client's method": method_frame(1, encode_method("basic.publish", {})),
}


@pytest.mark.parametrize("data", VIOLATIONS.values(), ids=VIOLATIONS.keys())
def test_violations_end_the_connection_in_one_way(talk: Any, data: bytes) -> None:
    channel = talk.channel()
    call = channel.call("basic.qos")
    events = talk.reads(data)
    assert isinstance(events[-1], ConnectionEnded)
    assert isinstance(talk.core.error, ProtocolViolation)
    assert 0 < len(str(talk.core.error)) < 300
    assert call.error is channel.error is talk.core.error
    assert talk.heard()[-1].name == "connection.close"
    # after that nothing matters any more
    assert talk.reads(b"anything") == []
    assert talk.core.tick(1e9) == []


def test_a_body_of_2_to_the_62_is_not_believed(talk: Any) -> None:
    """It is under the protocol's limit and over ours: nothing is set aside for it."""
    channel = talk.channel()
    talk.reads(DELIVER + header(2**62) + body_frame(b"x" * 1000) * 50)
    assert talk.core.error is None
    assert not channel._chunks


def test_routing_keys_of_any_bytes_do_no_harm(talk: Any) -> None:
    channel = talk.channel()
    payload = b"\x00\x3c\x00\x3c\x01c" + struct.pack(">QB", 1, 0) + b"\x02\xff\xfe\x01\x80"
    talk.reads(method_frame(1, payload) + header(0))
    (message,) = channel.inbox
    assert talk.core.error is None
    # passed on, they are the same bytes
    channel.publish([Publication(message.exchange, message.routing_key, {}, None, b"")])
    assert b"\x02\xff\xfe\x01\x80" in talk.core.take_output(0.0)


def test_many_names_are_not_remembered_for_ever(talk: Any) -> None:
    channel = talk.channel()
    for number in range(3000):
        arguments = {"delivery_tag": 1, "consumer_tag": str(number), "routing_key": str(number)}
        talk.reads(talk.content("basic.deliver", 1, b"", **arguments))
        assert channel.inbox.pop().routing_key == str(number)
        channel.publish([publication(str(number))])
    assert len(talk.core._places) <= 1024
    assert len(talk.core._consumer_tags) <= 1024
    assert len(channel._prefixes) <= 1024


def test_basic_get(talk: Any) -> None:
    channel = talk.channel()
    call = channel.call("basic.get", {"queue": "q"}, "basic.get-ok", "basic.get-empty")
    get_ok = talk.content(
        "basic.get-ok", 1, b"body", delivery_tag=3, redelivered=True, routing_key="q", message_count=9
    )
    assert talk.reads(get_ok) == [call]
    assert call.message is not None
    assert (call.message.body, call.message.delivery_tag, call.message.redelivered) == (b"body", 3, True)
    assert call.result()["message_count"] == 9
    call = channel.call("basic.get", {"queue": "q"}, "basic.get-ok", "basic.get-empty")
    talk.says("basic.get-empty", 1)
    assert call.message is None
    assert call.result().name == "basic.get-empty"


def test_a_consumer_is_cancelled_by_the_broker(talk: Any) -> None:
    channel = talk.channel()
    channel.consume({"queue": "q", "consumer_tag": "me"})
    talk.says("basic.consume-ok", 1, consumer_tag="me")
    talk.heard()
    assert talk.says("basic.cancel", 1, consumer_tag="me", no_wait=True) == [ConsumerEnded(channel, "me")]
    assert not channel.consumer_tags
    assert talk.heard() == []


# ── publishing ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_publication_on_the_wire(new_talk: Any) -> None:
    talk = new_talk().opened(frame_max=4096)
    channel = talk.channel()
    body = bytes(range(256)) * 40
    batch = channel.publish([Publication("e", "k", {"type": "t"}, {"a": 1}, body, True), publication(body=b"")])
    data = talk.core.take_output(0.0)
    expected = talk.content(
        "basic.publish", 1, body, {"type": "t"}, {"a": 1}, 4096, exchange="e", routing_key="k", mandatory=True
    ) + talk.content("basic.publish", 1, b"", exchange="", routing_key="q")
    assert data == expected
    assert batch.is_done
    assert batch.results() == [CONFIRMED, CONFIRMED]


def test_a_batch_with_an_impossible_message_is_not_sent(talk: Any) -> None:
    channel = talk.confirming()
    with pytest.raises(Unencodable):
        channel.publish([publication(), publication(properties={"priority": 300})])
    assert talk.core.take_output(0.0) == b""
    batch = channel.publish([publication()])
    assert batch.first_tag == 1


def test_confirms_one_by_one_and_many_at_once(talk: Any) -> None:
    channel = talk.confirming()
    first = channel.publish([publication()] * 4)
    second = channel.publish([publication()] * 3)
    assert talk.says("basic.ack", 1, delivery_tag=2) == []
    assert talk.says("basic.nack", 1, delivery_tag=6) == []
    assert talk.says("basic.ack", 1, delivery_tag=5, multiple=True) == [first]
    assert first.results() == [CONFIRMED] * 4
    assert second.results() == [CONFIRMED, REJECTED, Fate("unknown")]
    assert talk.says("basic.nack", 1, delivery_tag=0, multiple=True) == [second]
    assert second.results() == [CONFIRMED, REJECTED, REJECTED]


def test_a_later_batch_may_be_done_first(talk: Any) -> None:
    channel = talk.confirming()
    first, second = channel.publish([publication()] * 2), channel.publish([publication()])
    assert talk.says("basic.ack", 1, delivery_tag=3) == [second]
    assert talk.says("basic.ack", 1, delivery_tag=3) == []
    assert talk.says("basic.ack", 1, delivery_tag=3, multiple=True) == [first]


def test_a_confirm_for_what_was_never_sent_ends_the_connection(talk: Any) -> None:
    channel = talk.confirming()
    channel.publish([publication()])
    talk.says("basic.ack", 1, delivery_tag=2)
    assert isinstance(talk.core.error, ProtocolViolation)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_confirms_in_any_order(data: st.DataObject) -> None:
    from celeriac.amqp.confirms import Confirms

    confirms = Confirms()
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    batches = [confirms.register([publication()] * size) for size in sizes]
    expected: dict[int, Fate] = {}
    total = sum(sizes)
    done = 0
    for tag, multiple, good in data.draw(
        st.lists(st.tuples(st.integers(1, total), st.booleans(), st.booleans()), max_size=12)
    ):
        fate = CONFIRMED if good else REJECTED
        for one in range(1, tag + 1) if multiple else [tag]:
            expected.setdefault(one, fate)
        finished = confirms.settle(tag, multiple, fate)
        assert finished is not None
        done += len(finished)
    fates = [fate for batch in batches for fate in batch.results()]
    assert fates == [expected.get(tag, Fate("unknown")) for tag in range(1, total + 1)]
    assert done == sum(batch.is_done for batch in batches)
    assert len(confirms.abandon(ChannelClosed(404, "gone"))) == len(batches) - done
    for tag, fate in enumerate((fate for batch in batches for fate in batch.results()), 1):
        assert fate == expected.get(tag, Fate("unknown", 404, "gone"))


def came_back(talk: Any, key: str, **properties: Any) -> bytes:
    return bytes(talk.content(
        "basic.return", 1, b"x", properties, reply_code=312, reply_text="NO_ROUTE", exchange="", routing_key=key
    ))  # fmt: skip


def test_returns_find_their_publication(talk: Any) -> None:
    channel = talk.confirming()
    batch = channel.publish([
        publication("a", mandatory=True),
        publication("gone", mandatory=True, properties={"correlation_id": "1"}),
        publication("gone", mandatory=False, properties={"correlation_id": "2"}),
        publication("gone", mandatory=True, properties={"correlation_id": "2"}),
        publication("gone", mandatory=True, properties={"correlation_id": "2"}),
    ])  # fmt: skip
    back = Fate("returned", 312, "NO_ROUTE")
    assert talk.reads(came_back(talk, "gone", correlation_id="2")) == []
    talk.says("basic.ack", 1, delivery_tag=4)
    talk.reads(came_back(talk, "gone", correlation_id="2"))
    talk.reads(came_back(talk, "gone", correlation_id="1"))
    assert talk.says("basic.ack", 1, delivery_tag=5, multiple=True) == [batch]
    assert batch.results() == [CONFIRMED, back, CONFIRMED, back, back]


def test_what_comes_back_without_confirms_is_an_event(talk: Any) -> None:
    channel = talk.channel()
    channel.publish([publication("gone", mandatory=True)])
    (event,) = talk.reads(came_back(talk, "gone"))
    assert isinstance(event, CameBack)
    assert (event.fate.code, event.message.routing_key) == (312, "gone")


def test_a_closed_channel_leaves_fates_unknown_and_says_why(talk: Any) -> None:
    channel = talk.confirming()
    batch = channel.publish([publication()] * 3)
    talk.says("basic.ack", 1, delivery_tag=1)
    events = talk.says("channel.close", 1, reply_code=404, reply_text="no exchange")
    assert batch in events
    assert batch.results() == [CONFIRMED, Fate("unknown", 404, "no exchange"), Fate("unknown", 404, "no exchange")]


# ── the end of a connection ──────────────────────────────────────────────────────────────────────────────────


def test_a_connection_closed_by_the_broker(talk: Any) -> None:
    channel = talk.confirming()
    call = channel.call("basic.qos")
    batch = channel.publish([publication()])
    talk.heard()
    events = talk.says("connection.close", reply_code=320, reply_text="CONNECTION_FORCED - operator")
    error = talk.core.error
    assert events == [call, batch, ConnectionEnded(error)]
    assert (type(error), error.code) == (ConnectionClosed, 320)
    assert [method.name for method in talk.heard()] == ["connection.close-ok"]
    with pytest.raises(ConnectionClosed, match="operator"):
        channel.publish([publication()])
    with pytest.raises(ConnectionClosed, match="operator"):
        talk.core.open_channel()


def test_a_connection_closed_by_us(talk: Any) -> None:
    channel = talk.channel()
    call = talk.core.close()
    assert talk.core.close() is call
    assert talk.reads(talk.deliver(1, 1)) != []
    with pytest.raises(ConnectionClosed):
        talk.core.open_channel()
    events = talk.says("connection.close-ok")
    assert events[0] is call
    assert isinstance(events[-1], ConnectionEnded)
    assert channel.error is talk.core.error


def test_a_lost_connection(talk: Any) -> None:
    channel = talk.channel()
    talk.reads(talk.deliver(1, 1)[:-3])
    events = talk.reads(b"")
    assert isinstance(events[-1], ConnectionEnded)
    assert isinstance(talk.core.error, ConnectionLost)
    assert isinstance(channel.error, ConnectionLost)


def test_blocked_and_unblocked(talk: Any) -> None:
    assert talk.says("connection.blocked", reason="low on memory") == [Blocked("low on memory")]
    assert talk.core.is_blocked
    assert talk.core.blocked_reason == "low on memory"
    assert talk.says("connection.unblocked") == [Unblocked()]
    assert not talk.core.is_blocked


# ── heartbeats ───────────────────────────────────────────────────────────────────────────────────────────────


def test_heartbeats_go_out_when_nothing_else_does(new_talk: Any) -> None:
    talk = new_talk(heartbeat=10.0).opened()
    core, channel = talk.core, talk.channel()
    assert core.next_tick() == talk.now + 5
    assert core.tick(talk.now + 4.9) == []
    assert core.take_output(talk.now + 4.9) == b""
    core.tick(talk.now + 5)
    assert core.take_output(talk.now + 5) == HEARTBEAT_FRAME
    assert core.next_tick() == talk.now + 10
    channel.ack(1)
    core.take_output(talk.now + 8)
    core.tick(talk.now + 10)
    assert core.take_output(talk.now + 10) == b""


def test_silence_is_noticed(new_talk: Any) -> None:
    talk = new_talk(heartbeat=10.0).opened()
    talk.now += 15
    talk.reads(HEARTBEAT_FRAME)
    assert talk.core.tick(talk.now + 19.9) == []
    (event,) = talk.core.tick(talk.now + 20)
    assert isinstance(event, ConnectionEnded)
    assert isinstance(talk.core.error, ConnectionLost)
    assert "silent for 20 seconds" in str(talk.core.error)
    assert talk.core.next_tick() is None


def test_without_heartbeats_silence_is_golden(new_talk: Any) -> None:
    talk = new_talk(heartbeat=0.0).opened()
    assert talk.core.next_tick() is None
    assert talk.core.tick(1e9) == []


# ── anything ─────────────────────────────────────────────────────────────────────────────────────────────────

NAMES = ["basic.deliver", "basic.return", "basic.get-ok", "basic.ack", "channel.close", "connection.close",
         "queue.declare-ok", "basic.cancel", "channel.flow", "connection.blocked"]  # fmt: skip
payloads = st.builds(
    lambda name, tail: encode_method(name, {})[:4] + tail, st.sampled_from(NAMES), st.binary(max_size=30)
)
frames = st.builds(
    lambda kind, number, payload: struct.pack(">BHI", kind, number, len(payload)) + payload + b"\xce",
    st.sampled_from([1, 1, 2, 3, 8, 9]), st.sampled_from([0, 1, 1, 2, 77]), payloads | st.binary(max_size=30),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(frames | st.binary(max_size=20) | st.just(DELIVER + header(3) + body_frame(b"abc")), max_size=8))
def test_nothing_but_events_leaves_receive(pieces: list[bytes]) -> None:
    from celeriac.amqp.connection import Connection
    from celeriac.amqp.parameters import Parameters

    for opened in (True, False):
        core = Connection(Parameters(), 0.0)
        if opened:
            core.receive(method_frame(0, encode_method("connection.start", {"minor": 9, "mechanisms": "PLAIN"})), 0.0)
            core.receive(method_frame(0, encode_method("connection.tune", {})), 0.0)
            core.receive(method_frame(0, encode_method("connection.open-ok")), 0.0)
            channel, _ = core.open_channel()
            core.receive(method_frame(1, encode_method("channel.open-ok")), 0.0)
            channel.call("queue.declare", {})
            channel.confirm_select()
            channel.publish([publication(mandatory=True)])
        calls: list[Call] = []
        for piece in pieces:
            calls += [event for event in core.receive(piece, 0.0) if isinstance(event, Call)]
        assert core.error is None or isinstance(core.error, ConnectionClosed)
        assert len(calls) == len(set(calls))
