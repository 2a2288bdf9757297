"""How children come to be, and what happens when that fails."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import threading

import pytest

from celeriac.errors import ImproperlyConfigured, UnsafeCombination
from celeriac.executors.base import Loader, PoolOptions, RunnableOptions
from celeriac.executors.children.child import Setup
from celeriac.executors.children.link import NurseryLink
from celeriac.executors.children.nursery import Kill, Nursery, encode_line
from celeriac.executors.children.pool import ChildrenExecutor
from celeriac.executors.inline import InlineExecutor
from celeriac.testing.conformance.executor import appearance, gather, request_for, run_all, value_of
from celeriac.testing.conformance.executor_children import descendants, until_dead
from celeriac.testing.conformance.executor_tasks import OPTIONS, PATIENCE, TARGET, PlainTask, SuiteRegistry

SUITE = Loader(TARGET, "suite")


async def checked(loader: Loader, **options: object) -> None:
    """Start, run one task, stop."""
    executor = ChildrenExecutor(PoolOptions(children=1, **options), loader)  # type: ignore[arg-type]
    async with asyncio.timeout(PATIENCE):
        await executor.start()
        [outcome] = await run_all(executor, request_for("add", 1, 2))
        assert value_of(outcome) == 3
        await executor.stop(1.0)


def test_a_worker_with_threads_gets_a_fresh_nursery() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait, args=(PATIENCE,))
    thread.start()
    try:
        asyncio.run(checked(SUITE))
    finally:
        done.set()
        thread.join()


def test_an_app_without_a_name_cannot_be_spawned() -> None:
    with pytest.raises(ImproperlyConfigured, match="no importable name"):
        asyncio.run(checked(Loader("", "", SuiteRegistry), start_method="spawn"))


def test_an_app_without_a_name_is_forked() -> None:
    program = (
        "import sys; sys.path[:] = eval(sys.argv[1])\n"
        "import asyncio\n"
        "from celeriac.executors.base import Loader, PoolOptions\n"
        "from celeriac.executors.children.pool import ChildrenExecutor\n"
        "from celeriac.testing.conformance.executor import request_for, run_all, value_of\n"
        "from celeriac.testing.conformance.executor_tasks import OPTIONS, PlainTask, SuiteRegistry\n"
        "registry = SuiteRegistry()\n"
        "registry.tasks['local'] = PlainTask('local', lambda: 'from a closure', OPTIONS)\n"
        "async def main():\n"
        "    executor = ChildrenExecutor(PoolOptions(children=1), Loader('', '', lambda: registry))\n"
        "    await executor.start()\n"
        "    [outcome] = await run_all(executor, request_for('local'))\n"
        "    print(value_of(outcome))\n"
        "    await executor.stop(1.0)\n"
        "async def patiently():\n"
        "    asyncio.get_running_loop().slow_callback_duration = 60.0  # a machine at work is no fault\n"
        "    await main()\n"
        "asyncio.run(patiently())\n"
    )
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program, repr(sys.path)],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (result.stdout, result.stderr) == ("from a closure\n", "")


def test_code_that_takes_too_long_to_load_is_told() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"not loaded within 0\.3 s"):
        asyncio.run(checked(Loader(TARGET, "slow"), start_timeout=0.3))


def test_broken_code_in_fresh_interpreters_is_told_once() -> None:
    with pytest.raises(ImproperlyConfigured, match="left_out"):
        asyncio.run(checked(Loader(TARGET, "broken"), start_method="spawn"))


def test_the_death_of_the_nursery_costs_only_what_runs(tmp_path) -> None:
    async def scenario() -> None:
        executor = ChildrenExecutor(PoolOptions(children=2), SUITE)
        async with asyncio.timeout(PATIENCE):
            before = set(descendants(os.getpid()))
            await executor.start()
            assert executor._births.link is not None
            nursery = executor._births.link._pid
            children = descendants(nursery)
            executor.submit([request_for("block", str(tmp_path / "b"), id="b")])
            await appearance(tmp_path / "b")
            os.kill(nursery, signal.SIGKILL)
            lost = (await gather(executor, 1))["b"]
            assert (lost.started, lost.cause) == (True, "died")  # type: ignore[union-attr]
            for child in children:
                await until_dead(child)
            [outcome] = await run_all(executor, request_for("add", 1, 2))
            assert value_of(outcome) == 3
            await executor.stop(1.0)
        assert set(descendants(os.getpid())) <= before

    asyncio.run(scenario())


def test_a_request_given_to_a_child_that_has_just_died_with_its_nursery_is_run_by_the_next() -> None:
    async def scenario() -> None:
        executor = ChildrenExecutor(PoolOptions(children=2), SUITE)
        async with asyncio.timeout(PATIENCE):
            await executor.start()
            assert executor._births.link is not None
            sockets = [executor._births.link._control, *(member.pipe._sock for member in executor._members.values())]
            os.kill(executor._births.link._pid, signal.SIGKILL)
            for each in sockets:  # the loop stands still, so the executor does not know yet
                poll = select.poll()
                poll.register(each, select.POLLHUP)
                assert poll.poll(PATIENCE * 1000)
            [outcome] = await run_all(executor, request_for("add", 1, 2))
            assert value_of(outcome) == 3
            await executor.stop(1.0)

    asyncio.run(scenario())


def test_a_nursery_that_cannot_be_started_for_a_while_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        executor = ChildrenExecutor(PoolOptions(children=1), SUITE)
        async with asyncio.timeout(PATIENCE):
            await executor.start()
            assert executor._births.link is not None
            fork, spawn = NurseryLink._fork, NurseryLink._spawn
            failed = asyncio.Event()

            def fail(self: NurseryLink, *arguments: object) -> int:
                monkeypatch.setattr(NurseryLink, "_fork", fork)
                monkeypatch.setattr(NurseryLink, "_spawn", spawn)
                failed.set()
                raise BlockingIOError(errno.EAGAIN, "no processes left")

            monkeypatch.setattr(NurseryLink, "_fork", fail)
            monkeypatch.setattr(NurseryLink, "_spawn", fail)
            os.kill(executor._births.link._pid, signal.SIGKILL)
            await failed.wait()
            [outcome] = await run_all(executor, request_for("add", 1, 2))
            assert value_of(outcome) == 3
            await executor.stop(1.0)

    asyncio.run(scenario())


def test_the_nursery_never_waits_for_an_order_while_it_could_reap() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, open(os.devnull, "rb") as file:
        nursery = Nursery(Setup(options=PoolOptions(), target=TARGET, argument="suite", path=[]), theirs, None)
        assert nursery._read_orders()  # nothing has come: the test's time limit is the assertion
        killed: list[int] = []
        nursery._kill = killed.append  # type: ignore[method-assign]
        socket.send_fds(ours, [encode_line(Kill(7))], [file.fileno()])
        assert nursery._read_orders()
        assert killed == [7]
        os.close(nursery._fds.popleft())
        ours.shutdown(socket.SHUT_WR)
        assert not nursery._read_orders()
        nursery._wake_reader.close()
        nursery._wake_writer.close()


def test_solo_refuses_hard_limits_at_the_start() -> None:
    def limited() -> SuiteRegistry:
        registry = SuiteRegistry()
        values = {name: getattr(OPTIONS, name) for name in RunnableOptions.__struct_fields__}
        registry.tasks["limited"] = PlainTask("limited", int, RunnableOptions(**(values | {"time_limit": 5.0})))
        return registry

    with pytest.raises(UnsafeCombination, match="limited"):
        asyncio.run(InlineExecutor(PoolOptions(pool="solo"), Loader("", "", limited)).start())
    with pytest.raises(UnsafeCombination, match="--time-limit"):
        asyncio.run(InlineExecutor(PoolOptions(pool="solo", hard_limit=5.0), Loader("", "", SuiteRegistry)).start())


def test_no_children_are_left_after_a_stop() -> None:
    before = set(descendants(os.getpid()))
    asyncio.run(checked(SUITE))
    assert set(descendants(os.getpid())) <= before


def test_no_file_descriptors_are_left_after_a_stop() -> None:
    asyncio.run(checked(SUITE))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        asyncio.run(checked(SUITE, max_tasks_per_child=1))
    assert len(os.listdir("/proc/self/fd")) <= before
