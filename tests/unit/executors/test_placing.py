"""What -P may say, and which pool a task runs in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from celeriac.errors import ImproperlyConfigured
from celeriac.executors.placing import Wanted, place_of, place_tasks, told_of_strays, wanted_pools


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("prefork", [Wanted("prefork", None)]),
        ("prefork:4", [Wanted("prefork", 4)]),
        ("prefork:4,asyncio:100", [Wanted("prefork", 4), Wanted("asyncio", 100)]),
        (" threads , asyncio:7 ", [Wanted("threads", None), Wanted("asyncio", 7)]),
        ("my.pool:Class", [Wanted("my.pool:Class", None)]),
        ("my.pool:Class:3,gevent", [Wanted("my.pool:Class", 3), Wanted("gevent", None)]),
    ],
)
def test_names_and_numbers(text: str, wanted: list[Wanted]) -> None:
    assert wanted_pools(text) == wanted


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("prefork:4,asyncio,", "missing"),
        (":4", "missing"),
        ("prefork:0", "cannot run 0"),
        ("prefork:4,threads:2,processes:1", "prefork is there twice"),
        ("solo,asyncio:100", "solo runs its tasks in the worker's own process"),
    ],
)
def test_what_does_not_go_together_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=reason):
        wanted_pools(text)


def task(pool: str | None = None, *, is_coroutine: bool = False) -> Any:
    return SimpleNamespace(runnable_options=SimpleNamespace(pool=pool), is_coroutine=is_coroutine)


TASKS = {
    "plain": task(), "coroutine": task(is_coroutine=True), "forked": task("processes", is_coroutine=True),
    "threaded": task("threads"), "looped": task("asyncio"),
}  # fmt: skip


def test_the_option_decides_then_the_kind_of_function_then_the_order() -> None:
    placed = place_tasks(TASKS, ["prefork", "threads", "asyncio"])
    assert placed.places == {"coroutine": 2, "threaded": 1, "looped": 2}
    assert not placed.strays
    assert place_tasks(TASKS, ["asyncio", "prefork", "threads"]).places == {"forked": 1, "threaded": 2}


def test_a_task_whose_pool_is_not_here_runs_in_the_first_and_is_named() -> None:
    placed = place_tasks(TASKS, ["gevent", "prefork"])
    assert placed.places == {"forked": 1}
    assert told_of_strays(placed, "gevent") == (
        "this worker lacks the pool of some tasks, which run in gevent: looped (pool 'asyncio'); "
        "threaded (pool 'threads')"
    )
    many = place_tasks({f"t{number:02}": task("threads") for number in range(12)}, ["prefork"])
    assert "t09 and 2 more (pool 'threads')" in told_of_strays(many, "prefork")
    assert not told_of_strays(place_tasks({"plain": task()}, ["prefork"]), "prefork")


def test_a_pool_is_found_by_each_of_its_names() -> None:
    assert place_of("processes", ["asyncio", "prefork"]) == 1
    with pytest.raises(ValueError, match="there are: asyncio, prefork"):
        place_of("threads", ["asyncio", "prefork"])
