"""Messages become deliveries, copies and epitaphs; nothing in them raises."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from celeriac.amqp.messages import Message, Publication
from celeriac.amqp.properties import encode_properties
from celeriac.transports.amqp import delays
from celeriac.transports.amqp.burial import burial, exhumed, grave_of, grave_spec, read_grave
from celeriac.transports.amqp.deliveries import Deliveries, counted
from celeriac.transports.base import Bury, Route
from celeriac.transports.epitaph import read_epitaph


def message(
    headers: dict[str, Any] | None = None, exchange: str = "", key: str = "celery", raw: bytes | None = None,
    redelivered: bool = False, oversize: int = 0,
) -> Message:  # fmt: skip
    if raw is None:
        raw = encode_properties({"content_type": "application/json", "correlation_id": "i"}, headers or {})
    return Message(exchange, key, 7, redelivered, "tag", raw, b"body", oversize)


def test_headers_and_properties_arrive() -> None:
    found = Deliveries("celery", 3).read(message({"id": "i", "task": "t"}), (1, 7))
    assert found.envelope.headers == {"id": "i", "task": "t"}
    assert found.envelope.properties == {"content_type": "application/json", "correlation_id": "i"}
    assert (found.queue, found.receipt, found.route) == ("celery", (1, 7), Route("", "celery"))
    assert (found.attempt, found.redelivered, found.malformed) == (0, False, None)


def test_counted_starts_are_read_and_removed() -> None:
    found = Deliveries("celery", 3).read(message({"id": "i", "x-celeriac-attempts": 2}), None)
    assert (found.attempt, found.redelivered) == (2, True)
    assert found.envelope.headers == {"id": "i"}


@pytest.mark.parametrize("nonsense", ["2", -1, True, None, [1]])
def test_nonsense_is_not_counted(nonsense: Any) -> None:
    found = Deliveries("celery", 3).read(message({"x-celeriac-attempts": nonsense, "x-delivery-count": nonsense}), None)
    assert found.attempt == 0
    assert not found.envelope.headers


@pytest.mark.parametrize(("deliveries", "attempt"), [(1, 0), (2, 0), (3, 3), (500, 3)])
def test_deliveries_of_a_quorum_queue_only_make_suspect(deliveries: int, attempt: int) -> None:
    found = Deliveries("celery", 3).read(message({"x-delivery-count": deliveries}, redelivered=True), None)
    assert found.attempt == attempt
    more = Deliveries("celery", 3).read(message({"x-delivery-count": 9, "x-celeriac-attempts": 4}), None)
    assert more.attempt == 4


def test_a_delayed_message_is_as_if_sent_to_its_queue() -> None:
    key = delays.delayed_key(5, "celery")
    assert key is not None
    deaths = {"x-death": [{"queue": "celery_delayed_2"}], "x-first-death-queue": "celery_delayed_2", "id": "i"}
    found = Deliveries("celery", 3).read(message(deaths, delays.EXIT, key), None)
    assert found.route == Route("", "celery")
    assert found.envelope.headers == {"id": "i"}
    # deaths on other ways are the user's
    other = Deliveries("celery", 3).read(message(deaths, "dlx", "celery"), None)
    assert other.route == Route("dlx", "celery")
    assert "x-death" in other.envelope.headers


def test_what_cannot_be_read_is_handed_on_as_such() -> None:
    torn = Deliveries("celery", 3).read(message(raw=b"\x20\x00\x00\x00\x00\xff"), None)
    assert torn.malformed
    assert torn.envelope.body == b"body"
    large = Deliveries("celery", 3).read(message(oversize=1 << 40), None)
    assert large.malformed is not None
    assert str(1 << 40) in large.malformed


def test_a_copy_is_counted_and_free_of_the_brokers_marks() -> None:
    headers = {"id": "i", "x-death": [], "x-last-death-queue": "q", "x-delivery-count": 3}
    assert counted(headers, 0) == {"id": "i"}
    assert counted(headers, 1) == {"id": "i", "x-celeriac-attempts": 1}
    assert counted({"x-celeriac-attempts": 2}, 1) == {"x-celeriac-attempts": 3}


def test_an_epitaph_keeps_every_byte() -> None:
    buried = message({"id": "i", "nested": {"a": [1]}})
    publication = burial(buried, "celery", Bury(reason="no \udcff", quarantine=True, worker="w"), 12.5, 60.0)
    assert publication.routing_key == grave_of("celery", True) == "celery.quarantine"
    assert publication.properties["expiration"] == "60000"
    epitaph = msgspec.json.decode(publication.body)
    assert (epitaph["reason"], epitaph["queue"], epitaph["worker"], epitaph["buried_at"]) == (
        "no ?", "celery", "w", 12.5,
    )  # fmt: skip
    assert base64.b64decode(epitaph["payload"]) == b"body"
    assert read_epitaph(publication.body).payload == b"body", "any broker's reader understands it"
    lying = in_grave(publication)
    found = read_grave(lying, "celery", True)
    assert found.envelope is not None
    assert found.envelope.headers == {"id": "i", "nested": {"a": [1]}}
    again = exhumed(lying, "celery")
    assert again is not None
    assert again.headers == buried.headers_bytes, "not even decoded"
    assert (again.routing_key, again.body) == ("celery", b"body")
    assert again.properties == buried.properties


def in_grave(publication: Publication) -> Message:
    raw = encode_properties(publication.properties, None)
    return Message("", publication.routing_key, 1, False, "", raw, publication.body)


def test_starts_are_told_in_the_epitaph_and_forgotten_by_a_replay() -> None:
    buried = message({"id": "i", "x-celeriac-attempts": 3})
    lying = in_grave(burial(buried, "q", Bury(reason="too often"), 0.0, 0.0))
    found = read_grave(lying, "q", False)
    assert found.attempts == 3
    again = exhumed(lying, "q")
    assert again is not None
    assert again.headers == {"id": "i"}


def test_torn_messages_are_kept_raw() -> None:
    raw = b"\x20\x00\x00\x00\x00\xff"
    lying = in_grave(burial(message(raw=raw), "q", Bury(reason="torn", quarantine=True), 0.0, 0.0))
    found = read_grave(lying, "q", True)
    assert (found.envelope, found.raw, found.reason) == (None, b"body", "torn")
    assert exhumed(lying, "q") is None
    assert base64.b64decode(msgspec.json.decode(lying.body)["content_header"]) == raw


def test_what_somebody_else_put_into_a_grave_is_told() -> None:
    odd = Message("", "q.dead", 1, False, "", encode_properties({}, None), b"\xff\x00")
    found = read_grave(odd, "q", False)
    assert found.raw == b"\xff\x00"
    assert "Not an epitaph" in found.reason
    assert exhumed(odd, "q") is None


def test_a_grave_is_of_the_type_of_its_queue() -> None:
    spec = grave_spec("celery.dead", {"x-queue-type": "quorum", "x-max-priority": 9})
    assert spec.arguments == {"x-queue-type": "quorum"}
    assert not spec.exchange
