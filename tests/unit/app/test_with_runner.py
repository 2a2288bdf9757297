"""Tasks under the very code that runs them in a worker: what goes in as a message comes out as an outcome."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.app.registry import AppRegistry
from celeriac.errors import Ignore, Reject, Retry, TimeLimitExceeded
from celeriac.executors.base import Failed, Ignored, Outgoing, Rejected, Request, Succeeded, WantsRetry
from celeriac.executors.runner import Runner
from celeriac.ids import task_id
from celeriac.wire.failure import exception_to_wire
from celeriac.wire.result_record import decode_record
from celeriac.wire.task_message import read_body


@pytest.fixture
def app() -> Celeriac:
    return Celeriac("ran", broker="recording://", backend=f"memory://{task_id()}")


@pytest.fixture
def run(app: Celeriac) -> Any:
    def run(outgoing: Outgoing) -> Any:
        runner = Runner(AppRegistry(app), "w1@here")
        headers = outgoing.envelope.headers
        request = Request(
            id=headers["id"], task=headers["task"], message=outgoing.envelope, queue=outgoing.route.routing_key,
            exchange=outgoing.route.exchange, routing_key=outgoing.route.routing_key, redelivered=False, delivery=1,
            hard_limit=None, soft_limit=None,
        )  # fmt: skip
        return asyncio.run(runner.arun(request)) if runner.is_coroutine(request) else runner.run(request)

    return run


def meta(outcome: Any) -> dict[str, Any]:
    assert outcome.record is not None
    return decode_record(outcome.record)


def test_success_with_a_callback(app: Celeriac, run: Any):
    @app.task
    def add(x, y):
        return x + y

    outcome = run(add.prepare((1, 2), {}, {"link": add.s(10)})[0])
    assert isinstance(outcome, Succeeded)
    assert meta(outcome)["result"] == 3
    (callback,) = outcome.sends
    assert meta(outcome)["children"] == [[[callback.envelope.headers["id"], None], None]]
    assert meta(run(callback))["result"] == 13


def test_children_are_recorded(app: Celeriac, run: Any):
    @app.task
    def inner():
        """Nothing."""

    @app.task(bind=True)
    def outer(self):
        return inner.delay().id, self.request.called_directly, self.request.hostname

    outcome = run(outer.prepare((), {}, {})[0])
    child, directly, hostname = meta(outcome)["result"]
    assert meta(outcome)["children"] == [[[child, None], None]]
    assert (directly, hostname) == (False, "w1@here")


def test_a_retry_runs_again_until_it_succeeds(app: Celeriac, run: Any):
    @app.task(bind=True)
    def stubborn(self, x):
        if self.request.retries < 2:
            raise self.retry(exc=OSError("not yet"), countdown=0, kwargs={"x": x + 1})
        return x

    first, _ = stubborn.prepare((1,), {}, {})
    outcome = run(first)
    assert isinstance(outcome, WantsRetry)
    assert meta(outcome)["status"] == "RETRY"
    outcome = run(outcome.sends[0])
    outcome = run(outcome.sends[0])
    assert isinstance(outcome, Succeeded)
    assert outcome.id == first.envelope.headers["id"]
    assert meta(outcome)["result"] == 3


@pytest.mark.parametrize(("then", "kind"), [("return", Succeeded), ("ignore", Ignored), ("raise", WantsRetry)])
def test_a_retry_that_is_not_thrown_is_sent_once(app: Celeriac, run: Any, then: str, kind: type):
    @app.task(bind=True)
    def quiet(self):
        asked = self.retry(throw=False, countdown=5)
        assert isinstance(asked, Retry)
        if then == "ignore":
            raise Ignore
        if then == "raise":
            raise asked
        return "done"

    outcome = run(quiet.prepare((), {}, {})[0])
    assert isinstance(outcome, kind)
    assert [item.envelope.headers["retries"] for item in outcome.sends] == [1]


def test_failure_calls_errbacks(app: Celeriac, run: Any):
    seen: list[str] = []

    @app.task
    def note(request, error, traceback):
        seen.append(f"{request.task}: {error!r}")

    @app.task
    def by_id(failed_id):
        """Gets a message."""

    @app.task(name="boom")
    def boom():
        raise ValueError("x")

    outcome = run(boom.prepare((), {}, {"link_error": [note.s(), by_id.s()]})[0])
    assert isinstance(outcome, Failed)
    assert seen == ["boom: ValueError('x')"]
    assert [read_body(item.envelope, None).args for item in outcome.sends] == [[outcome.id]]


def test_coroutines_see_their_request(app: Celeriac, run: Any):
    @app.task(bind=True)
    async def later(self, x):
        await asyncio.sleep(0)
        return [x, self.request.id]

    outcome = run(later.prepare((5,), {}, {"task_id": "mine"})[0])
    assert meta(outcome)["result"] == [5, "mine"]


def test_progress_is_stored_while_the_task_runs(app: Celeriac, run: Any):
    @app.task(bind=True)
    def work(self):
        self.update_state(state="PROGRESS", meta={"done": 1})
        return app.AsyncResult(self.request.id).info

    assert meta(run(work.prepare((), {}, {})[0]))["result"] == {"done": 1}


def test_a_task_that_calls_itself_or_another_keeps_its_own_request(app: Celeriac, run: Any):
    seen: list[Any] = []

    @app.task(bind=True, max_retries=5)
    def other(self):
        seen.append(("other", self.request.called_directly, countdown.request.id))

    @app.task(bind=True)
    def countdown(self, n):
        seen.append((n, self.request.called_directly, self.request_stack.top is self.request))
        if n:
            self(n - 1)
            other()
        return self.request.id

    outcome = run(countdown.prepare((1,), {}, {"task_id": "top"})[0])
    assert meta(outcome)["result"] == "top"
    assert seen == [(1, False, True), (0, True, True), ("other", True, "top")]
    assert countdown.request_stack.top is None


def test_many_calls_from_within_a_task(app: Celeriac, run: Any):
    transport: Any = app.transport

    @app.task
    def part(n):
        """Nothing."""

    @app.task
    def whole():
        return [result.id for result in part.delay_many((n,) for n in range(1500))]

    outcome = run(whole.prepare((), {}, {"task_id": "whole"})[0])
    assert transport.batches == [1000, 500]
    assert {item.envelope.headers["parent_id"] for item in transport.sent} == {"whole"}
    assert [child[0][0] for child in meta(outcome)["children"]] == meta(outcome)["result"]


def test_state_of_a_task_object_lives_on_and_costs_no_planning(app: Celeriac, run: Any):
    @app.task(bind=True)
    def counter(self):
        self.count = getattr(self, "count", 0) + 1
        return self.count

    message, _ = counter.prepare((), {}, {})
    plan = counter._plan
    assert [meta(run(message))["result"] for _ in range(2)] == [1, 2]
    assert counter._plan is plan
    counter.queue = "other"
    assert counter._plan is None


def test_what_the_parent_calls_failed_is_concluded_and_not_run(app: Celeriac):
    told: list[Any] = []

    @app.task
    def endless(x):
        raise AssertionError("it is not to be run")

    @app.task
    def by_error(request, error, traceback):
        told.append(("errback", request.id, request.args, type(error)))

    @app.task
    def by_id(task_id):
        """Gets a message."""

    endless.on_failure = lambda error, task_id, args, kwargs, einfo: told.append(("hook", task_id, args, type(error)))
    message, _ = endless.prepare((1,), {}, {"task_id": "t1", "link_error": [by_error.s(), by_id.s()]})
    request = Request(
        id="t1", task=endless.name, message=message.envelope, queue="celery", exchange="", routing_key="celery",
        redelivered=False, delivery=1, hard_limit=60.0, soft_limit=None,
        failure=exception_to_wire(TimeLimitExceeded(2.5)),
    )  # fmt: skip
    runner = Runner(AppRegistry(app), "w1@here")
    assert not runner.is_coroutine(request)
    outcome = runner.run(request)
    assert isinstance(outcome, Failed)
    assert told == [("errback", "t1", [1], TimeLimitExceeded), ("hook", "t1", [1], TimeLimitExceeded)]
    assert [sent.envelope.headers["task"] for sent in outcome.sends] == [by_id.name]
    assert repr(meta(outcome)["result"]) == "TimeLimitExceeded(2.5)"


def test_a_rejected_task_has_failed_for_its_error_callbacks(app: Celeriac, run: Any):
    @app.task
    def refuses(requeue):
        raise Reject("no", requeue=requeue)

    @app.task
    def by_id(task_id):
        """Gets a message."""

    for requeue, told in ((False, 1), (True, 0)):
        outcome = run(refuses.prepare((requeue,), {}, {"link_error": by_id.s()})[0])
        assert isinstance(outcome, Rejected)
        assert len(outcome.sends) == told


@pytest.mark.parametrize("left", [0, 5])
@pytest.mark.parametrize("by_itself", [False, True])
def test_a_retry_keeps_nothing_alive(app: Celeriac, run: Any, left: int, by_itself: bool):
    class Heavy:
        pass

    seen: list[weakref.ref[Heavy]] = []

    @app.task(bind=True, max_retries=left, autoretry_for=(KeyError,) if by_itself else ())
    def work(self, n):
        heavy = Heavy()
        seen.append(weakref.ref(heavy))
        if by_itself:
            raise KeyError(n)
        try:
            raise OSError(n)
        except OSError as error:
            raise self.retry(exc=error, countdown=1) from None

    gc.disable()  # what only the collector finds stays for long, with all arguments
    try:
        assert isinstance(run(work.prepare((1,), {}, {})[0]), WantsRetry if left else Failed)
        assert seen[0]() is None
    finally:
        gc.enable()
