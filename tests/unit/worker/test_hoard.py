"""What waits here behind long tasks goes back, and only then."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from celeriac.worker import hoard

if TYPE_CHECKING:
    from tests.unit.worker.conftest import Rig

    MakeRig = type[Rig]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hoard, "_STILL", 0.05)


def numbered(rig: Rig, count: int, task: str = "app.slow") -> list[str]:
    names = [f"t{number}" for number in range(count)]
    for name in names:
        rig.broker.put(task, name)
    return names


def releases(rig: Rig) -> list[str]:
    return [task_id for verdict, task_id, _ in rig.broker.log if verdict == "release"]


async def fetched_ahead(rig: Rig, count: int) -> None:
    """Messages came as if tasks were short, and then are long."""
    assert rig.worker.pipeline is not None
    rig.worker.pipeline.settle.pace = 1e9
    numbered(rig, count)
    await rig.until(lambda: len(rig.broker.held) == count)
    rig.worker.pipeline.settle.pace = 0.0


def test_what_waits_behind_long_tasks_goes_back_once_and_comes_again_when_there_is_room(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            await fetched_ahead(rig, 10)
            await rig.until(lambda: len(releases(rig)) == 8)
            assert set(rig.executor.running) == {"t0", "t1"}
            assert len(rig.broker.waiting) == 8
            for done in range(10):
                await rig.until(lambda: rig.executor.running)
                rig.executor.finish(next(iter(rig.executor.running)))
                await rig.until(lambda done=done: len(rig.executor.taken) == min(10, done + 3))
            await rig.settled(*(f"t{number}" for number in range(10)))
        assert rig.code == 0
        assert len(rig.executor.taken) == 10

    asyncio.run(story(make_rig(slots=2, ahead=0, prefetch_multiplier=1)))


def test_what_was_asked_for_stays(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            await fetched_ahead(rig, 10)
            await rig.until(lambda: len(releases(rig)) == 4)
            assert rig.claims.ready_count == 4  # (3 - 1) x slots
            rig.executor.kill_now.set()

    asyncio.run(story(make_rig(slots=2, ahead=0, prefetch_multiplier=3)))


def test_nothing_goes_back_while_anything_moves(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            await fetched_ahead(rig, 200)
            pipeline = rig.worker.pipeline
            assert pipeline is not None
            for _ in range(50):
                await rig.until(lambda: len(rig.executor.running) == 2)
                rig.executor.finish(next(iter(rig.executor.running)))
                before = pipeline.dispatch.handed
                await rig.until(lambda before=before: pipeline.dispatch.handed > before)
                pipeline.hoard.look()
            assert not releases(rig)
            rig.executor.kill_now.set()

    # looked at by hand only: each time after something has moved
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(hoard, "_STILL", 3600.0)
        asyncio.run(story(make_rig(slots=2, ahead=0, prefetch_multiplier=1)))


def test_what_the_executor_has_not_given_to_a_child_goes_back_too(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            numbered(rig, 5)
            rig.broker.put("app.early", "t5")
            await rig.started(*(f"t{number}" for number in range(6)))
            rig.executor.ahead = 0  # its children are busy, and it has taken too many
            rig.executor.waiting = {"t2", "t3", "t4", "t5"}
            await rig.until(lambda: sorted(releases(rig)) == ["t2", "t3", "t4"])
            assert set(rig.executor.running) == {"t0", "t1", "t5"}  # what is acknowledged is not the broker's any more
            rig.executor.kill_now.set()

    asyncio.run(story(make_rig(slots=2, ahead=4, prefetch_multiplier=1)))
