"""Every example runs as its README says: a worker in one process, the program in another."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.system.conftest import Worker

pytestmark = pytest.mark.system

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

StartWorker = Callable[..., Worker]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLES, tmp_path / "examples"))


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "CELERIAC_HOME": str(tmp_path / "state"), "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def start_worker(folder: Path, env: dict[str, str]) -> Iterator[StartWorker]:
    workers: list[Worker] = []

    def start(*arguments: str) -> Worker:
        process = subprocess.Popen(
            [sys.executable, "-m", "celeriac", "-A", *arguments], cwd=folder, env=env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        workers.append(Worker(process))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()
        assert worker.process.stdout is not None
        worker.process.stdout.close()


def run(folder: Path, env: dict[str, str], *command: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=env, text=True, capture_output=True, timeout=60
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_progress(folder: Path, env: dict[str, str], start_worker: StartWorker) -> None:
    start_worker("progress", "worker", "-c", "1")
    shown = run(folder, env, "progress.py")
    assert shown[-1] == "counted to 100"
    assert any(line.endswith(" of 100") for line in shown[:-1])


def test_retries(folder: Path, env: dict[str, str], start_worker: StartWorker) -> None:
    worker = start_worker("retries", "worker", "-c", "1", "-l", "INFO")
    shown = run(folder, env, "retries.py")
    assert shown == [
        "flaky.example answered on try 3",
        "FAILURE: ConnectionError: broken.example did not answer",
    ]
    worker.wait_for("retries.fetch('flaky.example', 3) is tried again: flaky.example did not answer")
    worker.wait_for("retries.fetch('broken.example', 99) has failed")
    worker.wait_for("page somebody: retries.fetch [")


def test_coroutines(folder: Path, env: dict[str, str], start_worker: StartWorker) -> None:
    start_worker("coroutines", "worker", "-P", "asyncio", "-c", "100")
    assert run(folder, env, "coroutines.py") == ["waited 25 s, all at one time: True", "49"]


def test_a_project_of_several_packages(folder: Path, env: dict[str, str], start_worker: StartWorker) -> None:
    worker = start_worker("shop", "worker", "-Q", "default,mail", "-c", "1", "-l", "INFO")
    shown = run(folder, env, "-m", "shop")
    assert shown == ["7 EUR", "told Ada"]
    worker.wait_for("]: Ada orders 2 things")
    line = worker.wait_for("]: to Ada, from queue mail: Your order ")
    assert "shop.mail.tasks.send[" in line


def test_the_table_names_every_example() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    there = {path.name for path in EXAMPLES.glob("*.py")} | {"shop/"}
    assert all(f"`{name}`" in text for name in there)
