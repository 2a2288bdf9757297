"""One attempt: hooks, records, and what goes wrong around the user's function."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from celeriac import current
from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import Retry
from celeriac.executors.base import Failed, Request, ResultRecord, RunnableOptions, Succeeded, WantsRetry
from celeriac.executors.runner import Runner
from celeriac.executors.time_limits import Window
from celeriac.testing.conformance.executor import request_for
from celeriac.testing.conformance.executor_tasks import OPTIONS, PlainTask, SuiteRegistry
from celeriac.wire.result_record import decode_record


class NotingTask(PlainTask):
    """Notes every call of a hook; ``bad_hooks`` makes those after the task fail."""

    def __init__(self, function: Any, options: RunnableOptions = OPTIONS, bad_hooks: bool = False) -> None:
        super().__init__("task", function, options)
        self.notes: list[Any] = []
        self.bad_hooks = bad_hooks

    def note(self, *what: Any) -> None:
        self.notes.append(what)
        if self.bad_hooks:
            raise RuntimeError("a bad hook")

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        self.notes.append(("before_start", task_id, args, kwargs))

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        self.note("on_success", retval)

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.note("on_retry", repr(exc))

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.note("on_failure", repr(exc), "Traceback" in str(einfo), einfo.type)

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.note("after_return", status)


class OneTask(SuiteRegistry):
    """A registry with one task, which keeps what is stored in mid-run."""

    def __init__(self, task: PlainTask) -> None:
        super().__init__()
        self.tasks = {"task": task}
        self.stored: list[ResultRecord] = []

    def store(self, record: ResultRecord) -> None:
        self.stored.append(record)


def attempt(task: PlainTask, request: Request | None = None) -> Any:
    return Runner(OneTask(task), "w@h", SYSTEM_CLOCK).run(request or request_for("task", 1, id="T"))


def returns(value: Any) -> Any:
    return lambda *args, **kwargs: value


def raises(error: BaseException) -> Any:
    def function(*args: Any, **kwargs: Any) -> None:
        raise error

    return function


def test_hooks_are_called_in_celerys_order() -> None:
    task = NotingTask(returns(5))
    outcome = attempt(task)
    assert isinstance(outcome, Succeeded)
    assert outcome.shown == "5"
    assert task.notes == [
        ("before_start", "T", [1], {}),
        ("on_success", 5),
        ("after_return", "SUCCESS"),
    ]


def test_failure_hooks_get_the_error_with_its_traceback() -> None:
    task = NotingTask(raises(ValueError("no")))
    attempt(task)
    assert task.notes[1:] == [
        ("on_failure", "ValueError('no')", True, ValueError),
        ("after_return", "FAILURE"),
    ]


def test_after_a_retry_after_return_is_not_called() -> None:
    task = NotingTask(raises(Retry(exc=OSError("x"), when=1)))
    outcome = attempt(task)
    assert isinstance(outcome, WantsRetry)
    assert task.notes[1:] == [("on_retry", "OSError('x')")]


@pytest.mark.parametrize("function", [returns(1), raises(ValueError("no")), raises(Retry(when=1))])
def test_hooks_that_fail_after_the_fact_change_nothing(function: Any, caplog: pytest.LogCaptureFixture) -> None:
    good = attempt(NotingTask(function))
    bad = attempt(NotingTask(function, bad_hooks=True))
    assert type(bad) is type(good)
    assert bad.record.status == good.record.status
    assert "a bad hook" in caplog.text


def test_a_hook_that_fails_before_the_task_fails_the_task() -> None:
    class Unwilling(NotingTask):
        def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
            raise RuntimeError("not today")

    called = []
    outcome = attempt(Unwilling(lambda *args: called.append(1)))
    assert isinstance(outcome, Failed)
    assert outcome.error == "RuntimeError('not today')"
    assert not called


def test_record_is_what_celery_stores() -> None:
    request = request_for("task", 1, id="T", group_id="G", parent_id="P", reply_to="R")
    outcome = attempt(NotingTask(returns({"a": 1})), request)
    assert outcome.record.reply_to == "R"
    meta = decode_record(outcome.record)
    done = meta.pop("date_done")
    assert done.endswith("+00:00")
    assert meta == {
        "status": "SUCCESS", "result": {"a": 1}, "traceback": None, "children": [], "group_id": "G",
        "parent_id": "P", "task_id": "T",
    }  # fmt: skip


def test_extended_records_tell_more() -> None:
    options = msgspec.structs.replace(OPTIONS, result_extended=True)
    request = request_for("task", 1, id="T", kwargs={"k": 2}, stamped_headers=["s"], stamps={"s": "v"})
    meta = decode_record(attempt(NotingTask(returns(None), options), request).record)
    assert {name: meta[name] for name in ("name", "args", "kwargs", "worker", "retries", "queue", "s")} == {
        "name": "task", "args": [1], "kwargs": {"k": 2}, "worker": "w@h", "retries": 0, "queue": "celery", "s": "v",
    }  # fmt: skip


@pytest.mark.parametrize(("in_message", "of_task", "stored"), [
    (None, False, True), (None, True, False), (True, False, False), (False, True, True),
])  # fmt: skip
def test_the_message_decides_before_the_task_whether_results_are_kept(
    in_message: bool | None, of_task: bool, stored: bool
) -> None:
    options = msgspec.structs.replace(OPTIONS, ignore_result=of_task)
    outcome = attempt(NotingTask(returns(1), options), request_for("task", 1, ignore_result=in_message))
    assert (outcome.record is not None) is stored


def test_errors_may_be_kept_even_if_results_are_not() -> None:
    options = msgspec.structs.replace(OPTIONS, ignore_result=True)
    assert attempt(NotingTask(raises(ValueError()), options)).record is None
    options = msgspec.structs.replace(options, store_errors_even_if_ignored=True)
    assert attempt(NotingTask(raises(ValueError()), options)).record.status == "FAILURE"


def test_started_is_stored_while_the_task_runs() -> None:
    options = msgspec.structs.replace(OPTIONS, track_started=True)
    registry = OneTask(NotingTask(lambda *args: [record.status for record in registry.stored], options))
    outcome = Runner(registry, "w@h").run(request_for("task", 1))
    assert decode_record(outcome.record)["result"] == ["STARTED"]  # type: ignore[union-attr, arg-type]
    meta = decode_record(registry.stored[0])
    assert set(meta["result"]) == {"pid", "hostname"}
    assert meta["date_done"] is None


def test_follow_ups_that_cannot_be_built_fail_the_task() -> None:
    class Broken(OneTask):
        def follow_ups(self, context: Any, retval: Any) -> Any:
            raise KeyError("no such task")

    request = request_for("task", 1, callbacks=[{"task": "x"}])
    outcome = Runner(Broken(NotingTask(returns(1))), "w@h").run(request)
    assert isinstance(outcome, Failed)
    assert outcome.record is not None
    assert outcome.record.status == "FAILURE"


def test_an_error_that_cannot_be_shown_or_stored_is_still_a_failure() -> None:
    class Nasty(Exception):
        def __repr__(self) -> str:
            raise RuntimeError("repr")

        __str__ = __repr__

    outcome = attempt(NotingTask(raises(Nasty(object()))))
    assert isinstance(outcome, Failed)
    assert outcome.record is not None
    assert outcome.record.status == "FAILURE"


def test_wrong_arguments_are_the_tasks_own_failure() -> None:
    outcome = attempt(NotingTask(lambda: None))
    assert isinstance(outcome, Failed)
    assert outcome.error.startswith("TypeError(")
    assert outcome.quarantine is None


def test_results_of_other_tasks_are_stored_as_tuples() -> None:
    class Promise:
        def as_tuple(self) -> Any:
            return [["other", None], None]

    def function(*args: Any) -> Any:
        current.running().request.children.append(Promise())  # type: ignore[union-attr]
        return Promise()

    meta = decode_record(attempt(NotingTask(function)).record)
    assert meta["result"] == [["other", None], None]
    assert meta["children"] == [[["other", None], None]]


def test_the_current_task_is_set_only_while_it_runs() -> None:
    task = NotingTask(lambda *args: current.running().request.id)  # type: ignore[union-attr]
    assert decode_record(attempt(task).record)["result"] == "T"
    assert current.running() is None


def test_failures_do_not_keep_frames_alive() -> None:
    import gc
    import weakref

    class Heavy:
        pass

    seen = []

    def function(*args: Any) -> None:
        heavy = Heavy()
        seen.append(weakref.ref(heavy))
        raise ValueError

    gc.disable()
    try:
        attempt(NotingTask(function))
        assert seen[0]() is None
    finally:
        gc.enable()


def test_a_late_interruption_hits_nobody() -> None:
    window = Window()
    window.begin(1)
    assert window.prepare(1, "limit") is None
    window.open()
    assert window.prepare(2, "limit") is None
    assert window.prepare(1, "limit") is not None
    window.close()
    assert window.prepare(1, "limit") is None


def test_coroutines_run_under_their_own_request() -> None:
    async def both() -> list[Any]:
        async def function(*args: Any) -> Any:
            await asyncio.sleep(0)
            return current.running().request.id  # type: ignore[union-attr]

        runner = Runner(OneTask(NotingTask(function)), "w@h")
        outcomes = await asyncio.gather(*(runner.arun(request_for("task", 1, id=name)) for name in "ab"))
        return [decode_record(outcome.record)["result"] for outcome in outcomes]  # type: ignore[union-attr, arg-type]

    assert asyncio.run(both()) == ["a", "b"]
