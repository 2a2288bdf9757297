"""Importing the package and declaring a task loads nothing that is only needed later."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"

PROGRAM = """
import sys
# msgspec takes it where a development tool has brought it, and with it inspect, ast and tokenize
sys.modules["typing_extensions"] = None
before = set(sys.modules)
import celeriac
app = celeriac.Celeriac("hello")
@app.task
def add(x, y):
    return x + y
print("\\n".join(set(sys.modules) - before))
"""

#: packages and modules that cost time or memory and that a process which only declares tasks has no use for
TOO_EARLY = {
    "asyncio", "base64", "bz2", "click", "concurrent.futures", "difflib", "email", "hashlib", "importlib.metadata",
    "inspect", "ipaddress", "json", "kombu", "logging", "lzma", "multiprocessing", "pathlib", "pickle", "pydantic",
    "random", "redis", "rich", "selectors", "shutil", "socket", "sqlite3", "ssl", "subprocess", "tempfile",
    "traceback", "urllib.parse", "yaml", "zlib", "zoneinfo",
}  # fmt: skip


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    return set(done.stdout.split())


def test_nothing_is_loaded_too_early(loaded: set[str]):
    assert not loaded & TOO_EARLY


def test_no_driver_engine_or_shell_is_loaded(loaded: set[str]):
    rooms = {name.split(".")[1] for name in loaded if name.startswith("celeriac.")}
    assert not rooms & {"worker", "cli", "embedded", "testing", "integrations"}
    drivers = {name for name in loaded if name.startswith(("celeriac.transports.", "celeriac.results."))}
    assert drivers <= {"celeriac.transports.base", "celeriac.results.base"}
