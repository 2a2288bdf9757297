"""Results are read, waited for and passed on; from threads, from coroutines, alone and in groups."""

from __future__ import annotations

import asyncio
import copy
import functools
import pickle
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from celeriac import AsyncResult, Celeriac
from celeriac.app.group_result import GroupResult, ResultSet
from celeriac.app.result import allow_join_result, denied_join_result, result_from_tuple
from celeriac.errors import IncompleteStream, TaskRevokedError, TimeoutError
from celeriac.ids import task_id


@pytest.fixture
def app() -> Iterator[Celeriac]:
    with Celeriac("results", broker="recording://", backend=f"memory://{task_id()}") as app:
        yield app


@pytest.fixture
def store(app: Celeriac) -> Any:
    return app.backend.store_result


def on_a_loop(test: Any) -> Any:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 20))

    return run


class Later:
    """Does something in another thread once somebody waits for a result."""

    def __init__(self, app: Celeriac, *actions: Any) -> None:
        self.waiting = threading.Event()
        store = app.backend.store
        original = store.read

        def read(ids: Any, deadline: float | None = None) -> Any:
            found = original(ids)
            self.waiting.set()
            return found

        store.read = read  # type: ignore[method-assign]
        self.thread = threading.Thread(target=self.run, args=actions)
        self.thread.start()

    def run(self, *actions: Any) -> None:
        assert self.waiting.wait(timeout=60)
        for action in actions:
            action()


def result_of(app: Celeriac, name: str = "t1") -> AsyncResult[Any]:
    app.backend.forget(name)
    return app.AsyncResult(name)


def test_nothing_is_known_of_an_unknown_id(app: Celeriac):
    result = result_of(app, "unheard-of")
    assert (result.state, result.result, result.children, result.ready(), result.exists()) == (
        "PENDING", None, None, False, False,
    )  # fmt: skip
    with pytest.raises(ValueError, match="needs the id"):
        AsyncResult("")


def test_success(app: Celeriac, store: Any):
    result = result_of(app)
    store("t1", {"a": 1}, "SUCCESS")
    assert result.get(timeout=60) == {"a": 1}
    assert (result.status, result.successful(), result.failed(), result.exists()) == ("SUCCESS", True, False, True)
    assert isinstance(result.date_done, datetime)
    assert result.maybe_throw() == {"a": 1}
    seen: list[Any] = []
    assert result.get(callback=lambda task_id, value: seen.append((task_id, value))) == {"a": 1}
    assert seen == [("t1", {"a": 1})]
    result.forget()
    assert not result.exists()
    assert result.state == "PENDING"


def test_failure(app: Celeriac, store: Any):
    result = result_of(app)
    store("t1", KeyError("gone"), "FAILURE", traceback="Traceback: far away")
    with pytest.raises(KeyError, match="gone"):
        result.get(timeout=60)
    assert isinstance(result.get(propagate=False), KeyError)
    assert result.failed()
    assert result.traceback == "Traceback: far away"
    with pytest.raises(KeyError):
        result.maybe_reraise()
    app.conf.task_remote_tracebacks = True
    with pytest.raises(KeyError) as caught:
        app.AsyncResult("t1").get()
    assert caught.value.__notes__ == ["In the worker:\nTraceback: far away"]


def test_revoked(app: Celeriac, store: Any):
    result = result_of(app)
    store("t1", TaskRevokedError("revoked"), "REVOKED")
    with pytest.raises(TaskRevokedError, match="revoked"):
        result.get(timeout=60)


def test_states_on_the_way_are_not_kept(app: Celeriac, store: Any):
    result = result_of(app)
    store("t1", {"done": 5}, "PROGRESS")
    assert (result.state, result.info, result.ready(), result.date_done) == ("PROGRESS", {"done": 5}, False, None)
    store("t1", 9, "SUCCESS")
    assert result.info == 9


def test_waiting_ends_in_time(app: Celeriac, store: Any):
    result = app.AsyncResult("never", task_name="proj.slow")
    store("never", None, "STARTED")
    with pytest.raises(
        TimeoutError, match=r"no result of proj.slow \[never\] after 0.05 seconds; its state is STARTED"
    ):
        result.get(timeout=0.05)
    ticks: list[int] = []
    with pytest.raises(TimeoutError):
        result.get(timeout=0.05, interval=0.01, on_interval=lambda: ticks.append(1))
    assert ticks


def test_waiting_ends_when_the_result_is_there(app: Celeriac, store: Any):
    result = result_of(app, "soon")
    later = Later(app, lambda: store("soon", 5, "SUCCESS"))
    assert result.get(timeout=60) == 5
    later.thread.join(timeout=60)


def test_a_failed_parent_is_raised_at_once(app: Celeriac, store: Any):
    parent = result_of(app, "parent")
    child = app.AsyncResult("child", parent=parent)
    store("parent", OSError("first"), "FAILURE")
    with pytest.raises(OSError, match="first"):
        child.get(timeout=60)
    with pytest.raises(TimeoutError):
        child.get(timeout=0.05, follow_parents=False)
    assert child.as_list() == ["child", "parent"]


def test_waiting_inside_a_task(app: Celeriac, store: Any, running: Any):
    result = result_of(app)
    store("t1", 1, "SUCCESS")

    @app.task
    def outer():
        """Nothing."""

    message, _ = outer.prepare((), {}, {})
    with running(outer, message):
        with pytest.raises(RuntimeError, match="inside a task"):
            result.get()
        with pytest.raises(RuntimeError, match="inside a task"):
            ResultSet([result]).get()
        assert result.get(disable_sync_subtasks=False) == 1
        with allow_join_result():
            assert result.get() == 1
            with denied_join_result(), pytest.raises(RuntimeError):
                result.get()
    assert outer.prepare((), {}, {})


def test_callbacks_on_the_callers_side(app: Celeriac, store: Any):
    seen: list[Any] = []
    good, bad = result_of(app, "good"), result_of(app, "bad")
    good.then(lambda result: seen.append(result.result))
    bad.then(seen.append, on_error=lambda error: seen.append(repr(error)))
    store("good", 1, "SUCCESS")
    store("bad", KeyError("x"), "FAILURE")
    assert seen == []
    assert good.ready()
    assert bad.ready()
    good.then(lambda result: seen.append("again"))
    assert seen == [1, "KeyError('x')", "again"]


def test_children_and_what_came_of_them(app: Celeriac, store: Any, running: Any):
    @app.task
    def outer():
        """Nothing."""

    message, _ = outer.prepare((), {}, {"task_id": "top", "group_id": "g", "parent_id": "p"})
    app.conf.result_extended = True
    with running(outer, message) as context:
        context.children = [app.AsyncResult("kid"), GroupResult("grp", [app.AsyncResult("a"), app.AsyncResult("b")])]
        outer.update_state(state="SUCCESS", meta="done")
    for name in ("kid", "a", "b"):
        store(name, name.upper(), "SUCCESS")
    top = app.AsyncResult("top")
    kid, group = top.children or []
    assert (kid.get(timeout=60), group.get(timeout=60)) == ("KID", ["A", "B"])
    assert (top.name, top.args, top.kwargs, top.worker, top.retries, top.queue) == (
        outer.name, [], {}, "w1@here", 0, "celery",
    )  # fmt: skip
    assert [value for _, value in top.collect()] == ["done", "KID", ["A", "B"], "A", "B"]
    assert top.get_leaf() == "B"
    unfinished = result_of(app, "unfinished")
    with pytest.raises(IncompleteStream):
        list(unfinished.iterdeps())
    assert list(unfinished.iterdeps(intermediate=True)) == [(None, unfinished)]


def test_results_are_values(app: Celeriac):
    one, two = app.AsyncResult("one"), app.AsyncResult("two", parent=app.AsyncResult("one"))
    assert one == app.AsyncResult("one") == "one"
    assert one != two
    assert {one: 1}[app.AsyncResult("one")] == 1
    assert (str(one), repr(one)) == ("one", "<AsyncResult: one>")
    assert two.as_tuple() == (("two", (("one", None), None)), None)
    for twin in (
        result_from_tuple(two.as_tuple()),
        pickle.loads(pickle.dumps(two)),
        copy.copy(two),
        copy.deepcopy(two),
    ):
        assert twin == two
        assert twin.parent == one
    group = GroupResult("g", [one, two], parent=one)
    twin = pickle.loads(pickle.dumps(group))
    assert (twin, twin.parent, hash(twin)) == (group, one, hash(group))
    assert result_from_tuple(group) is group
    assert [twin.as_list(), bool(GroupResult())] == [["g", "one"], True]


def test_sets_of_results(app: Celeriac):
    one, two = app.AsyncResult("one"), app.AsyncResult("two")
    results = ResultSet([one], app=app)
    results.add(one)
    results.update([two, one])
    assert (list(results), len(results), results[1]) == ([one, two], 2, two)
    results.discard("unknown")
    results.remove("one")
    with pytest.raises(KeyError):
        results.remove("one")
    results.clear()
    assert list(results) == []
    assert results.get() == []


def test_a_group_is_waited_for_as_a_whole(app: Celeriac, store: Any):
    results = app.ResultSet([result_of(app, f"g{number}") for number in range(3)])
    store("g1", 1, "SUCCESS")
    assert (results.ready(), results.waiting(), results.completed_count()) == (False, True, 1)
    with pytest.raises(TimeoutError, match="2 of 3 results are not there"):
        results.get(timeout=0.05)
    later = Later(app, lambda: store("g2", 2, "SUCCESS"), lambda: store("g0", 0, "SUCCESS"))
    assert results.join(timeout=60) == [0, 1, 2]
    later.thread.join(timeout=60)
    assert (results.ready(), results.successful(), results.failed(), results.completed_count()) == (
        True,
        True,
        False,
        3,
    )
    seen: list[Any] = []
    assert results.get(callback=lambda task_id, value: seen.append((task_id, value))) == []
    assert seen == [("g0", 0), ("g1", 1), ("g2", 2)]
    assert {task_id: meta["result"] for task_id, meta in results.iter_native()} == {"g0": 0, "g1": 1, "g2": 2}
    results.forget()
    assert not app.AsyncResult("g0").exists()


def test_the_first_failure_of_a_group_ends_the_wait(app: Celeriac, store: Any):
    results = app.GroupResult("grp", [result_of(app, "missing"), result_of(app, "broken")])
    store("broken", OSError("x"), "FAILURE")
    with pytest.raises(OSError, match="x"):
        results.get(timeout=60)
    assert results.failed()
    store("missing", 1, "SUCCESS")
    values = results.get(timeout=10, propagate=False)
    assert (values[0], type(values[1])) == (1, OSError)


@on_a_loop
async def test_awaiting(app: Celeriac, store: Any):
    result = result_of(app, "awaited")
    later = Later(app, lambda: store("awaited", 5, "SUCCESS"))
    assert await result == 5
    assert await result == 5
    await asyncio.to_thread(later.thread.join, timeout=10)
    store("awaited-bad", KeyError("x"), "FAILURE")
    with pytest.raises(KeyError):
        await app.AsyncResult("awaited-bad")
    assert isinstance(await app.AsyncResult("awaited-bad").aget(propagate=False), KeyError)
    with pytest.raises(TimeoutError, match="no result"):
        await result_of(app, "never").aget(timeout=0.05)


@on_a_loop
async def test_many_coroutines_wait_at_once(app: Celeriac, store: Any):
    results = [result_of(app, f"many{number}") for number in range(50)]
    waits = [asyncio.create_task(result.aget(timeout=60)) for result in results]
    given_up = asyncio.create_task(results[0].aget())
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.to_thread(lambda: [store(f"many{number}", number, "SUCCESS") for number in range(50)])
    assert await asyncio.gather(*waits) == list(range(50))
    assert app.tracker._waits == {}


@on_a_loop
async def test_awaiting_groups(app: Celeriac, store: Any):
    results = app.ResultSet([result_of(app, name) for name in ("x", "y")])
    store("x", 1, "SUCCESS")
    with pytest.raises(TimeoutError, match="1 of 2"):
        await results.aget(timeout=0.05)
    store("y", 2, "SUCCESS")
    assert await results == [1, 2]


@on_a_loop
async def test_a_store_that_fails_fails_the_wait(app: Celeriac, monkeypatch: pytest.MonkeyPatch):
    def broken(ids: Any) -> Any:
        raise OSError("disk")

    monkeypatch.setattr(app.backend.store, "read", broken)
    with pytest.raises(OSError, match="disk"):
        await app.AsyncResult("x").aget(timeout=60)


@on_a_loop
async def test_without_a_store_there_is_nothing_to_await(app: Celeriac):
    off = Celeriac("off", broker="recording://")
    with pytest.raises(NotImplementedError, match="No result backend"):
        await off.AsyncResult("x")


def test_tasks_know_whether_results_are_ignored(app: Celeriac):
    @app.task(ignore_result=True)
    def silent():
        """Nothing."""

    assert silent.delay().ignored
    assert not app.AsyncResult("x").ignored


def test_states_of_your_own_need_a_task_id(app: Celeriac):
    @app.task
    def work():
        """Nothing."""

    with pytest.raises(ValueError, match="needs the task_id"):
        work.update_state(state="X")
    work.update_state("mine", "X", {"n": 1})
    assert work.AsyncResult("mine").info == {"n": 1}
