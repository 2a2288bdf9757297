"""Rate limits in the engine: who must wait is not in the way of the others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Rig = Any
    MakeRig = Callable[..., Any]


def test_limited_tasks_start_a_steady_interval_apart_and_in_order(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        starts: list[tuple[str, float]] = []
        run = rig.executor.script["app.add"]
        rig.executor.script["app.paced"] = lambda request: (
            starts.append((request.id, asyncio.get_running_loop().time())) or run(request)
        )
        async with rig.running():
            for number in range(5):
                rig.broker.put("app.paced", task_id=f"p{number}")
            rig.broker.put(task_id="free")
            await rig.settled("free")
            assert len(starts) < 5, "the unlimited one was held up by the limited"
            await rig.settled(*(f"p{number}" for number in range(5)))
        assert [task_id for task_id, _ in starts] == [f"p{number}" for number in range(5)]
        assert starts[-1][1] - starts[0][1] >= 4 * 0.05 - 0.01

    asyncio.run(story(make_rig()))


def test_what_may_start_much_later_waits_at_the_broker(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            for number in range(3):
                rig.broker.put("app.hourly", task_id=f"h{number}")
            await rig.settled("h0", "h1", "h2")
        assert [request.id for request in rig.executor.taken] == ["h0"]
        assert rig.broker.verdicts("h1") == rig.broker.verdicts("h2") == ["park"]
        assert rig.claims.held == {}

    asyncio.run(story(make_rig()))


def test_a_lifted_limit_is_felt_by_the_next_message(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put("app.hourly", task_id="h0")
            await rig.settled("h0")
            rig.worker.pipeline.pacing.limit("app.hourly", None)
            rig.broker.put("app.hourly", task_id="h1")
            await rig.settled("h1")
            rig.worker.pipeline.pacing.limit("app.add", "1/h")
            rig.broker.put(task_id="a0")
            rig.broker.put(task_id="a1")
            await rig.settled("a0", "a1")
        assert rig.broker.verdicts("h1") == ["ack"]
        assert [rig.broker.verdicts("a0"), rig.broker.verdicts("a1")] == [["ack"], ["park"]]

    asyncio.run(story(make_rig()))


def test_limits_can_be_switched_off(make_rig: MakeRig) -> None:
    async def story(rig: Rig) -> None:
        async with rig.running():
            rig.broker.put("app.hourly", task_id="h0")
            rig.broker.put("app.hourly", task_id="h1")
            await rig.settled("h0", "h1")
        assert rig.broker.verdicts("h1") == ["ack"]

    asyncio.run(story(make_rig(rate_limits=False)))
