"""Options of a call become headers, properties and routes; senseless ones are refused by name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.errors import EncodeError, QueueNotFound
from celeriac.wire.task_message import timestamp_of


@pytest.fixture
def add(app: Celeriac) -> Any:
    @app.task(name="proj.add")
    def add(x, y=0):
        return x + y

    return add


def test_a_plain_call(add: Any, sent: Any):
    result = add.delay(2, y=3)
    assert sent.headers["task"] == "proj.add"
    assert sent.headers["id"] == sent.headers["root_id"] == result.id
    assert sent.headers["parent_id"] is None
    assert sent.headers["ignore_result"] is False
    assert sent.headers["origin"].startswith("gen")
    assert sent.body[:2] == ([2], {"y": 3})
    assert sent.properties["correlation_id"] == result.id
    assert sent.last.route.exchange == ""
    assert sent.last.route.routing_key == "celery"
    assert sent.last.not_before is None


def test_the_template_of_plain_calls_is_what_a_call_with_options_would_send(app: Celeriac):
    @app.task(queue="mail", priority=3, time_limit=9, soft_time_limit=5, serializer="msgpack", ignore_result=True)
    def mail():
        """Nothing."""

    plain, _ = mail.prepare((), {}, {})
    with_option, _ = mail.prepare((), {}, {"task_id": plain.envelope.headers["id"]})
    assert plain.envelope == with_option.envelope
    assert plain.route == with_option.route
    assert plain.route.routing_key == "mail"
    assert plain.envelope.headers["timelimit"] == [9, 5]
    assert plain.envelope.properties["priority"] == 3
    assert plain.envelope.properties["content_type"] == "application/x-msgpack"


def test_countdown_sets_the_time_in_header_and_envelope(add: Any, sent: Any):
    before = datetime.now(UTC)
    add.apply_async((1,), countdown=60)
    eta = datetime.fromisoformat(sent.headers["eta"])
    assert timedelta(seconds=59) < eta - before < timedelta(seconds=62)
    assert sent.last.not_before == eta.timestamp()


@pytest.mark.parametrize("countdown", ["60", 60.0, timedelta(minutes=1)])
def test_countdown_may_be_text_or_a_timedelta(add: Any, sent: Any, countdown: Any):
    add.apply_async((1,), countdown=countdown)
    eta = datetime.fromisoformat(sent.headers["eta"])
    assert timedelta(seconds=58) < eta - datetime.now(UTC) < timedelta(seconds=61)


def test_a_naive_eta_is_in_the_zone_of_the_app():
    app = Celeriac("zone", broker="recording://", timezone="Europe/Berlin")

    @app.task
    def later():
        """Nothing."""

    outgoing, _ = later.prepare((), {}, {"eta": datetime(2030, 1, 1, 12)})
    assert outgoing.envelope.headers["eta"] == "2030-01-01T12:00:00+01:00"


def test_an_aware_eta_and_text_travel_as_they_are(add: Any, sent: Any):
    add.apply_async((1,), eta=datetime(2030, 1, 1, tzinfo=timezone(timedelta(hours=3))))
    assert sent.headers["eta"] == "2030-01-01T00:00:00+03:00"
    add.apply_async((1,), eta="2030-01-01T00:00:00Z", expires="2031-01-01T00:00:00")
    assert sent.headers["eta"] == "2030-01-01T00:00:00Z"
    assert sent.headers["expires"] == "2031-01-01T00:00:00"
    assert sent.last.expires == timestamp_of("2031-01-01T00:00:00")


def test_expires_in_seconds_is_counted_from_each_call(app: Celeriac, sent: Any):
    @app.task(expires=30)
    def short():
        """Nothing."""

    short.delay()
    first = sent.last.expires
    assert first is not None
    short.delay()
    assert sent.last.expires is not None
    assert sent.last.expires > first
    short.apply_async(expires=None)
    assert sent.headers["expires"] is None


def test_routes_are_under_task_attributes_under_the_call():
    app = Celeriac("routes", broker="recording://", task_routes={"routes.*": {"queue": "routed", "priority": 1}})

    @app.task(name="routes.a")
    def plain():
        """Nothing."""

    @app.task(name="routes.b", queue="attribute")
    def placed():
        """Nothing."""

    def queue_and_priority(task: Any, **options: Any) -> tuple[str, int]:
        outgoing, _ = task.prepare((), {}, options)
        return outgoing.route.routing_key, outgoing.envelope.properties["priority"]

    assert queue_and_priority(plain) == ("routed", 1)
    assert queue_and_priority(placed) == ("attribute", 1)
    assert queue_and_priority(placed, queue="call", priority=7) == ("call", 7)


def test_a_route_function_is_asked_for_each_call():
    def route(name, args, kwargs, options, task=None, **_):
        return {"queue": f"q{args[0]}"}

    app = Celeriac("dynamic", broker="recording://", task_routes=(route,))

    @app.task
    def numbered(n):
        """Nothing."""

    for number in (1, 2):
        outgoing, _ = numbered.prepare((number,), {}, {})
        assert outgoing.route.routing_key == f"q{number}"


def test_a_queue_bound_to_an_exchange_is_declared_once(app: Celeriac, add: Any):
    transport: Any = app.transport
    for _ in range(2):
        add.apply_async((1,), exchange="media", routing_key="video.x", exchange_type="topic")
    route = transport.sent.last.route
    assert (route.exchange, route.routing_key, route.exchange_type) == ("media", "video.x", "topic")
    assert [queue.name for queue in transport.declared] == ["celery"]


def test_missing_queues_can_be_forbidden():
    app = Celeriac("strict", broker="recording://", task_create_missing_queues=False)

    @app.task
    def lost():
        """Nothing."""

    lost.delay()
    with pytest.raises(QueueNotFound, match="'nowhere'"):
        lost.apply_async(queue="nowhere")


def test_headers_properties_and_the_rest(add: Any, sent: Any):
    add.apply_async(
        (1,), task_id="my-id", headers={"my": "header"}, MessageGroupId="g1", shadow="shown", reply_to="there",
        retries=2, group_id="g", group_index=4, root_id="r", parent_id="p", compression="gzip",
        delivery_mode="transient", replaced_task_nesting=1, time_limit=10, soft_time_limit=5, ignore_result=True,
    )  # fmt: skip
    headers, properties = sent.headers, sent.properties
    assert headers["my"] == "header"
    assert (headers["id"], headers["root_id"], headers["parent_id"]) == ("my-id", "r", "p")
    assert (headers["group"], headers["group_index"]) == ("g", 4)
    assert (headers["shadow"], headers["retries"], headers["replaced_task_nesting"]) == ("shown", 2, 1)
    assert headers["timelimit"] == [10, 5]
    assert headers["ignore_result"] is True
    assert headers["compression"] == "application/x-gzip"
    assert properties["MessageGroupId"] == "g1"
    assert properties["reply_to"] == "there"
    assert properties["delivery_mode"] == 1
    assert sent.body.args == [1]


def test_options_that_choose_the_means_of_sending_do_not_travel(add: Any, sent: Any):
    add.apply_async((1,), producer=object(), connection=object(), router=None, declare=[], mandatory=True)
    assert set(sent.properties) == {
        "content_type", "content_encoding", "correlation_id", "reply_to", "delivery_mode", "priority",
    }  # fmt: skip


def test_callbacks_travel_in_the_body(add: Any, sent: Any):
    add.apply_async((1,), link=add.s(5), link_error=[add.si(9), {"task": "other", "args": []}])
    body = sent.body
    assert body.callbacks == [
        {"task": "proj.add", "args": [5], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
    ]
    assert body.errbacks is not None
    assert [errback["task"] for errback in body.errbacks] == ["proj.add", "other"]


def test_stamps(add: Any, sent: Any):
    add.apply_async((1,), stamped_headers=["tenant"], tenant="acme")
    assert sent.headers["stamped_headers"] == ["tenant"]
    assert sent.headers["stamps"] == {"tenant": "acme"}
    assert "tenant" not in sent.properties


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"countdown": "soon"}, TypeError, "countdown of proj.add must be a number of seconds, not 'soon'"),
        ({"countdown": True}, TypeError, "countdown"),
        ({"countdown": 1e300}, ValueError, "out of range"),
        ({"eta": 5}, TypeError, "eta of proj.add must be a datetime"),
        ({"eta": "tomorrow"}, ValueError, "eta of proj.add is not ISO-8601 text: 'tomorrow'"),
        ({"expires": []}, TypeError, "expires of proj.add"),
        ({"priority": "high"}, ValueError, "priority of proj.add must be a whole number from 0 to 255"),
        ({"priority": 300}, ValueError, "priority"),
        ({"time_limit": 0}, ValueError, "time_limit of proj.add must be a number of seconds above 0"),
        ({"time_limit": 5, "soft_time_limit": 6}, ValueError, "soft_time_limit of proj.add must not be above"),
        ({"task_id": "a b"}, ValueError, "task_id of proj.add"),
        ({"task_id": "x" * 256}, ValueError, "task_id"),
        ({"link": "other"}, TypeError, "link of proj.add takes signatures"),
        ({"headers": ["a"]}, TypeError, "headers of proj.add must be a mapping"),
        ({"delivery_mode": 3}, ValueError, "delivery_mode of proj.add"),
        ({"queue": 5}, TypeError, "queue must be"),
        ({"retry_policy": {"max_retries": "many"}}, ValueError, "max_retries of retry_policy"),
    ],
)
def test_senseless_options_are_refused(add: Any, sent: Any, options: dict[str, Any], error: type[Exception], text: str):
    with pytest.raises(error, match=text):
        add.apply_async((1,), **options)
    assert not sent


def test_arguments_that_do_not_fit_are_refused_where_the_call_is_made(add: Any, sent: Any):
    for wrong in (
        lambda: add.delay(),
        lambda: add.delay(1, 2, 3),
        lambda: add.delay(1, z=1),
        lambda: add.delay(1, x=1),
    ):
        with pytest.raises(TypeError, match=r"add\(\)"):
            wrong()
    assert not sent


def test_typing_can_be_switched_off(app: Celeriac, sent: Any):
    @app.task(typing=False)
    def loose(x):
        """Nothing."""

    loose.delay(1, 2, 3)
    assert sent.body.args == [1, 2, 3]


def test_arguments_that_cannot_travel(add: Any, sent: Any):
    with pytest.raises(EncodeError):
        add.delay(object())
    assert not sent


def test_a_change_of_settings_or_attributes_counts_from_the_next_call(app: Celeriac, add: Any, sent: Any):
    add.delay(1)
    app.conf.task_default_queue = "other"
    add.delay(1)
    assert sent.last.route.routing_key == "other"
    add.queue = "third"
    add.delay(1)
    assert sent.last.route.routing_key == "third"


def test_children_inherit_lineage_priority_and_stamps(app: Celeriac, add: Any, running: Any):
    app.conf.task_inherit_parent_priority = True
    parent, _ = add.prepare((1,), {}, {"priority": 6, "root_id": "root", "stamped_headers": ["s"], "s": 1})
    with running(add, parent) as context:
        result = add.delay(2)
        child = app.transport.sent.last.envelope  # type: ignore[attr-defined]
        assert child.headers["root_id"] == "root"
        assert child.headers["parent_id"] == context.id
        assert child.headers["stamps"] == {"s": 1}
        assert child.properties["priority"] == 6
        assert context.children == [result]
        add.apply_async((2,), add_to_parent=False)
        app.send_task("elsewhere")
    assert [child.id for child in context.children] != [result.id]
    assert len(context.children) == 2


def test_no_trail_no_children(app: Celeriac, running: Any):
    @app.task(trail=False)
    def quiet():
        """Nothing."""

    parent, _ = quiet.prepare((), {}, {})
    with running(quiet, parent) as context:
        quiet.delay()
    assert context.children == []


def test_many_calls_share_batches(app: Celeriac, add: Any):
    transport: Any = app.transport
    results = add.delay_many((number, 1) for number in range(2500))
    assert transport.batches == [1000, 1000, 500]
    assert [outgoing.envelope.headers["id"] for outgoing in transport.sent] == [result.id for result in results]
    assert transport.sent.body.args == [2499, 1]
    with pytest.raises(TypeError, match="tuple of arguments"):
        add.delay_many([5])
    with pytest.raises(TypeError, match=r"add\(\)"):
        add.delay_many([()])


def test_many_signatures_share_batches(app: Celeriac, add: Any):
    transport: Any = app.transport
    results = app.send_many([add.s(1), app.signature("elsewhere", args=(2,), queue="other")])
    assert transport.batches == [2]
    assert [outgoing.route.routing_key for outgoing in transport.sent] == ["celery", "other"]
    assert len(results) == 2


def test_send_task_leaves_the_result_to_the_worker(app: Celeriac, sent: Any):
    app.send_task("elsewhere.task", (1,), {"a": 2}, countdown=1)
    assert sent.headers["task"] == "elsewhere.task"
    assert sent.headers["ignore_result"] is None
    assert sent.body[:2] == ([1], {"a": 2})


def test_send_task_uses_the_options_of_a_task_that_is_here(app: Celeriac, sent: Any):
    @app.task(name="here", queue="mail", ignore_result=True)
    def here(x):
        """Nothing."""

    app.send_task("here", ())
    assert sent.last.route.routing_key == "mail"
    assert sent.headers["ignore_result"] is None
