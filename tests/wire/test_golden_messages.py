"""Messages that a real Celery published are read as Celery's own worker reads them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from celeriac.errors import ContentDisallowed
from celeriac.wire.kombu_json import decode_envelope, encode_envelope
from celeriac.wire.serializers import accept_set
from celeriac.wire.task_message import normalize, read_body, timestamp_of

GOLDEN = json.loads((Path(__file__).parent / "golden" / "messages.json").read_text())
CASES = [pytest.param(case, id=case["name"]) for case in GOLDEN["cases"]]
EVERYTHING = accept_set(["json", "pickle", "yaml", "msgpack"])


def test_there_are_golden_messages() -> None:
    assert len(CASES) > 40
    assert {case["expect"]["protocol"] for case in GOLDEN["cases"]} == {1, 2}


@pytest.mark.parametrize("case", CASES)
def test_body_and_headers_are_read_as_celery_reads_them(case: dict[str, Any]) -> None:
    expect = case["expect"]
    envelope, route = decode_envelope(base64.b64decode(case["envelope"]))
    assert route.exchange == expect["delivery_info"]["exchange"]
    assert route.routing_key == expect["delivery_info"]["routing_key"]
    assert envelope.properties["priority"] == expect["priority"]
    assert ("expiration" in envelope.properties) is expect["expiration"]

    normal = normalize(envelope, accept=EVERYTHING)
    if expect["protocol"] == 2:
        assert normal is envelope
    body = read_body(normal, EVERYTHING)
    assert repr(body.args) == expect["args"]
    assert repr(body.kwargs) == expect["kwargs"]
    embed = {"callbacks": body.callbacks, "errbacks": body.errbacks, "chain": body.chain, "chord": body.chord}
    assert {key: repr(value) for key, value in embed.items()} == expect["embed"]
    for key, value in expect["headers"].items():
        if key.endswith("repr") and not value.isprintable():
            continue  # Celery passes control characters on to logs and terminals, we escape them
        assert normal.headers[key] == value, key


@pytest.mark.parametrize("case", CASES)
def test_times_become_seconds(case: dict[str, Any]) -> None:
    headers = case["expect"]["headers"]
    if case["name"].endswith("eta and expires"):
        assert timestamp_of(headers["eta"]) == 2082855845.678901
    if headers.get("expires"):
        assert timestamp_of(headers["expires"]) == 2082924000.0


@pytest.mark.parametrize("case", CASES)
def test_our_envelope_of_the_same_message_says_the_same(case: dict[str, Any]) -> None:
    data = base64.b64decode(case["envelope"])
    theirs = json.loads(data)
    envelope, route = decode_envelope(data)
    ours = json.loads(encode_envelope(envelope, route, delivery_tag=theirs["properties"]["delivery_tag"]))
    assert ours == theirs


@pytest.mark.parametrize("case", [case for case in CASES if "pickle" in case.values[0]["name"]])
def test_pickle_is_refused_unless_it_was_asked_for(case: dict[str, Any]) -> None:
    envelope, _ = decode_envelope(base64.b64decode(case["envelope"]))
    harmless = accept_set(["json", "yaml", "msgpack"])
    with pytest.raises(ContentDisallowed):
        read_body(normalize(envelope, accept=harmless), harmless)
    with pytest.raises(ContentDisallowed):
        read_body(normalize(envelope), None)
