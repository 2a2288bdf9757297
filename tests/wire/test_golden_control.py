"""Control requests, replies and events that a real Celery exchanged are read, and written by us say the same."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from celeriac.wire.control_message import decode_reply, decode_request, encode_reply, encode_request
from celeriac.wire.event_message import decode_events, encode_batch, encode_event, routing_key_of
from celeriac.wire.kombu_json import decode_envelope, encode_envelope

GOLDEN = json.loads((Path(__file__).parent / "golden" / "control.json").read_text())


def cases(kind: str) -> list[Any]:
    return [
        pytest.param(case, id=f"{n}-{case['name']}") for n, case in enumerate(GOLDEN["cases"]) if case["kind"] == kind
    ]


def test_there_are_golden_messages() -> None:
    assert len(cases("request")) > 30
    assert len(cases("reply")) > 30
    kinds = {case["name"] for case in GOLDEN["cases"] if case["kind"] == "event"}
    assert {"task-sent", "task-received", "task-started", "task-succeeded", "task-failed", "task-retried"} <= kinds
    assert {"task-revoked", "worker-online", "worker-heartbeat", "worker-offline"} <= kinds


def plain(envelope: bytes) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Headers, properties and body, without what is drawn anew for every message."""
    found = json.loads(envelope)
    found["properties"].pop("delivery_tag")
    return found["headers"], found["properties"], json.loads(base64.b64decode(found["body"]))


@pytest.mark.parametrize("case", cases("request"))
def test_requests(case: dict[str, Any]) -> None:
    data = case["envelope"].encode()
    envelope, route = decode_envelope(data)
    request = decode_request(envelope)
    assert request.method == case["name"]
    assert route.exchange == "celery.pidbox"
    again = encode_request(request, expires=envelope.headers["expires"])
    assert plain(encode_envelope(again, route)) == plain(data)


@pytest.mark.parametrize("case", cases("reply"))
def test_replies(case: dict[str, Any]) -> None:
    data = case["envelope"].encode()
    envelope, route = decode_envelope(data)
    reply = decode_reply(envelope)
    [(node, said)] = reply.by_node.items()
    assert node == "w1@golden"
    assert reply.ticket == case["name"]
    assert case["key"] == f"{route.routing_key}.reply.celery.pidbox"
    again = encode_reply(node, said, ticket=reply.ticket, clock=reply.clock)
    assert plain(encode_envelope(again, route)) == plain(data)


@pytest.mark.parametrize("case", cases("event"))
def test_events(case: dict[str, Any]) -> None:
    data = case["envelope"].encode()
    envelope, route = decode_envelope(data)
    heard = decode_events(envelope)
    assert heard.refused == 0
    assert ",".join(event["type"] for event in heard.events) == case["name"]
    batched = route.routing_key == "task.multi"
    assert batched or route.routing_key == routing_key_of(heard.events[0]["type"])
    again = encode_batch(heard.events) if batched else encode_event(heard.events[0])
    assert plain(encode_envelope(again, route)) == plain(data)
