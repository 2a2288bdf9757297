"""What every executor must do. Subclass :class:`ExecutorSuite` and name the driver's pool.

Every test builds its executor, waits only for events (outcomes, or files that tasks write) and has a deadline.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from celeriac import plugins
from celeriac.errors import ImproperlyConfigured, OperationalError
from celeriac.executors.base import (
    Executor,
    Failed,
    Ignored,
    Inspectable,
    Loader,
    Lost,
    Outcome,
    PoolOptions,
    Recalls,
    Rejected,
    Request,
    Succeeded,
    WantsRetry,
)
from celeriac.testing.conformance.executor_tasks import PATIENCE, TARGET
from celeriac.wire.result_record import decode_record
from celeriac.wire.task_message import TaskCall, encode_task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

SUITE_LOADER = Loader(TARGET, "suite")


def request_for(task: str, *args: Any, id: str | None = None, **fields: Any) -> Request:  # noqa: A002 - Celery's name
    """A request for a task of the suite. ``fields``: of the request, or of the call (``headers``, ``callbacks`` …)."""
    task_id = id or f"{task}-{time.monotonic_ns()}"
    limits = {name: fields.pop(name, None) for name in ("hard_limit", "soft_limit")}
    call = TaskCall(task=task, id=task_id, args=args, **fields)
    envelope = encode_task(call, time.time())
    return Request(task_id, task, envelope, "celery", "", "celery", False, 1, **limits)


async def gather(executor: Executor, count: int) -> dict[str, Outcome]:
    """The next ``count`` outcomes by id."""
    found: dict[str, Outcome] = {}
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            for outcome in await executor.outcomes():
                assert outcome.id not in found, f"two outcomes for {outcome.id}"
                found[outcome.id] = outcome
    return found


async def appearance(path: Path) -> None:
    """Until a task has written ``path``."""
    async with asyncio.timeout(PATIENCE):
        while not os.path.exists(path):  # noqa: ASYNC110, ASYNC240 - written by another process
            await asyncio.sleep(0.002)


async def run_all(executor: Executor, *requests: Request) -> list[Outcome]:
    """The outcomes of these requests, in their order."""
    executor.submit(requests)
    found = await gather(executor, len(requests))
    return [found[request.id] for request in requests]


def value_of(outcome: Outcome) -> Any:
    assert isinstance(outcome, Succeeded), outcome
    assert outcome.record is not None
    meta = decode_record(outcome.record)
    assert meta["status"] == "SUCCESS"
    return meta["result"]


class ExecutorSuite:
    """Results, endings, limits, cancellation, shutdown."""

    pool: ClassVar[str]
    children: ClassVar[int] = 1
    slots_per_child: ClassVar[int] = 1
    loop: ClassVar[str] = "asyncio"

    def options(self, **changes: Any) -> PoolOptions:
        values: dict[str, Any] = {
            "pool": self.pool, "children": self.children, "slots_per_child": self.slots_per_child, "kill_grace": 0.3,
            "loop": self.loop,
        }  # fmt: skip
        return PoolOptions(**(values | changes))

    def build(self, loader: Loader = SUITE_LOADER, **changes: Any) -> Executor:
        executor: Executor = plugins.load("executor", self.pool)(self.options(**changes), loader)
        return executor

    @asynccontextmanager
    async def running(self, **changes: Any) -> AsyncIterator[Executor]:
        executor = self.build(**changes)
        async with asyncio.timeout(PATIENCE):
            await executor.start()
        try:
            yield executor
        finally:
            async with asyncio.timeout(PATIENCE):
                await executor.stop(0.0)

    # ── how attempts end ─────────────────────────────────────────────────────────────────────────────────────

    def test_returns_results_of_functions_and_coroutines(self) -> None:
        async def scenario() -> None:
            async with self.running() as executor:
                outcomes = await run_all(executor, request_for("add", 1, 2), request_for("add_async", 3, 4))
                assert [value_of(outcome) for outcome in outcomes] == [3, 7]
                assert all(isinstance(outcome, Succeeded) and outcome.runtime >= 0 for outcome in outcomes)

        asyncio.run(scenario())

    def test_shows_the_task_its_request(self) -> None:
        async def scenario() -> None:
            async with self.running(hostname="w1@here") as executor:
                request = request_for("show_request", id="R1", headers={"tenant": "t1"}, soft_limit=50.0)
                [outcome] = await run_all(executor, request)
                assert value_of(outcome) == {
                    "id": "R1",
                    "headers": {"tenant": "t1"},
                    "delivery_info": {"exchange": "", "routing_key": "celery", "priority": 0, "redelivered": False},
                    "hostname": "w1@here",
                    "called_directly": False,
                    "limits": [None, 50.0],
                }

        asyncio.run(scenario())

    def test_reports_failures_with_traceback_and_record(self) -> None:
        async def scenario() -> None:
            async with self.running() as executor:
                for outcome in await run_all(executor, request_for("fail", "boom"), request_for("fail_async", "boom")):
                    assert isinstance(outcome, Failed)
                    assert outcome.error == "ValueError('boom', 9)"
                    assert "raise ValueError(text, 9)" in outcome.traceback
                    assert not outcome.expected
                    assert outcome.record is not None
                    error = decode_record(outcome.record)["result"]
                    assert type(error) is ValueError
                    assert error.args == ("boom", 9)
                [expected] = await run_all(executor, request_for("fail_as_expected"))
                assert isinstance(expected, Failed)
                assert expected.expected

        asyncio.run(scenario())

    def test_a_result_that_cannot_be_stored_is_a_failure(self) -> None:
        async def scenario() -> None:
            async with self.running() as executor:
                [outcome] = await run_all(executor, request_for("return_what_cannot_be_stored"))
                assert isinstance(outcome, Failed)
                assert outcome.error.startswith("EncodeError(")
                assert outcome.record is not None
                assert outcome.record.status == "FAILURE"

        asyncio.run(scenario())

    def test_retry_ignore_and_reject_are_outcomes(self) -> None:
        async def scenario() -> None:
            async with self.running() as executor:
                retry, ignore, back, gone = await run_all(
                    executor, request_for("ask_for_retry"), request_for("ignore_me"),
                    request_for("reject_me", True, id="back"), request_for("reject_me", False, id="gone"),
                )  # fmt: skip
                assert isinstance(retry, WantsRetry)
                assert [send.envelope.headers["retries"] for send in retry.sends] == [1]
                assert (retry.error, retry.shown) == ("OSError('busy')", "in 5s")
                assert retry.record is not None
                assert retry.record.status == "RETRY"
                assert isinstance(ignore, Ignored)
                assert isinstance(back, Rejected)
                assert (back.requeue, back.reason, back.record) == (True, "'not mine'", None)
                assert isinstance(gone, Rejected)
                assert gone.record is not None
                assert (gone.requeue, gone.record.status) == (False, "FAILURE")

        asyncio.run(scenario())

    def test_follow_ups_leave_with_the_outcome(self) -> None:
        async def scenario() -> None:
            link = [{"task": "add", "options": {"task_id": "linked"}}]
            async with self.running() as executor:
                good, bad, own = await run_all(
                    executor, request_for("add", 1, 1, callbacks=link), request_for("fail", "x", errbacks=link),
                    request_for("send_later"),
                )  # fmt: skip
                assert isinstance(good, Succeeded)
                assert isinstance(bad, Failed)
                assert isinstance(own, Succeeded)
                assert [(send.route.routing_key, send.envelope.headers["id"]) for send in good.sends] == [
                    ("callbacks", "linked")
                ]
                assert [send.route.routing_key for send in bad.sends] == ["errbacks"]
                assert [send.route.routing_key for send in own.sends] == ["later"]

        asyncio.run(scenario())

    def test_bad_messages_go_to_quarantine_and_hurt_nobody(self) -> None:
        async def scenario() -> None:
            broken = request_for("add", 1, 2, id="broken")
            broken.envelope.body = b"\xff not json"
            foreign = request_for("add", 1, 2, id="foreign")
            foreign.envelope.properties["content_type"] = "application/x-python-serialize"
            unknown = request_for("nobody.knows", id="unknown")
            async with self.running() as executor:
                outcomes = await run_all(executor, broken, foreign, unknown, request_for("add", 1, 2, id="good"))
                for outcome, reason in zip(
                    outcomes, ("DecodeError", "ContentDisallowed", "NotRegistered"), strict=False
                ):
                    assert isinstance(outcome, Failed)
                    assert outcome.quarantine is not None
                    assert outcome.quarantine.startswith(reason)
                assert value_of(outcomes[3]) == 3

        asyncio.run(scenario())

    def test_values_beyond_the_frames_between_processes_hurt_nobody(self) -> None:
        async def scenario() -> None:
            odd = request_for("noop", id="odd")
            odd.envelope.headers["count"] = 10**30
            async with self.running() as executor:
                outcomes = await run_all(executor, odd, request_for("add", 1, 2, id="good"))
                assert isinstance(outcomes[0], Succeeded) or outcomes[0].quarantine  # type: ignore[union-attr]
                assert value_of(outcomes[1]) == 3

        asyncio.run(scenario())

    def test_stopping_what_was_never_started_is_nothing(self) -> None:
        async def scenario() -> None:
            executor = self.build()
            assert list(await executor.stop(1.0)) == []
            assert list(await executor.outcomes()) == []

        asyncio.run(scenario())

    def test_a_task_cleans_up_with_awaits_after_its_soft_limit(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with self.running() as executor:
                [outcome] = await run_all(executor, request_for("clean_up_slowly", str(tmp_path / "a"), soft_limit=0.1))
                assert value_of(outcome) == [0, "cleaned up"]

        asyncio.run(scenario())

    def test_large_arguments_and_results_pass(self) -> None:
        async def scenario() -> None:
            async with self.running() as executor:
                size = 3_000_000
                [outcome] = await run_all(executor, request_for("big", size))
                assert len(value_of(outcome)) == size
                text = "y" * size
                [outcome] = await run_all(executor, request_for("add", text, "z"))
                assert value_of(outcome) == text + "z"

        asyncio.run(scenario())

    def test_thousands_pass_each_once(self) -> None:
        async def scenario() -> None:
            total = 5000
            async with self.running() as executor:
                requests = [request_for("noop", id=f"n{number}") for number in range(total)]
                seen: set[str] = set()
                given = 0
                async with asyncio.timeout(PATIENCE):
                    while len(seen) < total:
                        room = executor.room()
                        if room and given < total:
                            executor.submit(requests[given : given + room])
                            given = min(given + room, total)
                        for outcome in await executor.outcomes():
                            assert isinstance(outcome, Succeeded)
                            assert outcome.id not in seen
                            seen.add(outcome.id)

        asyncio.run(scenario())

    # ── soft ends ────────────────────────────────────────────────────────────────────────────────────────────

    def test_soft_limit_is_an_exception_that_a_task_may_heed(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with self.running() as executor:
                heeds, heeds_async = await run_all(
                    executor, request_for("clean_up", str(tmp_path / "a"), soft_limit=0.1),
                    request_for("clean_up_async", str(tmp_path / "b"), soft_limit=0.1),
                )  # fmt: skip
                assert value_of(heeds) == "cleaned up"
                assert value_of(heeds_async) == "cleaned up"
                fails, fails_async = await run_all(
                    executor, request_for("block", str(tmp_path / "c"), soft_limit=0.1),
                    request_for("block_async", str(tmp_path / "d"), soft_limit=0.1),
                )  # fmt: skip
                for outcome in (fails, fails_async):
                    assert isinstance(outcome, Failed)
                    assert outcome.error == "SoftTimeLimitExceeded()"
                [after] = await run_all(executor, request_for("add", 1, 2))
                assert value_of(after) == 3

        asyncio.run(scenario())

    def test_soft_cancel_ends_a_running_task(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with self.running() as executor:
                for task in ("block", "block_async"):
                    executor.submit([request_for(task, str(tmp_path / task), id=task)])
                    await appearance(tmp_path / task)
                    assert executor.cancel(task, "soft")
                    outcome = (await gather(executor, 1))[task]
                    assert isinstance(outcome, Lost)
                    assert (outcome.started, outcome.cause) == (True, "revoked")
                [after] = await run_all(executor, request_for("add", 1, 2))
                assert value_of(after) == 3

        asyncio.run(scenario())

    def test_cancelling_what_waits_keeps_it_from_running(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            ran = tmp_path / "ran"
            async with self.running() as executor:
                slots = executor.slots
                executor.submit([request_for("block", str(tmp_path / f"b{number}")) for number in range(slots)])
                for number in range(slots):
                    await appearance(tmp_path / f"b{number}")
                executor.submit([request_for("mark", str(ran), id="waits")])
                assert executor.cancel("waits", "soft")
                outcome = (await gather(executor, 1))["waits"]
                assert outcome == Lost("waits", False, "revoked", "cancelled before it started")
                for number in range(slots):
                    (tmp_path / f"b{number}.go").touch()
                await gather(executor, slots)
            assert not ran.exists()

        asyncio.run(scenario())

    def test_what_may_only_be_cancelled_unstarted_runs_on_once_started(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with self.running() as executor:
                slots = executor.slots
                names = [f"b{number}" for number in range(slots)]
                executor.submit([request_for("block", str(tmp_path / name), id=name) for name in names])
                for name in names:
                    await appearance(tmp_path / name)
                executor.submit([request_for("mark", str(tmp_path / "ran"), id="waits")])
                assert executor.cancel("waits", "unstarted")
                assert (await gather(executor, 1))["waits"].started is False  # type: ignore[union-attr]  # it is Lost
                for name in names:
                    assert executor.cancel(name, "unstarted")
                for name in names:
                    (tmp_path / f"{name}.go").touch()
                outcomes = await gather(executor, slots)
                assert {type(outcomes[name]) for name in names} == {Succeeded}
            assert not (tmp_path / "ran").exists()

        asyncio.run(scenario())

    def test_what_runs_can_be_seen(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with self.running() as executor:
                if not isinstance(executor, Inspectable):
                    pytest.skip("does not show what runs")
                assert executor.in_work() == []
                began = time.monotonic()
                executor.submit([request_for("block", str(tmp_path / "b"), id="b")])
                await appearance(tmp_path / "b")
                [work] = executor.in_work()
                assert (work.id, work.pid in executor.processes()) == ("b", True)
                assert began <= work.since <= time.monotonic()
                (tmp_path / "b.go").touch()
                await gather(executor, 1)

        asyncio.run(scenario())

    def test_cancelling_what_is_not_here_says_so(self) -> None:
        async def scenario() -> None:
            async with self.running() as executor:
                assert not executor.cancel("nobody", "soft")
                assert not executor.cancel("nobody", "hard")

        asyncio.run(scenario())

    # ── stopping ─────────────────────────────────────────────────────────────────────────────────────────────

    def test_stop_waits_for_what_runs_and_returns_what_does_not(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            executor = self.build()
            await executor.start()
            slots = executor.slots
            executor.submit([request_for("block", str(tmp_path / f"b{number}")) for number in range(slots)])
            for number in range(slots):
                await appearance(tmp_path / f"b{number}")
            ran = tmp_path / "ran"
            executor.submit([request_for("mark", str(ran), id=f"m{number}") for number in range(3)])
            stopping = asyncio.ensure_future(executor.stop(PATIENCE))
            await asyncio.sleep(0)
            for number in range(slots):
                (tmp_path / f"b{number}.go").touch()
            async with asyncio.timeout(PATIENCE):
                unstarted = await stopping
            assert [request.id for request in unstarted] == ["m0", "m1", "m2"]
            assert not ran.exists()
            assert [value_of(outcome) for outcome in await rest(executor)] == ["went on"] * slots
            try:
                executor.submit([request_for("noop")])
            except OperationalError:
                return
            raise AssertionError("a stopped executor took a request")

        asyncio.run(scenario())

    def test_what_has_not_begun_can_be_called_back_at_once(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            executor = self.build()
            if not isinstance(executor, Recalls):
                return
            await executor.start()
            slots = executor.slots
            executor.submit([request_for("block", str(tmp_path / f"b{number}")) for number in range(slots)])
            for number in range(slots):
                await appearance(tmp_path / f"b{number}")
            executor.submit([request_for("noop", id=f"n{number}") for number in range(3)])
            async with asyncio.timeout(PATIENCE):
                assert [request.id for request in await executor.recall()] == ["n0", "n1", "n2"]
            stopping = asyncio.ensure_future(executor.stop(PATIENCE))
            for number in range(slots):
                (tmp_path / f"b{number}.go").touch()
            async with asyncio.timeout(PATIENCE):
                assert await stopping == []
            assert [value_of(outcome) for outcome in await rest(executor)] == ["went on"] * slots

        asyncio.run(scenario())

    def test_stop_interrupts_what_is_not_done_after_the_grace(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            executor = self.build()
            await executor.start()
            executor.submit([request_for("block", str(tmp_path / "b"), id="b")])
            await appearance(tmp_path / "b")
            async with asyncio.timeout(PATIENCE):
                assert await executor.stop(0.05) == []
            [outcome] = await rest(executor)
            assert isinstance(outcome, Lost)
            assert (outcome.id, outcome.started, outcome.cause) == ("b", True, "stopped")

        asyncio.run(scenario())

    def test_a_second_stop_hastens_the_first(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            executor = self.build()
            await executor.start()
            executor.submit([request_for("block", str(tmp_path / "b"), id="b")])
            await appearance(tmp_path / "b")
            first = asyncio.ensure_future(executor.stop(PATIENCE * 10))
            await asyncio.sleep(0)
            async with asyncio.timeout(PATIENCE):
                await executor.stop(0.0)
                await first
            [outcome] = await rest(executor)
            assert isinstance(outcome, Lost)

        asyncio.run(scenario())

    def test_code_that_does_not_load_is_told_once(self) -> None:
        async def scenario() -> None:
            executor = self.build(Loader(TARGET, "broken"))
            text = ""
            try:
                async with asyncio.timeout(PATIENCE):
                    await executor.start()
            except ImproperlyConfigured as error:
                text = str(error)
            assert "left_out" in text

        asyncio.run(scenario())


async def rest(executor: Executor) -> Sequence[Outcome]:
    """Every outcome that a stopped executor still has."""
    found: list[Outcome] = []
    async with asyncio.timeout(PATIENCE):
        while outcomes := await executor.outcomes():
            found.extend(outcomes)
    return found
