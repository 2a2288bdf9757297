"""Waiting: one thread for all coroutines, which ends when nobody waits and comes back when somebody does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest

from celeriac.client import tracker as tracker_module
from celeriac.client.tracker import Tracker
from celeriac.clock import SYSTEM_CLOCK
from celeriac.results.memory import MemoryStore
from celeriac.settings import Settings
from celeriac.wire.result_record import ResultRecord


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    store = MemoryStore(f"memory://{os.urandom(8).hex()}", Settings(), SYSTEM_CLOCK)
    yield store
    store.close()


@pytest.fixture
def tracker(store: MemoryStore) -> Tracker:
    return Tracker(lambda: store, SYSTEM_CLOCK)


def record(task_id: str, status: str = "SUCCESS") -> ResultRecord:
    return ResultRecord(task_id, status, b"{}")


def test_blocking_waits(store: MemoryStore, tracker: Tracker):
    store.write([record("a"), record("running", "STARTED")])
    assert set(tracker.wait(["a", "running"], 0.01)) == {"a"}
    assert set(tracker.wait_any(["a", "running"], None)) == {"a"}
    store.write([record("running")])
    assert set(tracker.wait(["a", "running"], None)) == {"a", "running"}


def test_a_late_comer_does_not_wait_for_the_present_look_to_end(
    store: MemoryStore, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tracker_module, "SLICE", 200.0)

    async def both() -> Any:
        first = asyncio.create_task(tracker.await_all(["never"], 150))
        for _ in range(20_000):
            if tracker._followed is not None:
                break
            await asyncio.sleep(0.001)
        store.write([record("there")])
        found = await asyncio.wait_for(tracker.await_all(["there"], None), 60)
        first.cancel()
        return found

    assert set(asyncio.run(both())) == {"there"}


def test_nothing_to_wait_for(tracker: Tracker):
    assert asyncio.run(tracker.await_all([], None)) == {}


def test_the_thread_ends_when_idle(store: MemoryStore, tracker: Tracker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tracker_module, "IDLE", 0.01)
    store.write([record("a")])
    for _ in range(2):
        assert set(asyncio.run(tracker.await_all(["a"], 10))) == {"a"}
        thread = tracker._thread
        if thread is not None:
            thread.join(timeout=60)
            assert not thread.is_alive()
    assert tracker._thread is None


def test_a_forked_child_waits_for_itself(store: MemoryStore, tracker: Tracker):
    store.write([record("a")])
    assert set(asyncio.run(tracker.await_all(["a"], 10))) == {"a"}
    child = os.fork()
    if child == 0:
        try:
            found = asyncio.run(tracker.await_all(["a"], 10))
            os._exit(0 if set(found) == {"a"} else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
