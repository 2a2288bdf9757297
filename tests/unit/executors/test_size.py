"""A pool that grows, shrinks and is renewed while it works; children that retire in every pool."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from celeriac.errors import ImproperlyConfigured
from celeriac.executors.base import Loader, PoolOptions, Renewable, Resizable
from celeriac.executors.children.pool import ChildrenExecutor
from celeriac.testing.conformance.executor import appearance, gather, request_for, run_all, value_of
from celeriac.testing.conformance.executor_children import until_dead
from celeriac.testing.conformance.executor_tasks import PATIENCE, TARGET, SuiteRegistry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SUITE = Loader(TARGET, "suite")
POOLS = [
    pytest.param(name, marks=pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed"))
    if name in ("gevent", "eventlet")
    else name
    for name in ("prefork", "threads", "asyncio", "gevent", "eventlet")
]


@asynccontextmanager
async def running(loader: Loader = SUITE, **options: Any) -> AsyncIterator[ChildrenExecutor]:
    executor = ChildrenExecutor(PoolOptions(**options), loader)
    async with asyncio.timeout(PATIENCE):
        await executor.start()
        yield executor
        await executor.stop(1.0)


async def until_processes(executor: ChildrenExecutor, count: int) -> list[int]:
    while len(executor.processes()) != count or any(
        member.state != "ready" for member in executor._members.values()
    ):  # fmt: skip
        await executor._births.next_change(PATIENCE)
    return list(executor.processes())


@pytest.mark.parametrize("pool", POOLS)
def test_a_pool_grows_and_shrinks_while_tasks_run(pool: str, tmp_path: Path) -> None:
    slots = 1 if pool == "prefork" else 2

    async def scenario() -> None:
        async with running(pool=pool, children=1, slots_per_child=slots) as executor:
            assert isinstance(executor, Resizable)
            executor.submit([request_for("block", str(tmp_path / f"b{n}"), id=f"b{n}") for n in range(slots)])
            for number in range(slots):
                await appearance(tmp_path / f"b{number}")
            executor.resize(3)
            assert executor.slots == 3 * slots
            assert len(await until_processes(executor, 3)) == 3
            executor.submit([request_for("block", str(tmp_path / f"c{n}"), id=f"c{n}") for n in range(2 * slots)])
            for number in range(2 * slots):
                await appearance(tmp_path / f"c{number}")
            executor.resize(1)
            assert executor.slots == slots
            waiting = [request_for("add", 1, number, id=f"w{number}") for number in range(5)]
            executor.submit(waiting)
            for name in (*(f"b{n}" for n in range(slots)), *(f"c{n}" for n in range(2 * slots))):
                (tmp_path / f"{name}.go").touch()
            outcomes = await gather(executor, 3 * slots + 5)
            assert {value_of(outcome) for name, outcome in outcomes.items() if name[0] in "bc"} == {"went on"}
            assert [value_of(outcomes[f"w{number}"]) for number in range(5)] == [1, 2, 3, 4, 5]
            assert len(await until_processes(executor, 1)) == 1

    asyncio.run(scenario())


def test_a_shrunk_child_gives_back_what_it_has_not_started(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(children=2) as executor:
            for _ in range(5):  # known to be short, so that they are given ahead
                await run_all(executor, *(request_for("noop", id=f"n{number}") for number in range(40)))
            executor.submit(
                [request_for("block", str(tmp_path / f"b{number}"), id=f"b{number}") for number in range(2)]
            )
            for number in range(2):
                await appearance(tmp_path / f"b{number}")
            executor.submit([request_for("noop", id=f"m{number}") for number in range(50)])
            executor.resize(1)
            [going] = [member for member in executor._members.values() if member.is_retiring]
            [staying] = [member for member in executor._members.values() if not member.is_retiring]
            [blocked] = [request.id for request in staying.outstanding.values() if request.id.startswith("b")]
            (tmp_path / f"{blocked}.go").touch()
            assert len(await gather(executor, 51)) == 51  # the one that goes is still blocked
            assert len(going.outstanding) == 1
            (tmp_path / "b0.go").touch()
            (tmp_path / "b1.go").touch()
            [last] = (await gather(executor, 1)).values()
            assert value_of(last) == "went on"

    asyncio.run(scenario())


def test_a_pool_is_never_empty() -> None:
    async def scenario() -> None:
        async with running(children=2) as executor:
            executor.resize(0)
            assert executor.slots == 1
            [outcome] = await run_all(executor, request_for("add", 1, 2))
            assert value_of(outcome) == 3

    asyncio.run(scenario())


@pytest.mark.parametrize("pool", POOLS)
def test_processes_are_replaced_while_tasks_run(pool: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(pool=pool, children=2, slots_per_child=1 if pool == "prefork" else 2) as executor:
            assert isinstance(executor, Renewable)
            before = list(executor.processes())
            executor.submit([request_for("block", str(tmp_path / "b"), id="b")])
            await appearance(tmp_path / "b")
            executor.renew(reload=False)
            outcomes = await run_all(executor, *(request_for("add", number, 1) for number in range(50)))
            assert [value_of(outcome) for outcome in outcomes] == list(range(1, 51))
            (tmp_path / "b.go").touch()
            assert value_of((await gather(executor, 1))["b"]) == "went on"
            for pid in before:
                await until_dead(pid)
            assert not set(before) & set(await until_processes(executor, 2))

    asyncio.run(scenario())


MODULE = """
from celeriac.testing.conformance.executor_tasks import OPTIONS, PlainTask, SuiteRegistry

def load(argument):
    registry = SuiteRegistry()
    registry.tasks["version"] = PlainTask("version", lambda: {version}, OPTIONS)
    return registry
"""


def test_code_is_loaded_anew_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "renewed_code.py"
    module.write_text(MODULE.format(version=1))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    async def scenario() -> None:
        async with running(Loader("renewed_code:load", "app"), children=2) as executor:
            before = list(executor.processes())
            [outcome] = await run_all(executor, request_for("version"))
            assert value_of(outcome) == 1
            module.write_text(MODULE.format(version=22))
            former = executor._births.link
            executor.renew(reload=True)
            for pid in before:
                await until_dead(pid)
            await until_processes(executor, 2)
            [outcome] = await run_all(executor, request_for("version"))
            assert value_of(outcome) == 22
            assert executor._births.link is not former
            while executor._births._former:
                await executor._births.next_change(PATIENCE)

    asyncio.run(scenario())


LATE = """
import time
from celeriac.executors.children.desk import Desk
from celeriac.testing.conformance.executor_tasks import SuiteRegistry

def load(argument):
    real = Desk.wait

    def wait(desk):
        time.sleep(0.1)
        real(desk)

    Desk.wait = wait
    return SuiteRegistry()
"""


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_child_whose_other_thread_reads_that_it_is_to_leave_leaves(
    pool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main thread is late, so that the one which gives back what has not started hears of it alone."""
    (tmp_path / "late_reader.py").write_text(LATE)
    monkeypatch.syspath_prepend(tmp_path)

    async def scenario() -> None:
        async with running(
            Loader("late_reader:load", "app"), pool=pool, children=1, slots_per_child=1, max_tasks_per_child=3
        ) as executor:
            outcomes = await run_all(executor, *(request_for("where", id=f"w{number}") for number in range(9)))
            pids = [value_of(outcome)[0] for outcome in outcomes]
            assert max(map(pids.count, pids)) <= 3

    asyncio.run(scenario())


def test_code_that_does_not_load_any_more_leaves_the_pool_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "broken_later.py"
    module.write_text(MODULE.format(version=1))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    async def scenario() -> None:
        async with running(Loader("broken_later:load", "app"), children=1) as executor:
            before = list(executor.processes())
            module.write_text("raise ImportError('no longer')")
            executor.renew(reload=True)
            renewing = executor._births._renewing
            assert renewing is not None
            await renewing
            [outcome] = await run_all(executor, request_for("version"))
            assert value_of(outcome) == 1
            assert list(executor.processes()) == before

    asyncio.run(scenario())


def test_an_app_without_a_name_cannot_be_loaded_anew() -> None:
    """In a process of its own: without a name children can only be forked, and only where no thread runs."""
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_size as t; t.without_a_name()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE + 20)
    assert done.returncode == 0, done.stderr


def without_a_name() -> None:
    async def scenario() -> None:
        async with running(Loader("", "", SuiteRegistry), children=1) as executor:
            with pytest.raises(ImproperlyConfigured, match="no importable name"):
                executor.renew(reload=True)
            executor.renew(reload=False)
            [outcome] = await run_all(executor, request_for("add", 1, 2))
            assert value_of(outcome) == 3

    asyncio.run(scenario())


@pytest.mark.parametrize("limit", [{"max_tasks_per_child": 4}, {"max_memory_per_child_kib": 1}])
@pytest.mark.parametrize("pool", POOLS[1:])
def test_a_child_that_retires_finishes_what_it_runs(pool: str, limit: dict[str, int], tmp_path: Path) -> None:
    """It takes nothing new, and another takes its place."""

    async def scenario() -> None:
        async with running(pool=pool, children=1, slots_per_child=4, **limit) as executor:
            [first] = executor.processes()
            executor.submit([request_for("block", str(tmp_path / "b"), id="b")])
            await appearance(tmp_path / "b")
            executor.submit([request_for("where", id=f"w{number}") for number in range(3)])
            early = await gather(executor, 3) if "max_tasks_per_child" in limit else await gather(executor, 1)
            assert {value_of(outcome)[0] for outcome in early.values()} == {first}
            executor.submit([request_for("where", id="late")])
            (tmp_path / "b.go").touch()
            outcomes = early | await gather(executor, 5 - len(early))
            assert value_of(outcomes["b"]) == "went on"
            assert value_of(outcomes["late"])[0] != first
            await until_dead(first)

    asyncio.run(scenario())
