"""Running tasks on the spot behaves like a worker as far as it can."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.app.result import EagerResult
from celeriac.errors import EncodeError, Ignore, Reject, TaskRevokedError


@pytest.fixture
def eager() -> Celeriac:
    return Celeriac("eager", broker="recording://", task_always_eager=True)


def test_apply(app: Celeriac):
    @app.task
    def add(x, y):
        return x + y

    result = add.apply((1,), {"y": 2})
    assert isinstance(result, EagerResult)
    assert (result.get(), result.state, result.ready(), result.successful()) == (3, "SUCCESS", True, True)


def test_what_the_task_sees(app: Celeriac):
    @app.task(bind=True)
    def look(self):
        request = self.request
        return (
            request.id,
            request.is_eager,
            request.called_directly,
            request.retries,
            request.headers,
            request.root_id,
        )

    result = look.apply(task_id="me", headers={"a": 1})
    assert result.get() == ("me", True, False, 0, {"a": 1}, "me")


def test_failures(app: Celeriac):
    events: list[str] = []

    @app.task
    def boom():
        raise KeyError("x")

    type(boom).on_failure = lambda self, exc, *rest: events.append(f"failure {exc!r}")
    type(boom).after_return = lambda self, status, *rest: events.append(f"after {status}")
    result = boom.apply()
    assert (result.state, result.failed()) == ("FAILURE", True)
    assert "KeyError" in (result.traceback or "")
    with pytest.raises(KeyError):
        result.get()
    assert isinstance(result.get(propagate=False), KeyError)
    with pytest.raises(KeyError):
        boom.apply(throw=True)
    app.conf.task_eager_propagates = True
    with pytest.raises(KeyError):
        boom.apply()
    assert events[:2] == ["failure KeyError('x')", "after FAILURE"]


@pytest.mark.parametrize(("error", "state"), [(Ignore(), "IGNORED"), (Reject("no"), "REJECTED")])
def test_flow_is_no_failure(app: Celeriac, error: Exception, state: str):
    @app.task(name=f"flow.{state}")
    def flow():
        raise error

    result = flow.apply()
    assert (result.state, result.get()) == (state, None)


def test_retries_follow_each_other_at_once(app: Celeriac):
    seen: list[tuple[int, Any]] = []

    @app.task(bind=True, max_retries=2)
    def flaky(self, x):
        seen.append((self.request.retries, x))
        raise self.retry(exc=OSError("down"), countdown=3600, args=(x + 1,))

    result = flaky.apply((1,))
    assert seen == [(0, 1), (1, 2), (2, 3)]
    assert result.state == "FAILURE"
    with pytest.raises(OSError, match="down"):
        result.get()


def test_callbacks_and_errbacks(eager: Celeriac):
    seen: list[Any] = []

    @eager.task
    def note(*values):
        seen.append(values)

    @eager.task
    def one():
        return 1

    @eager.task
    def boom():
        raise ValueError("x")

    one.apply_async(link=note.s("cb"))
    boom.apply_async(link_error=note.s("eb"), task_id="bad")
    assert seen[0] == (1, "cb")
    request, error, traceback, label = seen[1]
    assert (request.id, repr(error), label) == ("bad", "ValueError('x')", "eb")
    assert "boom" in traceback


def test_always_eager_sees_what_a_worker_would_see(eager: Celeriac):
    @eager.task
    def echo(value):
        return value

    assert echo.delay((1, 2)).get() == [1, 2]
    assert echo.delay(datetime(2030, 1, 1)).get() == datetime(2030, 1, 1)
    with pytest.raises(EncodeError):
        echo.delay(object())
    with pytest.raises(TypeError, match=r"echo\(\)"):
        echo.delay()
    with pytest.raises(ValueError, match="soft_time_limit"):
        echo.apply_async((1,), time_limit=1, soft_time_limit=2)
    assert not eager.transport.sent  # type: ignore[attr-defined]
    assert [result.get() for result in echo.delay_many([(1,), (2,)])] == [1, 2]


def test_children_of_eager_tasks_know_their_parent(eager: Celeriac):
    @eager.task(bind=True)
    def inner(self):
        return (self.request.parent_id, self.request.root_id)

    @eager.task
    def outer():
        return inner.delay().get()

    assert outer.apply_async(task_id="top").get() == ("top", "top")


def test_coroutines_without_and_with_a_loop(eager: Celeriac):
    @eager.task
    async def later(x):
        await asyncio.sleep(0)
        return x + 1

    assert later.delay(1).get() == 2

    async def inside() -> tuple[int, int, int, Any]:
        loops = []

        @eager.task
        async def loop_of():
            loops.append(asyncio.get_running_loop())

        await loop_of.adelay()
        same = loops == [asyncio.get_running_loop()]
        result = await later.adelay(1)
        return later.delay(1).get(), await result, await later(5), same

    assert asyncio.run(inside()) == (2, 2, 6, True)


def test_send_task_is_not_eager(eager: Celeriac):
    from celeriac.errors import AlwaysEagerIgnored

    with pytest.warns(AlwaysEagerIgnored):
        eager.send_task("elsewhere")
    assert len(eager.transport.sent) == 1  # type: ignore[attr-defined]


def test_revoking_an_eager_result(app: Celeriac):
    result = EagerResult("id", 5, "SUCCESS", app=app)
    result.forget()
    assert result.get() == 5
    result.revoke()
    assert result.state == "REVOKED"
    with pytest.raises(TaskRevokedError):
        result.get()
