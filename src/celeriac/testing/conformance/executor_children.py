"""What every executor with child processes must do besides: crashes, hard ends, recall, renewal, no orphans."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

from celeriac.executors.base import Failed, Loader, Lost, Succeeded
from celeriac.testing.conformance.executor import (
    ExecutorSuite,
    appearance,
    gather,
    request_for,
    run_all,
    value_of,
)
from celeriac.testing.conformance.executor_tasks import PATIENCE, TARGET


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until_dead(pid: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while is_alive(pid):  # noqa: ASYNC110 - the end of a process that is not our child is no event
            await asyncio.sleep(0.01)


class ChildrenSuite(ExecutorSuite):
    """For pools whose tasks run in processes that can be killed."""

    #: a task that a hard end costs its process
    starts_process: ClassVar[str] = "start_process"

    # ── crashes ──────────────────────────────────────────────────────────────────────────────────────────────

    def crash(self, task: str, *args: Any) -> Lost:
        async def scenario() -> Lost:
            async with self.running() as executor:
                [outcome] = await run_all(executor, request_for(task, *args))
                [after] = await run_all(executor, request_for("add", 1, 2))
                assert value_of(after) == 3
                assert isinstance(outcome, Lost)
                return outcome

        return asyncio.run(scenario())

    def test_a_task_that_exits_its_process_is_lost(self) -> None:
        lost = self.crash("exit_at_once", 7)
        assert (lost.started, lost.cause, lost.detail) == (True, "died", "exit status 7")

    def test_a_task_that_kills_its_process_is_lost(self) -> None:
        lost = self.crash("kill_myself", int(signal.SIGKILL))
        assert (lost.started, lost.cause, lost.detail) == (True, "died", "signal 9 (SIGKILL)")

    def test_a_segmentation_fault_is_lost(self) -> None:
        lost = self.crash("segfault")
        assert (lost.started, lost.cause, lost.detail) == (True, "died", "signal 11 (SIGSEGV)")

    def test_a_task_that_closes_our_sockets_costs_only_its_process(self) -> None:
        """Its outcome is read from shared memory, if it got as far as having one."""

        async def scenario() -> None:
            async with self.running(children=1) as executor:
                [before] = await run_all(executor, request_for("where"))
                [outcome] = await run_all(executor, request_for("close_every_file"))
                assert isinstance(outcome, Succeeded | Lost)
                [after] = await run_all(executor, request_for("where"))
                assert value_of(after)[0] != value_of(before)[0]

        asyncio.run(scenario())

    def test_a_crash_costs_only_what_had_started(self, tmp_path: Path) -> None:
        """Outcomes before it arrive, requests behind it run, each exactly once."""

        async def scenario() -> None:
            ran = tmp_path / "ran"
            async with self.running(children=1, slots_per_child=1) as executor:
                await self.warm_up(executor)
                bomb = str(tmp_path / "bomb")
                for _ in range(5):
                    await run_all(executor, *(request_for("exit_if", bomb, id=f"x{number}") for number in range(10)))
                before = [request_for("mark", str(ran), id=f"before{number}") for number in range(20)]
                after = [request_for("mark", str(ran), id=f"after{number}") for number in range(20)]
                (tmp_path / "bomb").touch()
                executor.submit([*before, request_for("exit_if", bomb, id="crash"), *after])
                outcomes = await gather(executor, 41)
                crash = outcomes.pop("crash")
                assert isinstance(crash, Lost)
                assert (crash.started, crash.cause) == (True, "died")
                assert all(isinstance(outcome, Succeeded) for outcome in outcomes.values())
            assert ran.read_text().count("ran") == 40

        asyncio.run(scenario())

    def test_system_exit_is_reported_and_the_child_replaced(self) -> None:
        async def scenario() -> None:
            async with self.running(children=1) as executor:
                [first] = await run_all(executor, request_for("where"))
                [outcome] = await run_all(executor, request_for("leave_process"))
                assert isinstance(outcome, Failed)
                assert outcome.error == "SystemExit(3)"
                await until_dead(value_of(first)[0])
                [second] = await run_all(executor, request_for("where"))
                assert value_of(second)[0] != value_of(first)[0]

        asyncio.run(scenario())

    async def warm_up(self, executor: Any) -> None:
        """Until tasks of the suite are known to be short, so that they are given ahead."""
        async with asyncio.timeout(PATIENCE):
            while executor.room() < 30:
                await run_all(executor, *(request_for("noop", id=f"warm{number}") for number in range(20)))
                await run_all(executor, *(request_for("mark", os.devnull, id=f"m{number}") for number in range(20)))

    # ── fairness ─────────────────────────────────────────────────────────────────────────────────────────────

    def test_requests_behind_a_long_task_are_taken_back_and_run_elsewhere(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with self.running(children=2, slots_per_child=1) as executor:
                await self.warm_up(executor)
                # short by reputation, long by fate: the file to go on exists for all but one
                for number in range(40):
                    (tmp_path / f"p{number}.go").touch()
                (tmp_path / "long").unlink(missing_ok=True)
                for _ in range(5):
                    await run_all(executor, *(request_for("block", str(tmp_path / f"p{n}")) for n in range(40)))
                shorts = [request_for("block", str(tmp_path / f"p{number}"), id=f"s{number}") for number in range(40)]
                executor.submit([request_for("block", str(tmp_path / "long"), id="long"), *shorts])
                outcomes = await gather(executor, 40)
                assert "long" not in outcomes
                (tmp_path / "long.go").touch()
                assert value_of((await gather(executor, 1))["long"]) == "went on"

        asyncio.run(scenario())

    def test_a_finished_outcome_does_not_wait_for_a_long_task_behind_it(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with self.running(children=1, slots_per_child=1) as executor:
                await self.warm_up(executor)
                (tmp_path / "short.go").touch()
                for number in range(5):
                    await run_all(executor, request_for("block", str(tmp_path / "short"), id=f"w{number}"))
                executor.submit(
                    [request_for("noop", id="quick"), request_for("block", str(tmp_path / "long"), id="long")]
                )
                assert list(await gather(executor, 1)) == ["quick"]
                (tmp_path / "long.go").touch()
                await gather(executor, 1)

        asyncio.run(scenario())

    # ── hard ends ────────────────────────────────────────────────────────────────────────────────────────────

    def test_hard_limit_ends_what_heeds_nothing(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            path = tmp_path / "defy"
            async with self.running() as executor:
                for _ in range(10):  # where the machine is slow, the hard limit may come before the task has said so
                    [outcome] = await run_all(executor, request_for("defy", str(path), soft_limit=0.1, hard_limit=0.4))
                    assert isinstance(outcome, Lost)
                    assert (outcome.started, outcome.cause) == (True, "hard_limit")
                    assert outcome.detail == "hard time limit of 0.4 s exceeded"
                    if os.path.exists(f"{path}.defied"):  # noqa: ASYNC240 - a test may block
                        break
                else:
                    raise AssertionError("the soft limit never came first")
                [after] = await run_all(executor, request_for("add", 1, 2))
                assert value_of(after) == 3

        asyncio.run(scenario())

    def test_limits_count_from_the_start_of_the_task(self, tmp_path: Path) -> None:
        """Tasks that wait behind others of their kind are not charged for waiting."""

        async def scenario() -> None:
            async with self.running(children=1, slots_per_child=1) as executor:
                requests = [
                    request_for("clean_up", str(tmp_path / f"r{number}"), soft_limit=0.15, hard_limit=20.0)
                    for number in range(3)
                ]
                began = time.monotonic()
                for outcome in await run_all(executor, *requests):
                    assert isinstance(outcome, Succeeded)
                    assert outcome.runtime >= 0.14
                assert time.monotonic() - began >= 0.42

        asyncio.run(scenario())

    def test_hard_cancel_ends_what_heeds_nothing(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with self.running() as executor:
                executor.submit([request_for("defy", str(tmp_path / "d"), id="d")])
                await appearance(tmp_path / "d")
                assert executor.cancel("d", "hard")
                outcome = (await gather(executor, 1))["d"]
                assert outcome == Lost("d", True, "revoked", "terminated on request")

        asyncio.run(scenario())

    def test_a_hard_end_reaches_processes_that_the_task_started(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with self.running() as executor:
                executor.submit([request_for(self.starts_process, str(tmp_path / "p"), id="p")])
                await appearance(tmp_path / "p")
                assert executor.cancel("p", "hard")
                await gather(executor, 1)
                await until_dead(int((tmp_path / "p").read_text()))

        asyncio.run(scenario())

    def test_stop_kills_what_heeds_nothing(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            executor = self.build()
            await executor.start()
            executor.submit([request_for("defy", str(tmp_path / "d"), id="d")])
            await appearance(tmp_path / "d")
            async with asyncio.timeout(PATIENCE):
                assert await executor.stop(0.0) == []
            [outcome] = await executor.outcomes()
            assert isinstance(outcome, Lost)
            assert (outcome.id, outcome.started, outcome.cause) == ("d", True, "stopped")
            assert await executor.outcomes() == ()

        asyncio.run(scenario())

    # ── renewal ──────────────────────────────────────────────────────────────────────────────────────────────

    def test_a_child_retires_after_its_number_of_tasks(self) -> None:
        async def scenario() -> None:
            async with self.running(children=1, max_tasks_per_child=3) as executor:
                outcomes = await run_all(executor, *(request_for("where", id=f"w{number}") for number in range(9)))
                pids = [value_of(outcome)[0] for outcome in outcomes]
                assert len(pids) == 9
                # fewer where a child was slow: what it had been given and not started went to the next one
                assert max(map(pids.count, pids)) <= 3

        asyncio.run(scenario())

    def test_a_child_that_uses_too_much_memory_is_replaced(self) -> None:
        async def scenario() -> None:
            async with self.running(children=1, max_memory_per_child_kib=1) as executor:
                [first] = await run_all(executor, request_for("where", id="a"))
                [second] = await run_all(executor, request_for("where", id="b"))
                assert value_of(first)[0] != value_of(second)[0]

        asyncio.run(scenario())

    def test_code_that_starts_threads_is_forked_before_it_is_loaded(self) -> None:
        async def scenario() -> None:
            executor = self.build(Loader(TARGET, "threaded"))
            async with asyncio.timeout(PATIENCE):
                await executor.start()
                [outcome] = await run_all(executor, request_for("add", 1, 2))
                assert value_of(outcome) == 3
                await executor.stop(1.0)

        asyncio.run(scenario())

    def test_children_can_be_fresh_interpreters(self) -> None:
        async def scenario() -> None:
            async with self.running(start_method="spawn", children=1) as executor:
                [outcome] = await run_all(executor, request_for("add", 1, 2))
                assert value_of(outcome) == 3
                [lost] = await run_all(executor, request_for("kill_myself", int(signal.SIGKILL)))
                assert isinstance(lost, Lost)
                assert lost.detail == "signal 9 (SIGKILL)"
                [outcome] = await run_all(executor, request_for("add", 1, 2))
                assert value_of(outcome) == 3

        asyncio.run(scenario())

    # ── no orphans ───────────────────────────────────────────────────────────────────────────────────────────

    def test_nothing_outlives_a_killed_worker(self, tmp_path: Path) -> None:
        program = (
            "import sys; sys.path[:] = eval(sys.argv[1])\n"
            "from celeriac.testing.conformance.executor_children import worker_that_blocks\n"
            "worker_that_blocks(sys.argv[2], *sys.argv[3:])"
        )
        arguments = [repr(sys.path), str(tmp_path / "b"), self.pool, str(self.slots_per_child)]
        worker = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE)
        with worker:
            assert worker.stdout is not None
            pids = [int(word) for word in worker.stdout.readline().split()]
            assert len(pids) >= 2
            asyncio.run(appearance(tmp_path / "b"))
            worker.kill()

        async def all_dead() -> None:
            async with asyncio.timeout(PATIENCE):
                for pid in pids:
                    await until_dead(pid)

        asyncio.run(all_dead())


def worker_that_blocks(path: str, pool: str, slots: str) -> None:
    """Be a worker whose task waits; print the pids of all processes below."""

    async def scenario() -> None:
        suite = type("Suite", (ChildrenSuite,), {"pool": pool, "slots_per_child": int(slots)})()
        executor = suite.build(children=2)
        await executor.start()
        print(*descendants(os.getpid()), flush=True)  # noqa: T201 - it is this process's answer
        executor.submit([request_for("defy", path)])
        await asyncio.sleep(PATIENCE)

    asyncio.run(scenario())


def descendants(pid: int) -> list[int]:
    """The pids of all processes below ``pid``."""
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            child = int(stat.parent.name)
            found += [child, *descendants(child)]
    return found
