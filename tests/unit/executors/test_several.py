"""Several real pools as one executor: what is for the one never touches the other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from celeriac.errors import ImproperlyConfigured
from celeriac.executors.base import (
    Condition,
    Divided,
    Examinable,
    Executor,
    Inspectable,
    Loader,
    Lost,
    PoolOptions,
    Recalls,
    Renewable,
    Spares,
)
from celeriac.executors.selection import executor_class
from celeriac.executors.several import SeveralPools
from celeriac.testing.conformance.executor import SUITE_LOADER, appearance, gather, request_for, run_all, value_of
from celeriac.testing.conformance.executor_tasks import PATIENCE, TARGET

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("prefork", "asyncio")
PLACES = {"block_async": 1, "add_async": 1, "fail_async": 1}


def two_pools(loader: Loader = SUITE_LOADER, second: Loader | None = None) -> SeveralPools:
    """One process for functions, one with two coroutines."""
    pools: list[Executor] = [
        executor_class(name)(
            PoolOptions(pool=name, children=1, slots_per_child=slots, look_ahead=0, kill_grace=0.3), loads
        )
        for name, slots, loads in zip(NAMES, (1, 2), (loader, second or loader), strict=True)
    ]
    return SeveralPools(NAMES, pools, PLACES)


def test_is_all_that_its_pools_are() -> None:
    executor = two_pools()
    for kind in (Divided, Examinable, Inspectable, Recalls, Renewable, Spares):
        assert isinstance(executor, kind)
    assert executor.slots == 3
    assert [executor.place(name) for name in ("block", "add_async", "unheard of")] == [0, 1, 0]


def test_a_full_pool_does_not_stop_the_other(tmp_path: Path) -> None:
    async def story() -> None:
        executor = two_pools()
        async with asyncio.timeout(PATIENCE):
            await executor.start()
        try:
            executor.submit([request_for("block", str(tmp_path / "a"), id="a")])
            await appearance(tmp_path / "a")
            assert executor.rooms() == [0, 2]
            assert value_of((await run_all(executor, request_for("add_async", 1, 2)))[0]) == 3
            executor.submit([request_for("block_async", str(tmp_path / name), id=name) for name in ("b", "c")])
            await appearance(tmp_path / "b")
            await appearance(tmp_path / "c")
            assert executor.rooms() == [0, 0]
            assert {work.id for work in executor.in_work()} == {"a", "b", "c"}
            assert len(set(executor.processes())) == 2
            assert executor.condition() == Condition(2, 0)
            executor.submit([request_for("block", "", id="d"), request_for("block_async", "", id="e")])
            assert {one.id for one in executor.spare(lambda request: request.id == "e")} == {"e"}
            # its process is killed, and only its own
            assert executor.cancel("a", "hard")
            assert executor.cancel("d", "unstarted")
            assert not executor.cancel("unheard of", "hard")
            ended = await gather(executor, 2)
            assert isinstance(ended["a"], Lost)
            assert ended["a"].cause == "revoked"
            assert {work.id for work in executor.in_work()} == {"b", "c"}
            stopping = asyncio.ensure_future(executor.stop(PATIENCE))
            (tmp_path / "b.go").touch()
            (tmp_path / "c.go").touch()
            assert {value_of(outcome) for outcome in (await gather(executor, 2)).values()} == {"went on"}
            assert await stopping == []
            assert await executor.outcomes() == ()
        finally:
            async with asyncio.timeout(PATIENCE):
                await executor.stop(0.0)

    asyncio.run(story())


def test_if_one_cannot_start_none_stays() -> None:
    async def story() -> None:
        executor = two_pools(second=Loader(TARGET, "broken"))
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(ImproperlyConfigured, match="broken"):
                await executor.start()
        assert executor.processes() == []
        assert await executor.stop(0.0) == []
        assert await executor.outcomes() == ()

    asyncio.run(story())
