"""``--statedb``: written whole, read once, and never somebody else's."""

from __future__ import annotations

import asyncio
import json
import os
import shelve
import stat
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from celeriac.clock import SYSTEM_CLOCK, LamportClock
from celeriac.errors import ImproperlyConfigured
from celeriac.worker import state_file
from celeriac.worker.revoked import Revoked
from celeriac.worker.state_file import StateFile

if TYPE_CHECKING:
    from pathlib import Path


def made(path: Path) -> tuple[StateFile, Revoked, LamportClock]:
    revoked, lamport = Revoked(SYSTEM_CLOCK), LamportClock()
    cancelling: Any = SimpleNamespace(revoked=revoked)
    return StateFile(str(path), cancelling, lamport, SYSTEM_CLOCK), revoked, lamport


def test_what_is_revoked_and_the_clock_survive_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_file, "_PAUSE", 0.01)
    path = tmp_path / "w1.state"

    async def first() -> None:
        file, revoked, lamport = made(path)
        assert file.load() == []
        running = asyncio.create_task(file.run(lambda: None))
        lamport.adjust(41)
        revoked.add(["a", "b"])
        revoked.add(["short"], 0.001)
        revoked.add_stamps("customer", ["7"])
        async with asyncio.timeout(30):
            while "customer" not in path.read_text():  # noqa: ASYNC110 - the file tells nobody
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait((running,))
        lamport.adjust(99)
        await file.close()

    asyncio.run(first())
    assert [name.name for name in tmp_path.iterdir()] == ["w1.state"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    file, revoked, lamport = made(path)
    time.sleep(0.002)
    assert {standing.entry.value for standing in file.load()} == {"a", "b", "7"}
    assert list(revoked) == ["a", "b"]
    assert set(revoked.stamps) == {"customer"}
    assert lamport.value > 99


def test_celerys_shelf_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "worker.state"
    with shelve.open(os.fspath(path)) as shelf:
        shelf["zrevoked"] = b"pickled"
    before = {name.name: name.read_bytes() for name in tmp_path.iterdir()}
    file, revoked, _ = made(path)
    file.load()
    revoked.add(["a"])
    file._write()
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert "Celery" in caplog.text or "stays as it is" in caplog.text
    again, known, _ = made(path)
    again.load()
    assert list(known) == ["a"]


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00\x01", b"[]", b"{}x", b"{}", b'{"format": "other"}', b'{"revoked": [["", "a"]]}', b"[" * 100_000],
)
def test_a_file_that_is_not_ours_stays_as_it_is(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    file, revoked, _ = made(path)
    file.load()
    assert file.path == tmp_path / "notes.txt.celeriac"
    revoked.add(["a"])
    file._write()
    assert path.read_bytes() == content
    assert "stays as it is" in caplog.text


def test_hostile_entries_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "state"
    ends = time.time() + 1000
    rows = [["", "../../x", ends], ["", "good", 1e300], ["", "old", 1.0], ["h" * 300, "v", ends], ["h", "v", ends]]
    path.write_text(json.dumps({"format": "celeriac worker state 1", "clock": 5, "revoked": rows}))
    file, revoked, _ = made(path)
    found = file.load()
    assert [standing.entry.value for standing in found] == ["good", "v"]
    assert found[0].left <= 10 * revoked.kept


def test_no_place_for_it_is_said_at_the_start(tmp_path: Path) -> None:
    file, _, _ = made(tmp_path / "missing" / "state")
    with pytest.raises(ImproperlyConfigured, match="worker_state_db"):
        file.load()
    (tmp_path / "a").mkdir()
    (tmp_path / "a.celeriac").mkdir()
    with pytest.raises(ImproperlyConfigured, match="worker_state_db"):
        made(tmp_path / "a")[0].load()
