"""Leaving: what ends, what goes back, what the exit code says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from celeriac.errors import BackendError
from celeriac.executors.base import Lost

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.worker.conftest import Rig

    MakeRig = Callable[..., Rig]


async def fill(rig: Rig, count: int) -> None:
    for number in range(count):
        rig.broker.put("app.slow", f"t{number}")
    await rig.started("t0")
    await rig.until(lambda: len(rig.broker.held) == min(count, 6))


def test_a_warm_stop_ends_what_runs_and_gives_back_the_rest_in_order(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            await fill(rig, 8)
            rig.executor.unstarted.add("t1")
            rig.stop.set()
            await rig.until(lambda: "release" in rig.broker.verdicts("t2"))
            rig.executor.finish("t0")
        assert rig.code == 0
        assert rig.broker.verdicts("t0") == ["ack"]
        assert rig.broker.verdicts("t1") == ["release"], "the pool had it and did not start it"
        assert not rig.broker.held
        assert {message.attempt for message in rig.broker.waiting} == {0}, "not counted as an attempt"
        assert len(rig.broker.waiting) == 7
        assert rig.store.state("t0") == "SUCCESS"

    asyncio.run(story(make_rig(slots=2, ahead=0, prefetch_multiplier=3, look_ahead=0)))


def test_a_stop_while_a_fetch_is_in_flight_gives_back_what_it_brings(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            intake = rig.worker.pipeline.intake  # type: ignore[union-attr]
            await rig.until(lambda: rig.broker.receiving)
            stopping = asyncio.create_task(intake.stop(5.0))
            await asyncio.sleep(0)
            rig.broker.put("app.slow", "late")
            await stopping
            assert rig.broker.verdicts("late") == ["release"]
        assert not rig.executor.taken

    asyncio.run(story(make_rig(receive_wait=2.0)))


def test_what_runs_gets_its_lost_message_back_also_during_a_stop(make_rig: MakeRig) -> None:
    """Given back, it would run elsewhere, too."""

    async def story(rig: Rig) -> None:
        async with rig.running():
            pipeline = rig.worker.pipeline
            assert pipeline is not None
            await rig.until(lambda: rig.broker.receiving)
            waits = rig.broker.receiving
            await fill(rig, 1)
            again = rig.broker.take_away("t0")
            pipeline.claims.mark_lost(pipeline.claims.held["t0"])
            await rig.until(lambda: rig.broker.receiving > waits)
            stopping = asyncio.create_task(pipeline.intake.stop(30.0))
            await asyncio.sleep(0)
            again.attempt, again.redelivered = 1, True
            rig.broker.put_message(again)
            rig.broker.put("app.slow", "t1")
            await stopping
            rig.executor.finish("t0")
            await rig.settled("t0")
        assert rig.broker.verdicts("t0") == ["ack"]
        assert set(rig.broker.verdicts("t1")) <= {"release"}

    asyncio.run(story(make_rig(slots=2, receive_wait=2.0)))


def test_force_cuts_what_runs_and_gives_its_message_back(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            await fill(rig, 2)
            rig.stop.set()
            await rig.until(lambda: rig.worker.pipeline.dispatch.paused)  # type: ignore[union-attr]
            rig.worker.force()
        assert rig.code == 1
        assert [message.attempt for message in rig.broker.waiting] == [0, 0]
        assert rig.store.state("t0") is None

    asyncio.run(story(make_rig(shutdown_grace=60.0)))


def test_the_end_of_the_grace_is_a_forced_stop(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            await fill(rig, 1)
        assert rig.code == 1
        assert len(rig.broker.waiting) == 1

    asyncio.run(story(make_rig(shutdown_grace=0.05)))


def test_a_soft_timeout_lets_tasks_end_in_a_cold_stop(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            await fill(rig, 1)
            rig.worker.force()
            rig.stop.set()
            await rig.until(lambda: rig.worker.pipeline.dispatch.paused)  # type: ignore[union-attr]
            rig.executor.finish("t0")
        assert rig.code == 0
        assert rig.store.state("t0") == "SUCCESS"

    asyncio.run(story(make_rig(soft_timeout=5.0)))


def test_outcomes_that_cannot_be_written_at_the_end_are_told_by_the_exit_code(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        rig.store.fail("write", BackendError("away"), 1000)
        async with rig.running():
            rig.broker.put()
            await rig.until(lambda: rig.executor.taken)
        assert rig.code == 2
        assert not rig.broker.verdicts("t1"), "never acknowledged"

    asyncio.run(story(make_rig(flush_timeout=0.3)))


def test_a_task_acknowledged_early_and_cut_off_has_failed(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put("app.early", "e1")
            await rig.started("e1")
        assert rig.code == 1
        assert rig.store.state("e1") == "FAILURE"
        assert rig.broker.log == [("ack", "e1", "")]

    asyncio.run(story(make_rig(shutdown_grace=0.05)))


def test_an_idle_worker_stops_at_once(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            pass
        assert rig.code == 0

    asyncio.run(story(make_rig()))


def test_a_worker_that_never_met_its_broker_says_so(make_rig: MakeRig) -> None:
    from celeriac.errors import BrokerUnavailable

    async def story(rig: Rig) -> None:
        rig.broker.fail("declare", BrokerUnavailable("connection refused"), 1000)
        serving = asyncio.create_task(rig.worker.serve(rig.stop))
        await rig.until(lambda: rig.worker.pipeline and len(rig.broker.planned["declare"]) < 998)
        rig.stop.set()
        async with asyncio.timeout(60):
            assert await serving == 2

    asyncio.run(story(make_rig()))


def test_lost_outcomes_of_a_dying_pool_are_settled_during_the_stop(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            await fill(rig, 1)
            rig.stop.set()
            await rig.until(lambda: rig.worker.pipeline.dispatch.paused)  # type: ignore[union-attr]
            rig.executor.finish("t0", Lost("t0", True, "died", "signal 9 (SIGKILL)"))
        assert rig.code == 0
        assert rig.broker.log == [("release", "t0", "counted")]

    asyncio.run(story(make_rig()))
