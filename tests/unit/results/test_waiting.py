"""One look at the store serves all who wait."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import BackendError
from celeriac.results.waiting import Waiter
from celeriac.wire.result_record import ResultRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Polled:
    """A store that cannot notify; counts what it is asked."""

    capabilities: Any = None
    engine_key = ("polled",)

    def __init__(self) -> None:
        self.records: dict[str, ResultRecord] = {}
        self.asked: list[tuple[str, ...]] = []
        self.busy = 0
        self.most_busy = 0
        self.error: Exception | None = None

    def write(self, records: Sequence[ResultRecord]) -> None:
        self.records.update({record.task_id: record for record in records})

    def read(self, ids: Sequence[str], deadline: float | None = None) -> Mapping[str, ResultRecord]:
        self.asked.append(tuple(ids))
        if self.error is not None:
            raise self.error
        return {task_id: self.records[task_id] for task_id in ids if task_id in self.records}

    def forget(self, ids: Sequence[str]) -> None: ...
    def cleanup(self) -> int:
        return 0

    def close(self) -> None: ...


class Watched(Polled):
    """A store that notifies; two threads in ``watch`` at once are an error of the waiter's."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Condition()
        self.changes = 0
        self.watched: list[tuple[str, ...]] = []

    def write(self, records: Sequence[ResultRecord]) -> None:
        super().write(records)
        self.interrupt()

    def watch(self, ids: Sequence[str], wait: float) -> Mapping[str, ResultRecord]:
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        self.watched.append(tuple(ids))
        try:
            with self.changed:
                if not any(task_id in self.records for task_id in ids):
                    self.changed.wait(wait)
                return {task_id: self.records[task_id] for task_id in ids if task_id in self.records}
        finally:
            self.busy -= 1

    def interrupt(self) -> None:
        with self.changed:
            self.changes += 1
            self.changed.notify_all()


def success(*ids: str) -> list[ResultRecord]:
    return [ResultRecord(task_id, "SUCCESS", b"") for task_id in ids]


def wait_in_thread(waiter: Waiter, ids: list[str], timeout: float = 90) -> tuple[threading.Thread, dict[str, Any]]:
    found: dict[str, Any] = {}

    def work() -> None:
        try:
            found.update(waiter.wait(ids, timeout))
        except BackendError as error:
            found["error"] = error

    thread = threading.Thread(target=work)
    thread.start()
    return thread, found


def until(condition: Any) -> None:
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.001)


@pytest.mark.parametrize("store", [Polled(), Watched()], ids=["polled", "watched"])
def test_each_thread_gets_its_own(store: Any) -> None:
    waiter = Waiter(store, SYSTEM_CLOCK)
    waits = [wait_in_thread(waiter, [f"{n}-a", f"{n}-b"]) for n in range(8)]
    until(lambda: len(waiter._waits) == 8)
    store.write([ResultRecord(f"{n}-a", "STARTED", b"") for n in range(8)])
    for n in reversed(range(8)):
        store.write(success(f"{n}-a"))
    for n in range(8):
        store.write(success(f"{n}-b"))
    for n, (thread, found) in enumerate(waits):
        thread.join(60)
        assert sorted(found) == [f"{n}-a", f"{n}-b"]
    assert store.most_busy <= 1
    assert waiter._leader is None
    assert not waiter._waits


def test_one_thread_watches_for_all() -> None:
    store = Watched()
    waiter = Waiter(store, SYSTEM_CLOCK)
    waits = [wait_in_thread(waiter, [str(n)]) for n in range(5)]
    until(lambda: any(set(ids) == set("01234") for ids in store.watched))
    assert store.most_busy == 1
    store.write(success(*"01234"))
    for thread, _ in waits:
        thread.join(60)


def test_the_lead_passes_on_when_the_leader_leaves() -> None:
    store = Watched()
    waiter = Waiter(store, SYSTEM_CLOCK)
    first, _ = wait_in_thread(waiter, ["never"], timeout=0.3)
    until(lambda: waiter._leader is not None)
    second, found = wait_in_thread(waiter, ["later"])
    first.join(60)
    until(lambda: store.watched[-1] == ("later",))
    store.write(success("later"))
    second.join(60)
    assert set(found) == {"later"}


def test_an_error_reaches_each_waiter_and_frees_the_lead() -> None:
    store = Polled()
    waiter = Waiter(store, SYSTEM_CLOCK)
    waits = [wait_in_thread(waiter, [str(n)]) for n in range(3)]
    until(lambda: len(waiter._waits) == 3)
    store.error = BackendError("gone")
    for thread, found in waits:
        thread.join(60)
        assert "error" in found
    assert waiter._leader is None
    store.error = None
    store.write(success("x"))
    assert set(waiter.wait(["x"], 5)) == {"x"}


def test_polling_backs_off() -> None:
    store = Polled()
    assert not Waiter(store, SYSTEM_CLOCK).wait(["never"], 0.4)
    assert len(store.asked) <= 20  # fewer on a machine that is slow


def test_interrupting_ends_the_waits_or_the_next_one() -> None:
    store = Watched()
    waiter = Waiter(store, SYSTEM_CLOCK)
    thread, found = wait_in_thread(waiter, ["never"])
    until(lambda: store.watched)
    began = time.monotonic()
    waiter.interrupt()
    thread.join(60)
    waiter.interrupt()
    assert not waiter.wait(["never"], 90)
    assert time.monotonic() - began < 60
    assert not found
    store.write(success("x"))
    assert set(waiter.wait(["x", "never"], 0.05)) == {"x"}


def test_a_child_starts_afresh() -> None:
    store = Watched()
    waiter = Waiter(store, SYSTEM_CLOCK)
    thread, _ = wait_in_thread(waiter, ["x"])
    until(lambda: store.watched)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            store.records["x"] = success("x")[0]
            status = 0 if set(waiter.wait(["x"], 5)) == {"x"} and waiter._leader is None else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store.write(success("x"))
    thread.join(60)
