"""Real processes for the system tests: an app in a file, workers and clients that a test starts and kills."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.process_log import ProcessLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: deadlines are for what hangs, and not for a machine that does many things at once
SLOW = 3

APP = '''
import os, sys, time, signal
from celeriac import Celeriac

app = Celeriac("house", broker=os.environ.get("HOUSE_BROKER") or "sqlite:///" + os.environ["HOUSE_FILE"])
if "HOUSE_RESULTS" in os.environ:
    app.conf.result_backend = os.environ["HOUSE_RESULTS"]
for line in filter(None, os.environ.get("HOUSE_SETTINGS", "").split(";")):
    name, _, value = line.partition("=")
    app.conf[name] = type(app.conf[name])(float(value)) if app.conf[name] is not None else float(value)

def note(*words):
    """One line in the journal, in one write, so that kills can't tear it."""
    path = os.environ.get("HOUSE_JOURNAL")
    if path:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(handle, (" ".join(map(str, words)) + "\\n").encode())
        os.close(handle)

@app.task
def add(x, y):
    return x + y

@app.task(bind=True)
def mark(self, n, seconds=0.0):
    note("start", self.request.id, os.getpid(), time.time())
    if seconds:
        time.sleep(seconds)
    note("end", self.request.id, os.getpid(), time.time())
    return n

@app.task(bind=True)
def gated(self, n=0):
    """Runs until there is a file "gate"."""
    note("start", self.request.id, os.getpid(), time.time())
    while not os.path.exists("gate"):
        time.sleep(0.02)
    note("end", self.request.id, os.getpid(), time.time())
    return n

@app.task(bind=True)
def die(self, how="kill"):
    note("start", self.request.id, os.getpid(), time.time())
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(3)

@app.task(bind=True)
def die_once(self, flag):
    note("start", self.request.id, os.getpid(), time.time())
    if not os.path.exists(flag):
        open(flag, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"

@app.task
def boom(text="boom"):
    raise ValueError(text)

@app.task(bind=True, max_retries=3)
def flaky(self, until, countdown=0):
    if self.request.retries < until:
        raise self.retry(exc=RuntimeError("not yet"), countdown=countdown)
    return self.request.retries

@app.task
async def gather(n):
    import asyncio
    await asyncio.sleep(0)
    return n * 2
'''


class House:
    """A folder with an app, its queue file and its journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "house.sqlite3"
        self.journal = folder / "journal.txt"
        #: while it is not there, tasks ``gated`` run on
        self.gate = folder / "gate"
        self.settings: dict[str, Any] = {}
        #: more environment variables, for the processes started next
        self.extra: dict[str, str] = {}
        (folder / "house.py").write_text(APP)
        self._processes: list[subprocess.Popen[str]] = []

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            "HOUSE_FILE": str(self.file),
            "HOUSE_JOURNAL": str(self.journal),
            "HOUSE_SETTINGS": ";".join(f"{name}={value}" for name, value in self.settings.items()),
            "PYTHONUNBUFFERED": "1",
            **self.extra,
        }

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=self.folder, env=self.env, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options,
        )  # fmt: skip
        self._processes.append(process)
        return process

    def worker(self, *arguments: str, wait: float = 20.0) -> Worker:
        options = ("-l", "INFO", *arguments)
        process = self.start("-m", "celeriac", "-A", "house", "worker", *options)
        worker = Worker(process)
        if wait:
            worker.wait_for("ready", wait)
        return worker

    def python(self, code: str, timeout: float = 120.0) -> str:
        """Run ``code`` after ``from house import *`` in a fresh process; what it printed."""
        done = subprocess.run(
            [sys.executable, "-c", "from house import *\n" + code], cwd=self.folder, env=self.env, text=True,
            capture_output=True, timeout=timeout,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def celeriac(self, *arguments: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "celeriac", *arguments], cwd=self.folder, env=self.env, text=True,
            capture_output=True, timeout=timeout,
        )  # fmt: skip

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        if not self.file.exists():
            return []
        with closing(sqlite3.connect(f"file:{self.file}?mode=ro", uri=True, timeout=30)) as connection:
            try:
                return connection.execute(sql, values).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []
                raise

    def states(self) -> dict[str, str]:
        """Task id → stored state."""
        return dict(self.query("select task_id, status from result"))

    def waiting(self) -> int:
        rows = self.query("select count(*) from message")
        return rows[0][0] if rows else 0

    def notes(self, kind: str) -> list[list[str]]:
        if not self.journal.exists():
            return []
        return [words for words in map(str.split, self.journal.read_text().splitlines()) if words[0] == kind]

    def until(self, holds: Callable[[], object], timeout: float = 30.0, what: str = "") -> None:
        """Poll for an effect of other processes; fails with what was seen when the deadline is over."""
        deadline = time.monotonic() + SLOW * timeout
        while not holds():
            if time.monotonic() > deadline:
                seen = f"states {len(self.states())}, waiting {self.waiting()}"
                pytest.fail(f"not within {SLOW * timeout} s: {what or holds}; {seen}")
            time.sleep(0.02)

    def integrity(self) -> str:
        with closing(sqlite3.connect(self.file, timeout=30)) as connection:
            return str(connection.execute("pragma integrity_check").fetchone()[0])

    def end(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(60)
            if process.stdout:
                process.stdout.close()


class Worker:
    """A worker process whose log is read as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid
        self._log = ProcessLog(process)

    @property
    def lines(self) -> list[str]:
        return self._log.all_of_it()

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str, timeout: float = 20.0) -> str:
        """The first line with ``text``, waiting for it."""
        return self._log.wait_for(text, SLOW * timeout)

    def children(self) -> list[int]:
        """Pids of every process below this worker (nursery and children)."""
        return descendants(self.pid)

    def stop(self, signum: int = signal.SIGTERM, timeout: float = 60.0) -> int:
        self.process.send_signal(signum)
        return self.process.wait(SLOW * timeout)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    queue = [pid]
    while queue:
        parent = queue.pop()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                kids = [int(word) for word in (task / "children").read_text().split()]
                found += kids
                queue += kids
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.end()


@pytest.fixture
def is_alive() -> Callable[[int], bool]:
    return alive


@pytest.fixture
def as_json() -> Callable[[str], Any]:
    return lambda text: json.loads(text.strip().splitlines()[-1])
