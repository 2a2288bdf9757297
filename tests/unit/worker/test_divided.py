"""Several pools behind one queue: none waits for another, and who waits in the way goes back for a while."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.worker.conftest import FakeTask, Rig, ScriptedExecutor

from celeriac.executors.several import SeveralPools
from celeriac.rules.limit import Limit
from celeriac.worker import divided
from celeriac.worker.autoscale import Autoscaler
from celeriac.worker.options import PoolShape

if TYPE_CHECKING:
    from celeriac.worker.assembly import Parts


class RigOfTwo(Rig):
    """A second pool, for ``app.quick`` and ``app.lasting``."""

    def __init__(self, **plan: Any) -> None:
        self.second = ScriptedExecutor(2, 0)
        self.second.script["app.lasting"] = lambda _: None
        values: dict[str, Any] = {
            "slots": 2, "ahead": 0, "prefetch_multiplier": 1, "look_ahead": 0,
            "pools": (PoolShape("one", 2, 1), PoolShape("two", 1, 2)),
        }  # fmt: skip
        super().__init__(**(values | plan))

    def _parts(self) -> Parts:
        for name in ("app.quick", "app.lasting"):
            self.tasks[name] = FakeTask(name)
        executor: Any = SeveralPools(("one", "two"), [self.executor, self.second], {"app.quick": 1, "app.lasting": 1})
        return super()._parts()._replace(executor=executor)

    def put_all(self, task: str, letter: str, count: int) -> list[str]:
        names = [f"{letter}{number}" for number in range(count)]
        for name in names:
            self.broker.put(task, name)
        return names

    @property
    def waiting(self) -> list[str]:
        """What is held here and runs nowhere."""
        return [claim.id for claim in self.claims.ready]


@pytest.fixture(autouse=True)
def small_and_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("CROWD", 6), ("_LOOK", 0.01), ("_PATIENCE", 0.02), ("_STILL", 0.05), ("_SOON", 0.0)):
        monkeypatch.setattr(divided, name, value)


def test_what_waits_for_a_full_pool_does_not_hold_up_the_other(rig_of_two: type[RigOfTwo]) -> None:
    """Though there is more of it than the worker would ever hold; and all of it runs in the end."""

    async def story(rig: RigOfTwo) -> None:
        slow = rig.put_all("app.slow", "s", 20)
        quick = rig.put_all("app.quick", "q", 10)
        async with rig.running():
            await rig.settled(*quick)
            assert set(rig.executor.running) == {"s0", "s1"}
            assert len(rig.waiting) <= 4 + 6
            assert {which for verdict, which, _ in rig.broker.log if verdict == "park"} <= set(slow[2:])
            for done in range(20):
                await rig.until(lambda: rig.executor.running)
                rig.executor.finish(next(iter(rig.executor.running)))
                await rig.until(lambda done=done: len(rig.executor.taken) == min(20, done + 3))
            await rig.until(lambda: all("ack" in rig.broker.verdicts(name) for name in slow))
            assert rig.claims.totals == {"app.slow": 20, "app.quick": 10}
        assert rig.code == 0

    asyncio.run(story(rig_of_two()))


def test_without_delays_in_the_broker_they_wait_here(rig_of_two: type[RigOfTwo]) -> None:
    async def story(rig: RigOfTwo) -> None:
        rig.put_all("app.slow", "s", 50)
        quick = rig.put_all("app.quick", "q", 10)
        async with rig.running():
            await rig.settled(*quick)
            await rig.until(lambda: len(rig.waiting) == 48)
            assert not rig.broker.verdicts("s20")
            rig.executor.unstarted = {"s0", "s1"}
        assert rig.code == 0
        assert len(rig.broker.waiting) == 50

    asyncio.run(story(rig_of_two(delays=False)))


def test_what_will_start_soon_stays(rig_of_two: type[RigOfTwo], monkeypatch: pytest.MonkeyPatch) -> None:
    """At the pace of its pool: a fast one never sends anything back."""
    monkeypatch.setattr(divided, "_SOON", 1e9)

    async def story(rig: RigOfTwo) -> None:
        async with rig.running():
            rig.broker.put("app.add", "first")
            await rig.settled("first")
            rig.put_all("app.slow", "s", 20)
            await rig.until(lambda: len(rig.waiting) == 6)
            crowd: Any = rig.worker.pipeline
            for _ in range(5):
                await asyncio.sleep(0.02)  # longer than its patience
                crowd.hoard.look()
            assert len(rig.waiting) == 6
            assert not [entry for entry in rig.broker.log if entry[0] == "park"]
            rig.executor.unstarted = {"s0", "s1"}

    asyncio.run(story(rig_of_two()))


def test_nothing_is_acknowledged_early_that_its_pool_cannot_take(rig_of_two: type[RigOfTwo]) -> None:
    async def story(rig: RigOfTwo) -> None:
        rig.put_all("app.early", "e", 4)
        async with rig.running():
            await rig.started("e0", "e1")
            rig.broker.put("app.quick", "q")
            await rig.settled("q")
            assert "ack" in rig.broker.verdicts("e1")
            assert "ack" not in rig.broker.verdicts("e2")
            rig.executor.finish("e0")
            await rig.started("e2")
            rig.executor.finish("e1")
            rig.executor.finish("e2")
            await rig.started("e3")
            rig.executor.finish("e3")
        assert rig.code == 0

    asyncio.run(story(rig_of_two()))


def test_what_a_pool_took_and_cannot_begin_goes_back_though_the_other_moves(rig_of_two: type[RigOfTwo]) -> None:
    async def story(rig: RigOfTwo) -> None:
        rig.executor.ahead = 2
        async with rig.running():
            rig.put_all("app.slow", "s", 4)
            await rig.started("s0", "s1", "s2", "s3")
            rig.executor.ahead = 0  # its children are busy after all
            rig.executor.waiting = {"s2", "s3"}
            for number in range(1000):
                rig.broker.put("app.quick", f"q{number}")
                await rig.settled(f"q{number}")
                if len(rig.executor.running) == 2:
                    break
            assert set(rig.executor.running) == {"s0", "s1"}
            await rig.until(lambda: rig.broker.verdicts("s2"))
            assert rig.broker.verdicts("s2")[0] == "release"
            rig.executor.kill_now.set()

    asyncio.run(story(rig_of_two()))


def test_limits_are_not_asked_for_tasks_whose_pool_is_full(rig_of_two: type[RigOfTwo]) -> None:
    async def story(rig: RigOfTwo) -> None:
        async with rig.running():
            limited = rig.put_all("app.few", "f", 8)
            await rig.started("f0", "f1")
            rig.broker.put("app.quick", "q")
            await rig.settled("q")
            pipeline = rig.worker.pipeline
            assert pipeline is not None
            assert pipeline.gate is not None
            [(_, _, permits)] = pipeline.gate.keys()
            assert permits == 2
            for done in range(8):
                await rig.until(lambda: rig.executor.running)
                rig.executor.finish(next(iter(rig.executor.running)))
                await rig.until(lambda done=done: len(rig.executor.taken) == min(8, done + 3))
            await rig.until(lambda: all("ack" in rig.broker.verdicts(name) for name in limited))
        assert rig.code == 0

    asyncio.run(story(rig_of_two(limits={"app.few": [Limit(concurrency=5)]})))


def test_a_suspect_runs_alone_in_its_own_pool(rig_of_two: type[RigOfTwo]) -> None:
    async def story(rig: RigOfTwo) -> None:
        async with rig.running():
            rig.broker.put("app.slow", "before")
            await rig.started("before")
            rig.broker.put("app.slow", "suspect", attempt=3)
            rig.broker.put("app.slow", "after")
            rig.broker.put("app.quick", "q0")
            await rig.settled("q0")
            assert set(rig.executor.running) == {"before"}
            rig.executor.finish("before")
            await rig.started("suspect")
            rig.broker.put("app.few", "limited")
            rig.broker.put("app.quick", "q1")
            await rig.settled("q1")
            assert set(rig.executor.running) == {"suspect"}
            rig.executor.finish("suspect")
            await rig.started("after", "limited")
            rig.executor.finish("after")
            rig.executor.finish("limited")
        assert rig.code == 0

    asyncio.run(story(rig_of_two(limits={"app.few": [Limit(concurrency=5)]})))


def test_a_terminated_task_ends_as_its_own_pool_allows(rig_of_two: type[RigOfTwo]) -> None:
    """Where others share the process, an exception in the task; where not, the process goes."""

    async def story(rig: RigOfTwo) -> None:
        async with rig.running():
            rig.broker.put("app.slow", "s")
            rig.broker.put("app.lasting", "l")
            await rig.until(lambda: rig.executor.running and rig.second.running)
            pipeline = rig.worker.pipeline
            assert pipeline is not None
            pipeline.cancelling.cancel({"s", "l"}, {}, "SIGTERM")
            assert ("s", "hard") in rig.executor.cancelled
            assert ("l", "soft") in rig.second.cancelled
            rig.executor.kill_now.set()
            rig.second.kill_now.set()

    asyncio.run(story(rig_of_two()))


def test_the_autoscaler_counts_its_own_pool(rig_of_two: type[RigOfTwo]) -> None:
    async def story(rig: RigOfTwo) -> None:
        async with rig.running():
            rig.put_all("app.lasting", "l", 2)
            rig.put_all("app.slow", "s", 5)
            await rig.until(lambda: len(rig.second.running) == 2 and len(rig.waiting) == 3)
            pipeline = rig.worker.pipeline
            assert pipeline is not None
            assert isinstance(pipeline.autoscaler, Autoscaler)
            info = pipeline.autoscaler.info()
            assert (info["current"], info["qty"]) == (2, 5)
            rig.executor.kill_now.set()
            rig.second.kill_now.set()

    asyncio.run(story(rig_of_two(prefetch_multiplier=4, autoscale=(2, 2))))


@pytest.fixture
def rig_of_two() -> type[RigOfTwo]:
    return RigOfTwo
