"""Both type checkers understand tasks, calls and results: what is right passes, what is wrong is found."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUBJECT = Path(__file__).with_name("tasks.py")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MYPYPATH": str(ROOT / "src"), "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, env=environment)


@pytest.mark.timeout(300)
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_mypy_agrees():
    # --warn-unused-ignores makes each expected error a requirement
    done = run(sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", str(SUBJECT))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
@pytest.mark.skipif(importlib.util.find_spec("pyright") is None, reason="pyright is not installed")
def test_pyright_agrees():
    done = run(sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(SUBJECT))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
@pytest.mark.skipif(importlib.util.find_spec("pyright") is None, reason="pyright is not installed")
def test_pyright_finds_every_wrong_call(tmp_path: Path):
    lines = SUBJECT.read_text(encoding="utf-8").splitlines()
    wrong = [number for number, line in enumerate(lines, 1) if "# type: ignore" in line]
    bare = tmp_path / "tasks.py"
    bare.write_text("\n".join(line.partition("  # type: ignore")[0] for line in lines), encoding="utf-8")
    done = run(sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(bare))
    found = [number for number in wrong if f"tasks.py:{number}:" in done.stdout]
    assert found == wrong, done.stdout
