"""The recorder: one JSON line per fact, in one write to a file that only this process appends to.

Runs inside workers and producers of any product, so: standard library only, and nothing that a ``kill -9`` could tear.
The files lie outside of the broker that is being tested.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

_FOLDER = os.environ.get("LAB_HISTORY", ".")
#: who this is in the history: a worker's name, which its children inherit, or a producer's
_PROC = os.environ.get("LAB_PROC", "?")
_handles: dict[int, int] = {}


def note(kind: str, **facts: Any) -> None:
    """Write down that something happens now."""
    pid = os.getpid()
    line = {"t": time.monotonic(), "wall": time.time(), "proc": _PROC, "pid": pid, "kind": kind, **facts}
    os.write(_handle(pid), (json.dumps(line) + "\n").encode())


def _handle(pid: int) -> int:
    """The file of this process: a forked child must not write into its parent's."""
    found = _handles.get(pid)
    if found is None:
        path = Path(_FOLDER) / f"{_PROC}-{pid}.jsonl"
        found = _handles[pid] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return found
