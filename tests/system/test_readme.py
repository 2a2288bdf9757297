"""The README's example, taken from the README and run in two real processes."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

README = Path(__file__).resolve().parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(params=["embedded", "redis", "amqp"])
def code(request: pytest.FixtureRequest) -> str:
    """The example, with the third line as the README changes it; only host and port are those of the test's server."""
    program, variants = blocks("python")
    if request.param == "embedded":
        return program
    (line,) = (line for line in variants.splitlines() if f'broker="{request.param}://' in line)
    if request.param == "redis":
        line = line.replace("localhost:6379", f"127.0.0.1:{request.getfixturevalue('redis_server').port}")
    else:
        line = line.replace("localhost:5672", f"127.0.0.1:{request.getfixturevalue('rabbit_server').port}")
    assert program.count('app = Celeriac("tasks")') == 1
    return program.replace('app = Celeriac("tasks")', line)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_example_runs_as_it_stands(tmp_path: Path, code: str, loop: str) -> None:
    (session,) = blocks("console")
    worker_line, client_line = (line[2:] for line in session.splitlines() if line.startswith("$ "))
    expected = [line for line in session.splitlines() if not line.startswith("$ ")]
    (tmp_path / "tasks.py").write_text(code, encoding="utf-8")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # where `celeriac` and `python` are
    env = {**os.environ, "CELERIAC_HOME": str(tmp_path / "state"), "PATH": path, "CELERIAC_WORKER_LOOP": loop}

    worker = subprocess.Popen(
        shlex.split(worker_line), cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        client = subprocess.run(
            shlex.split(client_line), cwd=tmp_path, env=env, capture_output=True, text=True, timeout=40
        )
        assert client.returncode == 0, client.stderr
        assert client.stdout.splitlines() == expected
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=30) == 0
    finally:
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait(timeout=10)
