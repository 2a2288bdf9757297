"""The doorbell wakes whom it concerns, survives the dead, and is private."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from celeriac.embedded.doorbell import QUEUES, RESULTS, Doorbells, directory_for, make_private
from celeriac.errors import SecurityWarning

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Shorter than pytest's own, which leave no room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="bells") as name:
        yield Path(name)


@pytest.fixture
def bells(tmp_path: Path) -> Doorbells:
    return Doorbells(tmp_path / "q.sqlite3")


def test_a_ring_reaches_its_kind_only(bells: Doorbells) -> None:
    one, two, other = bells.bell(QUEUES), bells.bell(QUEUES), bells.bell(RESULTS)
    bells.ring(QUEUES, ["a", "b"])
    assert one.wait(60) == two.wait(60) == b"a\nb"
    assert other.drain() is None
    assert one.drain() is None
    for bell in (one, two, other):
        bell.close()
    bells.ring(QUEUES, ["a"])  # to nobody


def test_rings_add_up_and_long_ones_mean_anything(bells: Doorbells) -> None:
    bell = bells.bell(QUEUES)
    bells.ring(QUEUES, ["a"])
    bells.ring(QUEUES, ["b"])
    assert bell.wait(60) == b"a\nb"
    bells.ring(QUEUES, ["a"])
    bells.ring(QUEUES, ["x" * 5000])
    assert bell.wait(60) == b""
    bell.close()


def test_waking_is_quick_and_interruptible(bells: Doorbells) -> None:
    bell = bells.bell(QUEUES)
    for wake in (bell.interrupt, lambda: bells.ring(QUEUES, [])):
        began = time.monotonic()
        timer = threading.Timer(0.02, wake)
        timer.start()
        assert bell.wait(60) == b""
        assert time.monotonic() - began < 50
        timer.join()
    assert bell.wait(0) is None
    bell.close()


def test_a_full_bell_does_not_block_the_ringer(bells: Doorbells) -> None:
    bell = bells.bell(QUEUES)
    began = time.monotonic()
    for _ in range(5000):
        bells.ring(QUEUES, ["queue"])
    assert time.monotonic() - began < 60
    assert bell.drain()
    bell.close()


def test_the_bells_of_the_dead_are_removed(bells: Doorbells, tmp_path: Path) -> None:
    bell = bells.bell(QUEUES)
    directory = directory_for(tmp_path / "q.sqlite3")
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(str(directory / "q-dead"))
    dead.close()
    assert len(os.listdir(directory)) == 2
    bells.ring(QUEUES, ["a"])
    assert os.listdir(directory) == [bell.path.name]
    assert bell.wait(60) == b"a"
    bell.close()
    assert os.listdir(directory) == []


def test_new_bells_are_seen_at_once(bells: Doorbells) -> None:
    """The listing is cached by the directory's time, which moves in ticks of milliseconds."""
    for _ in range(50):
        bell = bells.bell(QUEUES)
        bells.ring(QUEUES, ["a"])
        assert bell.drain() == b"a"
        bell.close()


def test_the_directory_is_private(bells: Doorbells, tmp_path: Path) -> None:
    bell = bells.bell(QUEUES)
    assert stat.S_IMODE(bell.path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(bell.path.stat().st_mode) == 0o600
    bell.close()
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    with pytest.warns(SecurityWarning, match="not a private directory"):
        assert not make_private(loose)


def test_without_a_directory_waiting_still_works(tmp_path: Path) -> None:
    blocked = tmp_path / "q.sqlite3-bells"
    blocked.touch()
    bells = Doorbells(tmp_path / "q.sqlite3")
    with pytest.warns(SecurityWarning):
        bell = bells.bell(QUEUES)
    bells.ring(QUEUES, ["a"])
    assert bell.wait(0.01) is None
    bell.interrupt()
    assert bell.wait(60) == b""
    bell.close()


def test_long_paths_hang_their_bells_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp")
    long = tmp_path / ("d" * 120) / "q.sqlite3"
    directory = directory_for(long)
    assert len(str(directory)) < 60
    assert directory != directory_for(long.with_name("other"))
    bells = Doorbells(long)
    bell = bells.bell(QUEUES)
    bells.ring(QUEUES, ["a"])
    assert bell.wait(60) == b"a"
    other = bells.bell(QUEUES)
    bell.close()
    assert directory.exists()
    other.close()
    assert not directory.exists()


def test_a_child_does_not_take_its_parents_bell_down(bells: Doorbells) -> None:
    bell = bells.bell(QUEUES)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            bell.close()
            status = 0 if bell.fileno() < 0 else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    bells.ring(QUEUES, ["a"])
    assert bell.wait(60) == b"a"
    bell.close()
