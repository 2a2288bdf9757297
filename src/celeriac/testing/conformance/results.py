"""What every result store must do. ``class TestMine(ResultSuite)`` plus a fixture ``driver`` runs it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import msgspec
import pytest

from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import BackendError
from celeriac.results.base import GroupStore, ResultStore, Watches
from celeriac.results.waiting import Waiter
from celeriac.wire.result_record import ResultRecord

#: seconds that one wait may take
DEADLINE = 60.0
_numbers = count(1)


class ResultDriver(msgspec.Struct, kw_only=True):
    """How the suite reaches a store."""

    name: str
    #: a new store object; all reach the same records
    open: Callable[[], ResultStore]
    #: let this many seconds pass for the store
    advance: Callable[[float], None]


def record(task_id: str, status: str = "SUCCESS", value: int = 1, **options: Any) -> ResultRecord:
    meta = {"status": status, "result": value, "traceback": None, "children": [], "task_id": task_id}
    return ResultRecord(task_id, status, msgspec.json.encode(meta), **options)


class ResultSuite:
    """The tests. Each uses ids of its own."""

    @pytest.fixture
    def store(self, driver: ResultDriver) -> Any:
        store = driver.open()
        yield store
        store.close()

    @pytest.fixture
    def name(self) -> str:
        return f"conformance-{next(_numbers)}"

    def test_a_record_is_read_back(self, driver: ResultDriver, store: ResultStore, name: str) -> None:
        written = record(name, "FAILURE", 7, expires_in=60.0)
        store.write([written])
        found = store.read([name])[name]
        assert (found.task_id, found.status, found.payload) == (name, "FAILURE", written.payload)
        assert (found.content_type, found.content_encoding) == ("application/json", "utf-8")
        if store.capabilities.persistent:
            assert driver.open().read([name])[name].payload == written.payload

    def test_unknown_ids_are_missing(self, store: ResultStore, name: str) -> None:
        assert not store.read([name])
        assert not store.read([])
        store.write([record(name)])
        assert set(store.read([name, name + "-other"])) == {name}

    def test_many_at_once(self, store: ResultStore, name: str) -> None:
        records = [record(f"{name}-{n}", value=n) for n in range(1200)]
        store.write(records)
        found = store.read([one.task_id for one in records])
        assert {key: one.payload for key, one in found.items()} == {one.task_id: one.payload for one in records}

    def test_later_states_replace_earlier_ones(self, store: ResultStore, name: str) -> None:
        for status in ("STARTED", "RETRY", "FAILURE", "STARTED", "PROGRESS", "SUCCESS"):
            store.write([record(name, status)])
            assert store.read([name])[name].status == status

    def test_a_success_stays(self, store: ResultStore, name: str) -> None:
        store.write([record(name, "SUCCESS", 1)])
        store.write([record(name, "FAILURE", 2), record(name + "-other", "FAILURE", 2)])
        store.write([record(name, "SUCCESS", 3)])
        assert store.read([name])[name].payload == record(name, "SUCCESS", 1).payload
        assert store.read([name + "-other"])[name + "-other"].status == "FAILURE"

    def test_the_first_success_of_a_batch_stays(self, store: ResultStore, name: str) -> None:
        store.write([record(name, "STARTED"), record(name, "SUCCESS", 1), record(name, "FAILURE", 2)])
        assert store.read([name])[name].payload == record(name, "SUCCESS", 1).payload

    def test_forgotten_records_are_gone(self, store: ResultStore, name: str) -> None:
        store.write([record(name), record(name + "-kept")])
        store.forget([name, "never-there"])
        assert set(store.read([name, name + "-kept"])) == {name + "-kept"}
        store.write([record(name, "FAILURE")])  # and the success they held binds no more
        assert store.read([name])[name].status == "FAILURE"

    def test_expired_records_are_gone(self, driver: ResultDriver, store: ResultStore, name: str) -> None:
        store.write([record(name, expires_in=30.0), record(name + "-kept")])
        assert len(store.read([name, name + "-kept"])) == 2
        driver.advance(31.0)
        assert set(store.read([name, name + "-kept"])) == {name + "-kept"}
        removed = store.cleanup()
        assert removed == (0 if store.capabilities.expires else 1)
        assert set(store.read([name, name + "-kept"])) == {name + "-kept"}

    def test_groups_are_kept(self, driver: ResultDriver, store: ResultStore, name: str) -> None:
        if not store.capabilities.groups:
            pytest.skip("keeps no groups")
        assert isinstance(store, GroupStore)
        assert store.restore_group(name) is None
        store.save_group(name, b"one", 30.0)
        store.save_group(name + "-kept", b"two", None)
        store.save_group(name, b"three", 30.0)
        assert store.restore_group(name) == b"three"
        driver.advance(31.0)
        assert store.restore_group(name) is None
        assert store.restore_group(name + "-kept") == b"two"
        store.delete_group(name + "-kept")
        assert store.restore_group(name + "-kept") is None

    def test_hostile_ids_stay_ids(self, store: ResultStore, name: str) -> None:
        for hostile in ("../../etc/passwd", "a'; DROP TABLE result; --", "x" * 10_000, "*", "a\0b", "a\r\nb", ""):
            try:
                store.write([record(hostile)])
                assert set(store.read([hostile])) == {hostile}
            except BackendError:
                pass  # refusing is as good as keeping
        store.write([record(name)])
        assert set(store.read([name])) == {name}

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────

    def test_watching_sees_the_end(self, driver: ResultDriver, store: ResultStore, name: str) -> None:
        if not store.capabilities.watch:
            pytest.skip("cannot watch")
        assert isinstance(store, Watches)
        writer = driver.open()
        seen: dict[str, ResultRecord] = {}

        def watch() -> None:
            ends = time.monotonic() + DEADLINE
            while name not in seen and time.monotonic() < ends:
                seen.update(store.watch([name, name + "-never"], 1.0))

        watching = threading.Thread(target=watch)
        watching.start()
        writer.write([record(name, "STARTED")])
        writer.write([record(name + "-foreign")])
        writer.write([record(name, "FAILURE", 5)])
        watching.join(DEADLINE)
        assert seen[name].status == "FAILURE"
        assert set(store.watch([name], DEADLINE)) == {name}
        assert not store.watch([name + "-never"], 0.05)
        writer.close()

    def test_a_watch_can_be_interrupted(self, store: ResultStore, name: str) -> None:
        if not isinstance(store, Watches):
            pytest.skip("cannot watch")
        began = time.monotonic()
        ended = threading.Event()

        def watch() -> None:
            while not ended.is_set():
                store.watch([name], DEADLINE)

        watching = threading.Thread(target=watch)
        watching.start()
        ended.set()
        store.interrupt()
        watching.join(DEADLINE)
        assert not watching.is_alive()
        assert time.monotonic() - began < DEADLINE / 2

    def test_a_waiter_gets_all_of_them(self, driver: ResultDriver, store: ResultStore, name: str) -> None:
        waiter = Waiter(store, SYSTEM_CLOCK)
        ids = [f"{name}-{n}" for n in range(40)]
        found: dict[str, dict[str, ResultRecord]] = {}

        def wait(part: int) -> None:
            wanted = ids[part * 10 : part * 10 + 20]
            found[str(part)] = dict(waiter.wait(wanted, DEADLINE))

        waiting = [threading.Thread(target=wait, args=(part,)) for part in range(3)]
        for thread in waiting:
            thread.start()
        writer = driver.open()
        for task_id in ids:
            writer.write([record(task_id, "STARTED")])
        for start in range(0, 40, 4):
            writer.write([record(task_id) for task_id in ids[start : start + 4]])
        for thread in waiting:
            thread.join(DEADLINE)
        assert {part: sorted(records) for part, records in found.items()} == {
            str(part): sorted(ids[part * 10 : part * 10 + 20]) for part in range(3)
        }
        writer.close()

    def test_a_waiter_gives_up_in_time(self, store: ResultStore, name: str) -> None:
        waiter = Waiter(store, SYSTEM_CLOCK)
        store.write([record(name)])
        assert set(waiter.wait([name, name + "-never"], 0.05)) == {name}
        assert not waiter.wait([name + "-never"], 0)
        assert set(waiter.wait_any([name, name + "-never"], DEADLINE)) == {name}
        assert not waiter.wait([], DEADLINE)
