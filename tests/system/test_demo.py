"""The demo end to end: it counts right, ends clean when interrupted, and goes on where it was."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest

pytestmark = pytest.mark.system


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "CELERIAC_HOME": str(home), "PYTHONUNBUFFERED": "1"}


def command(folder: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "celeriac", "demo", str(folder), "-c", "2", *options]


def demo(folder: Path, home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(folder, *options), env=environment(home), capture_output=True, text=True, timeout=120)


def source_folder(folder: Path, count: int) -> Path:
    """``count`` files of ten lines with one function each, and two that are not Python."""
    folder.mkdir()
    body = "def f(x):\n" + "    x += 1\n" * 8 + "    return x\n"
    for number in range(count):
        (folder / f"module_{number:05}.py").write_text(body)
    (folder / "zz_broken.py").write_text("def broken(:\n")
    (folder / "zz_null.py").write_bytes(b"a = 1\0\n")
    return folder


def make_slow(folder: Path, first: int, last: int) -> None:
    """These files take half a second each to parse, and measure the same."""
    slow = folder.parent / "slow"
    slow.write_text("def f(x):\n" + "    x += 1\n" * 7 + f"    x = [{'1,' * 150_000}]\n" + "    return x\n")
    for number in range(first, last):
        path = folder / f"module_{number:05}.py"
        path.unlink()
        path.hardlink_to(slow)


def make_fast(folder: Path, first: int, last: int) -> None:
    for number in range(first, last):
        path = folder / f"module_{number:05}.py"
        path.unlink()
        path.write_bytes((folder / "module_00000.py").read_bytes())


def processes_of(home: Path) -> list[int]:
    """Every living process that was started with this ``CELERIAC_HOME``."""
    marker = f"CELERIAC_HOME={home}\0".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if marker in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def wait_until_gone(home: Path) -> None:
    deadline = time.monotonic() + 10
    while processes_of(home):
        assert time.monotonic() < deadline, f"still running: {processes_of(home)}"
        time.sleep(0.05)


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, f"{pattern!r} is not in:\n{text}"
    return int(found[1].replace(",", ""))


def test_every_file_is_a_task_and_the_sums_are_right(tmp_path: Path) -> None:
    folder, home = source_folder(tmp_path / "source", 60), tmp_path / "home"
    done = demo(folder, home)
    assert done.returncode == 0, done.stderr
    assert "60 files parsed: 600 lines, 60 functions, 0 classes; 2 files failed" in done.stdout
    assert "failed: zz_broken.py: line 1: " in done.stdout
    assert "failed: zz_null.py: " in done.stdout
    assert number(r"([\d,]+) tasks in [\d.]+ s", done.stdout) == 62
    assert str(home) in done.stdout, "it says where the queue is"
    assert not list(home.glob("demo-*.json")), "a finished run is forgotten"
    wait_until_gone(home)


def test_interrupted_it_leaves_nothing_running_and_goes_on_where_it_was(tmp_path: Path) -> None:
    folder, home = source_folder(tmp_path / "source", 3000), tmp_path / "home"
    total = 3002
    make_slow(folder, 2900, 3000)  # it cannot end before it is interrupted
    first = subprocess.Popen(
        command(folder), env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert first.stdout is not None
    with first.stdout:
        wait_for_progress(first.stdout)
        first.send_signal(signal.SIGINT)
        rest = first.stdout.read()
    assert first.wait(timeout=60) == 130
    left = number(r"([\d,]+) of 3,002 files are left", rest)
    assert 0 < left < total
    wait_until_gone(home)
    make_fast(folder, 2900, 3000)

    again = demo(folder, home)
    assert again.returncode == 0, again.stderr
    before = number(r"Resuming: ([\d,]+) of 3,002 files are done", again.stdout)
    assert total - before <= left
    assert number(r"([\d,]+) tasks in [\d.]+ s", again.stdout) == total - before, "what was done is not done again"
    assert "3,000 files parsed: 30,000 lines" in again.stdout
    wait_until_gone(home)


def wait_for_progress(output: IO[str]) -> None:
    """Read until some tasks are done; pytest's timeout is the deadline."""
    for line in output:
        if re.match(r"  [1-9][\d,]* of 3,002 files done", line):
            return
    pytest.fail("the demo ended before it could be interrupted")


def test_fresh_forgets_the_unfinished_run(tmp_path: Path) -> None:
    folder, home = source_folder(tmp_path / "source", 5), tmp_path / "home"
    home.mkdir()
    assert demo(folder, home).returncode == 0
    done = demo(folder, home, "--fresh")
    assert done.returncode == 0
    assert number(r"([\d,]+) tasks in [\d.]+ s", done.stdout) == 7


def test_a_folder_without_python_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = demo(tmp_path / "empty", tmp_path / "home")
    assert done.returncode == 2
    assert done.stderr == f"Error: There is no Python file in {tmp_path / 'empty'}.\n"
