"""What every executor whose tasks are greenlets must do besides."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, ClassVar

from celeriac.executors.base import Failed, Lost, Succeeded
from celeriac.testing.conformance.executor import appearance, gather, request_for, run_all, value_of
from celeriac.testing.conformance.executor_children import ChildrenSuite

if TYPE_CHECKING:
    from pathlib import Path


class GreenletsSuite(ChildrenSuite):
    """For pools that switch where a patched standard library waits."""

    starts_process: ClassVar[str] = "start_process_and_defy"

    def test_code_is_imported_into_a_patched_interpreter(self) -> None:
        async def scenario() -> None:
            async with self.running() as executor:
                [outcome] = await run_all(executor, request_for("patched"))
                assert value_of(outcome) == [True, True]

        asyncio.run(scenario())

    def test_waiting_tasks_share_one_process(self) -> None:
        async def scenario() -> None:
            async with self.running(children=1, slots_per_child=100) as executor:
                began = time.monotonic()
                outcomes = await run_all(
                    executor, *(request_for("doze", 0.5, id=f"d{number}") for number in range(100))
                )
                assert time.monotonic() - began < 40  # one after another: 50 s
                assert len({value_of(outcome) for outcome in outcomes}) == 1

        asyncio.run(scenario())

    def test_event_loops_have_a_place(self) -> None:
        async def scenario() -> None:
            async with self.running() as executor:
                in_thread, own_loop = await run_all(executor, request_for("use_thread"), request_for("run_a_loop"))
                assert (value_of(in_thread), value_of(own_loop)) == (3, 7)

        asyncio.run(scenario())

    def test_soft_limit_reaches_what_never_switches(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with self.running() as executor:
                [outcome] = await run_all(executor, request_for("compute", str(tmp_path / "c"), soft_limit=0.1))
                assert isinstance(outcome, Failed)
                assert outcome.error == "SoftTimeLimitExceeded()"

        asyncio.run(scenario())

    def test_what_waits_in_a_child_that_never_switches_is_run_elsewhere(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with self.running(children=2, slots_per_child=1) as executor:
                await self.warm_up(executor)
                executor.submit([request_for("compute", str(tmp_path / "c"), id="long")])
                await appearance(tmp_path / "c")
                executor.submit([request_for("noop", id=f"n{number}") for number in range(60)])
                outcomes = await gather(executor, 60)
                assert all(isinstance(outcome, Succeeded) for outcome in outcomes.values())
                assert "long" not in outcomes
                (tmp_path / "c.go").touch()
                await gather(executor, 1)

        asyncio.run(scenario())

    def test_a_hard_end_that_is_heeded_spares_the_neighbours(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with self.running(children=1, slots_per_child=3, kill_grace=20.0) as executor:
                executor.submit([request_for("block", str(tmp_path / "neighbour"), id="neighbour")])
                await appearance(tmp_path / "neighbour")
                [limited] = await run_all(executor, request_for("block", str(tmp_path / "a"), id="a", hard_limit=0.1))
                assert limited == Lost("a", True, "hard_limit", "hard time limit of 0.1 s exceeded")
                executor.submit([request_for("block", str(tmp_path / "b"), id="b")])
                await appearance(tmp_path / "b")
                assert executor.cancel("b", "hard")
                assert (await gather(executor, 1))["b"] == Lost("b", True, "revoked", "terminated on request")
                (tmp_path / "neighbour.go").touch()
                assert value_of((await gather(executor, 1))["neighbour"]) == "went on"

        asyncio.run(scenario())

    def test_a_hard_end_that_is_not_heeded_tells_the_neighbours_why(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with self.running(children=1, slots_per_child=3) as executor:
                executor.submit([request_for("block", str(tmp_path / "neighbour"), id="neighbour")])
                await appearance(tmp_path / "neighbour")
                executor.submit([request_for("defy", str(tmp_path / "d"), id="d")])
                await appearance(tmp_path / "d")
                assert executor.cancel("d", "hard")
                outcomes = await gather(executor, 2)
                assert outcomes["d"] == Lost("d", True, "revoked", "terminated on request")
                neighbour = outcomes["neighbour"]
                assert isinstance(neighbour, Lost)
                assert (neighbour.started, neighbour.cause) == (True, "stopped")
                assert "on account of another task" in neighbour.detail

        asyncio.run(scenario())
