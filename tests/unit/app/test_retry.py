"""A retry is the same task again: same id, one retry more, everything else kept unless it is given anew."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.app.registry import AppRegistry
from celeriac.errors import MaxRetriesExceededError, Retry


@pytest.fixture
def task(app: Celeriac) -> Any:
    @app.task(name="proj.work", bind=True)
    def work(self, x, y=0, *, z=None):
        """Nothing."""

    return work


def sent_again(app: Celeriac, task: Any, running: Any, outgoing: Any, **how: Any) -> Any:
    with running(task, outgoing) as context:
        with pytest.raises(Retry) as caught:
            task.retry(**how)
        return AppRegistry(app).retry_message(context, caught.value), caught.value


def test_the_next_attempt_keeps_what_it_was(app: Celeriac, task: Any, running: Any):
    first, _ = task.prepare(
        (1,), {"y": 2},
        {
            "priority": 4, "queue": "mail", "headers": {"mine": 1}, "link": task.s(9), "link_error": task.si(8),
            "root_id": "root", "parent_id": "parent", "group_id": "group", "group_index": 3, "time_limit": 9,
            "soft_time_limit": 8, "chain": [task.s(7)], "stamped_headers": ["s"], "s": "v", "shadow": "shown",
            "ignore_result": True, "expires": "2040-01-01T00:00:00+00:00", "reply_to": "back",
            "replaced_task_nesting": 2,
        },
    )  # fmt: skip
    again, asked = sent_again(app, task, running, first, countdown=30, exc=ValueError("x"))
    kept = set(first.envelope.headers) - {"retries", "eta"}
    assert {name: again.envelope.headers[name] for name in kept} == {
        name: first.envelope.headers[name] for name in kept
    }
    assert again.envelope.headers["retries"] == 1
    assert again.envelope.headers["eta"] is not None
    assert again.not_before is not None
    assert again.envelope.body == first.envelope.body
    assert again.route == first.route
    assert {**again.envelope.properties, "expiration": ""} == {**first.envelope.properties, "expiration": ""}
    assert asked.when == 30
    assert str(asked) == "Retry in 30s: ValueError('x')"
    assert not app.transport.sent  # type: ignore[attr-defined]  # it leaves with the outcome


def test_the_default_delay_applies_unless_one_is_given(app: Celeriac, task: Any, running: Any):
    first, _ = task.prepare((1,), {}, {})
    task.default_retry_delay = 7
    assert sent_again(app, task, running, first)[1].when == 7
    again, asked = sent_again(app, task, running, first, countdown=0)
    assert asked.when == 0
    assert again.envelope.headers["eta"] is not None
    again, _ = sent_again(app, task, running, first, eta="2040-01-01T00:00:00+00:00")
    assert again.envelope.headers["eta"] == "2040-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("how", "args", "kwargs"),
    [
        ({"args": (5,)}, [5], {"y": 2}),
        ({"args": (5, 6)}, [5, 6], {}),
        ({"kwargs": {"z": 3}}, [1], {"z": 3}),
        ({"kwargs": {"x": 9, "z": 3}}, [9], {"z": 3}),
        ({"args": (), "kwargs": {"x": 1}}, [], {"x": 1}),
    ],
)
def test_new_arguments_replace_old_ones_without_conflict(
    app: Celeriac, task: Any, running: Any, how: dict[str, Any], args: list[int], kwargs: dict[str, int]
):
    from celeriac.wire.task_message import read_body

    first, _ = task.prepare((1,), {"y": 2}, {})
    again, _ = sent_again(app, task, running, first, **how)
    body = read_body(again.envelope, None)
    assert (body.args, body.kwargs) == (args, kwargs)


def test_other_options_win(app: Celeriac, task: Any, running: Any):
    first, _ = task.prepare((1,), {}, {"queue": "a", "priority": 1})
    again, _ = sent_again(app, task, running, first, queue="b", priority=5)
    assert again.route.routing_key == "b"
    assert again.envelope.properties["priority"] == 5


def test_dead_letter_history_is_dropped(app: Celeriac, task: Any, running: Any):
    first, _ = task.prepare((1,), {}, {"headers": {"x-death": [1], "x-first-death-queue": "q", "mine": 1}})
    again, _ = sent_again(app, task, running, first)
    assert "x-death" not in again.envelope.headers
    assert "x-first-death-queue" not in again.envelope.headers
    assert again.envelope.headers["mine"] == 1


def test_when_retries_are_used_up(app: Celeriac, task: Any, running: Any):
    last, _ = task.prepare((1,), {"z": 2}, {"retries": 3})
    with running(task, last) as context:
        with pytest.raises(MaxRetriesExceededError, match=r"Can't retry proj.work\[") as caught:
            task.retry()
        assert caught.value.task_args == [1]
        assert caught.value.task_kwargs == {"z": 2}
        with pytest.raises(OSError, match="mine"):
            task.retry(exc=OSError("mine"))
        with pytest.raises(Retry):
            task.retry(max_retries=4)
        assert context.override_max_retries == 4
        task.max_retries = None
        with pytest.raises(Retry):
            task.retry()


def test_called_as_a_function_there_is_nothing_to_retry(app: Celeriac):
    @app.task(bind=True)
    def flaky(self):
        try:
            raise OSError("down")
        except OSError as error:
            raise self.retry(exc=error) from None

    with pytest.raises(OSError, match="down"):
        flaky()

    @app.task(bind=True)
    def plain(self):
        raise self.retry()

    with pytest.raises(Retry):
        plain()


def test_without_throwing_the_message_leaves_with_the_outcome_once(app: Celeriac, task: Any, running: Any):
    first, _ = task.prepare((1,), {}, {})
    with running(task, first) as context:
        asked = task.retry(throw=False)
        assert [outgoing.envelope.headers["retries"] for outgoing in context.sends] == [1]
        message = AppRegistry(app).retry_message(context, asked)
        assert message.envelope.headers["id"] == first.envelope.headers["id"]
        assert context.sends == []


def test_a_retry_raised_by_hand_is_sent_too(app: Celeriac, task: Any, running: Any):
    first, _ = task.prepare((1,), {}, {})
    with running(task, first) as context:
        message = AppRegistry(app).retry_message(context, Retry("later", when=5))
    assert message.envelope.headers["retries"] == 1
    assert message.not_before is not None


def test_autoretry(app: Celeriac, running: Any):
    @app.task(
        name="proj.auto", autoretry_for=(OSError,), dont_autoretry_for=(FileNotFoundError,), retry_backoff=2,
        retry_jitter=False, retry_backoff_max=10, max_retries=8,
    )  # fmt: skip
    def auto(error):
        raise error

    def attempt(error: BaseException, retries: int = 0) -> Any:
        message, _ = auto.prepare((1,), {}, {"retries": retries})
        with running(auto, message):
            return auto(error)

    for retries, when in ((0, 2), (1, 4), (2, 8), (3, 10)):
        with pytest.raises(Retry) as caught:
            attempt(OSError("x"), retries)
        assert caught.value.when == when
        assert isinstance(caught.value.exc, OSError)
    for untouched in (FileNotFoundError(), KeyError("y")):
        with pytest.raises(type(untouched)):
            attempt(untouched)
    with pytest.raises(OSError, match="x"):
        attempt(OSError("x"), retries=8)


def test_autoretry_with_jitter_and_its_own_limit(app: Celeriac, running: Any):
    @app.task(bind=True, autoretry_for=(Exception,), retry_backoff=True, retry_kwargs={"max_retries": 1})
    def auto(self):
        raise OSError

    message, _ = auto.prepare((), {}, {})
    with running(auto, message), pytest.raises(Retry) as caught:
        auto()
    assert caught.value.when in (0, 1)
    message, _ = auto.prepare((), {}, {"retries": 1})
    with running(auto, message), pytest.raises(OSError):
        auto()


def test_autoretry_of_a_coroutine(app: Celeriac, running: Any):
    from celeriac.client.coroutines import run_to_end

    @app.task(autoretry_for=(OSError,), retry_kwargs={"countdown": 3})
    async def auto():
        raise OSError

    assert auto.is_coroutine
    message, _ = auto.prepare((), {}, {})
    with running(auto, message), pytest.raises(Retry) as caught:
        run_to_end(auto())
    assert caught.value.when == 3
