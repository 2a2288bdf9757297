"""What a worker's child needs: tasks by name, and the messages that follow an attempt."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from celeriac import Celeriac, Task
from celeriac.app.registry import AppRegistry
from celeriac.errors import ImproperlyConfigured, NotRegistered
from celeriac.wire.task_message import read_body


@pytest.fixture
def add(app: Celeriac) -> Any:
    @app.task(name="proj.add")
    def add(x, y=0):
        return x + y

    return add


def test_unknown_names(app: Celeriac, add: Any):
    registry = AppRegistry(app)
    assert registry.tasks["proj.add"] is add
    assert "nope" not in registry.tasks
    assert registry.tasks.get("nope") is None
    with pytest.raises(NotRegistered, match="nope"):
        registry.tasks["nope"]
    with pytest.raises(KeyError):
        app.tasks["nope"]
    with pytest.raises(NotRegistered):
        app.tasks.unregister("nope")
    app.tasks.unregister(add)
    assert "proj.add" not in app.tasks


def test_callbacks_get_the_result_first(app: Celeriac, add: Any, running: Any):
    message, _ = add.prepare((1,), {}, {"link": [add.s(5), add.si(6), app.signature("elsewhere", queue="other")]})
    with running(add, message) as context:
        follow_ups = AppRegistry(app).follow_ups(context, 3)
    assert [read_body(outgoing.envelope, None).args for outgoing in follow_ups] == [[3, 5], [6], [3]]
    assert [outgoing.route.routing_key for outgoing in follow_ups] == ["celery", "celery", "other"]
    for outgoing in follow_ups:
        assert outgoing.envelope.headers["parent_id"] == context.id
        assert outgoing.envelope.headers["root_id"] == context.id
    assert [child.id for child in context.children] == [outgoing.envelope.headers["id"] for outgoing in follow_ups]


def test_the_next_step_of_a_chain_takes_the_rest_along(app: Celeriac, add: Any, running: Any):
    third, second = add.s(30).set(task_id="third"), add.s(20).set(task_id="second", queue="q2", root_id="root")
    message, _ = add.prepare((1,), {}, {"chain": [third, second], "root_id": "root"})
    with running(add, message) as context:
        (outgoing,) = AppRegistry(app).follow_ups(context, 3)
    body = read_body(outgoing.envelope, None)
    assert outgoing.envelope.headers["id"] == "second"
    assert outgoing.route.routing_key == "q2"
    assert body.args == [3, 20]
    assert body.chain is not None
    assert [step["options"]["task_id"] for step in body.chain] == ["third"]
    with running(add, outgoing) as context:
        (last,) = AppRegistry(app).follow_ups(context, 4)
    assert last.envelope.headers["id"] == "third"
    assert last.envelope.headers["root_id"] == "root"
    assert read_body(last.envelope, None).chain is None


def test_errbacks_of_both_styles(app: Celeriac, add: Any, running: Any, caplog: pytest.LogCaptureFixture):
    seen: list[Any] = []

    @app.task
    def new_style(request, error, traceback, extra="none"):
        seen.append((request.id, error, extra, "boom" in traceback))

    @app.task
    def broken(request, error, traceback):
        raise KeyError("in the errback")

    @app.task
    def old_style(task_id):
        """Gets a message."""

    errbacks = [broken.s(), new_style.s("more"), old_style.s(), app.signature("elsewhere"), new_style.s()]
    message, _ = add.prepare((1,), {}, {"link_error": errbacks})
    error = ValueError("boom")
    with running(add, message) as context, caplog.at_level(logging.ERROR):
        outgoing = AppRegistry(app).errbacks(context, error)
    assert seen == [(context.id, error, "more", True), (context.id, error, "none", True)]
    assert [item.envelope.headers["task"] for item in outgoing] == [old_style.name, "elsewhere"]
    assert [read_body(item.envelope, None).args for item in outgoing] == [[context.id], [context.id]]
    assert "in the errback" in caplog.text


def test_workflows_as_callbacks_are_refused_by_name(app: Celeriac, add: Any, running: Any):
    group = {"task": "celery.group", "args": [], "kwargs": {}, "options": {}, "subtask_type": "group"}
    message, _ = add.prepare((1,), {}, {"link": group})
    with running(add, message) as context, pytest.raises(ImproperlyConfigured, match="group"):
        AppRegistry(app).follow_ups(context, 1)


def test_what_the_worker_asks_of_a_task(app: Celeriac):
    app.conf.update(
        task_time_limit=60, task_acks_on_failure_or_timeout=False, result_expires=3600, accept_content=["json"]
    )

    @app.task(acks_late=False, rate_limit="3/m", throws=KeyError, acks_on_failure=True, max_retries=None)
    def special():
        """Nothing."""

    options = special.runnable_options
    assert (options.acks_late, options.acks_on_failure, options.acks_on_timeout) == (False, True, False)
    assert (options.time_limit, options.soft_time_limit) == (60, None)
    assert (options.rate_limit, options.throws, options.max_retries) == ("3/m", (KeyError,), None)
    assert options.result_expires == 3600
    assert options.accept_content == {"json", "application/json"}
    special.rate_limit = None
    app.conf.task_default_rate_limit = "9/s"
    assert special.runnable_options.rate_limit == "9/s"
    assert special.is_coroutine is False


def test_the_pool_of_a_task_is_a_name_and_nothing_else_that_is_called_so(app: Celeriac):
    class Connected(Task[..., Any]):
        @property
        def pool(self) -> Any:  # type: ignore[override]  # as tasks for Celery may have it
            raise AssertionError("nobody needs a connection to start a worker")

    @app.task(pool="asyncio")
    def chosen():
        """Nothing."""

    @app.task(base=Connected)
    def connected():
        """Nothing."""

    @app.task
    def usual():
        """Nothing."""

    assert [one.runnable_options.pool for one in (chosen, connected, usual)] == ["asyncio", None, None]
    usual.pool = "threads"
    app.conf.task_time_limit = 60  # what is known of options is looked at anew
    assert usual.runnable_options.pool == "threads"
