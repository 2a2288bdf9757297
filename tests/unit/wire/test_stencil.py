"""Stencils write what ``encode_task`` writes, and share nothing that can be changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from celeriac.errors import EncodeError
from celeriac.wire.envelope import Route
from celeriac.wire.kombu_json import decode_envelope, encode_envelope
from celeriac.wire.stencil import Stencil, fits
from celeriac.wire.task_message import TaskCall, encode_task

SHARED: dict[str, Any] = {
    "task": "shop.pay", "origin": "gen1@host", "ignore_result": False, "time_limit": 30.0, "soft_time_limit": 20.0,
    "priority": 4, "delivery_mode": 1, "shadow": "pay", "reply_to": "here",
}  # fmt: skip
NESTED: Any = [[[[1, {"a": (2,)}]]]]


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}), ((1, "zwei", 3.5, None, True), {"a": 1}), ([1], {"b": [1, {"c": None}]}), ((NESTED,), {"n": NESTED}),
        ((datetime(2030, 1, 1, tzinfo=UTC), b"\xff", float("nan")), {}), (("\ud800",), {}), ((), {"d": {1: 2}}),
        (("x" * 2000,), {"y": "'\"\\"}), (range(3), {}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("shared", [SHARED, {"task": "t", "repr_levels": 1}])
def test_its_messages_are_those_of_encode_task(shared: dict[str, Any], args: Any, kwargs: Any) -> None:
    model = TaskCall(id="model", args=("other",), kwargs={"other": 1}, **shared)
    assert fits(TaskCall(id="model", **shared))
    written = Stencil(TaskCall(id="model", **shared)).write("an-id", args, kwargs, None)
    expected = encode_task(TaskCall(id="an-id", args=args, kwargs=kwargs, **shared), 0.0)
    assert (written.body, written.headers, written.properties) == (
        expected.body, expected.headers, expected.properties
    )  # fmt: skip
    assert list(written.headers) == list(expected.headers)
    assert model.id == "model"


def test_on_the_wire_they_are_the_same_too() -> None:
    call = TaskCall(id="an-id", args=(1, "ü"), **SHARED)
    route = Route("", "q")
    written = Stencil(TaskCall(id="", **SHARED)).write("an-id", call.args, {}, None)
    assert encode_envelope(written, route, "tag") == encode_envelope(encode_task(call, 0.0), route, "tag")
    assert decode_envelope(encode_envelope(written, route))[0].headers == written.headers


def test_two_messages_share_nothing_that_can_be_changed() -> None:
    stencil = Stencil(TaskCall(id="", **SHARED))
    first = stencil.write("1", (), {}, None)
    first.headers["timelimit"].append("changed")
    first.headers["stamps"]["changed"] = 1
    first.headers["more"] = first.properties["more"] = 1
    second = stencil.write("2", (), {}, None)
    assert second.headers == encode_task(TaskCall(id="2", **SHARED), 0.0).headers
    assert "more" not in second.properties


def test_replies_go_where_the_call_says() -> None:
    assert Stencil(TaskCall(task="t", id="", reply_to="model")).write("1", (), {}, None).properties["reply_to"] == (
        "model"
    )  # fmt: skip
    assert Stencil(TaskCall(task="t", id="")).write("1", (), {}, "mine").properties["reply_to"] == "mine"


@pytest.mark.parametrize(
    "more",
    [
        {"eta": "2030-01-01T00:00:00Z"}, {"expires": "2030-01-01T00:00:00Z"}, {"root_id": "r"}, {"compression": "gzip"},
        {"serializer": "yaml"}, {"protocol": 1}, {"chain": [1]}, {"callbacks": [1]}, {"headers": {"id": "other"}},
        {"properties": {"correlation_id": "other"}}, {"stamps": {"a": 1}}, {"argsrepr": "(...)"},
    ],
)  # fmt: skip
def test_calls_with_more_to_them_do_not_fit(more: dict[str, Any]) -> None:
    assert not fits(TaskCall(task="t", id="", **more))


def test_what_cannot_be_sent_is_told_as_ever() -> None:
    stencil = Stencil(TaskCall(task="shop.pay", id=""))
    with pytest.raises(EncodeError, match=r"task 'shop.pay' cannot be sent"):
        stencil.write("1", (object(),), {}, None)
    with pytest.raises(TypeError, match="must be a list or tuple"):
        stencil.write("1", "text", {}, None)
    with pytest.raises(TypeError, match="must be a mapping"):
        stencil.write("1", (), [1], None)  # type: ignore[arg-type]
