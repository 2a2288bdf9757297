"""A full disk: publishing fails with a typed error, what is queued still drains, and all heals without a restart."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.conftest import House

pytestmark = pytest.mark.system


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_a_typed_error_and_the_queue_still_drains(house: House, small_disk: Path) -> None:
    house.file = small_disk / "house.sqlite3"
    filler = small_disk / "filler"
    text = house.python(
        f"""
from celeriac.errors import BrokerFull
[add.delay(n, n) for n in range(300)]
handle = os.open({str(filler)!r}, os.O_WRONLY | os.O_CREAT)
try:
    while True:
        os.write(handle, b"x" * 4096)
except OSError:
    os.close(handle)
refused = 0
for n in range(200):
    if refused == 2:
        break
    try:
        boom.delay("x" * 100000)
    except BrokerFull:
        refused += 1
print(refused > 0)
"""
    )
    assert text.strip() == "True"
    worker = house.worker("-c", "2")
    adds = "select count(*) from result where status = 'SUCCESS'"
    house.until(lambda: house.query(adds)[0][0] >= 300, 60, "the queue drained on a full disk")
    filler.unlink()
    assert house.python("print(add.delay(20, 22).get(timeout=60))").strip() == "42"
    assert worker.process.poll() is None
    assert house.integrity() == "ok"
