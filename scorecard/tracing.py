"""What processes wrote and synced, as ``strace`` saw it: its lines become events of the history.

One file for each thread (``-ff``), so that no call is split into two lines.
"""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from scorecard.history import Event
from scorecard.sites import Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_CALLS = "write,writev,pwrite64,pwritev,fsync,fdatasync"
_ID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_LINE = re.compile(r"(?P<at>\d+\.\d+) (?P<call>\w+)\(\d+<(?P<file>[^>]*)>(?P<rest>.*) = \d+ <(?P<took>[\d.]+)>$")


def strace(prefix: Path, *more: str) -> list[str]:
    """The command that traces what follows it, or a process (``-p``), into files that begin with ``prefix``."""
    program = shutil.which("strace")
    if program is None:
        raise Unsupported("NOT CHECKED: strace is not installed (apt-get install strace)")
    options = ["-ff", "-qq", "-ttt", "-T", "-y", "-s", "200000", "-e", f"trace={_CALLS}", "-e", "signal=none"]
    return [program, *options, "-o", str(prefix), *more]


def traced(files: Iterable[Path], name: str) -> Iterator[Event]:
    """``write`` for each id that was written to a file whose path has ``name`` in it, ``sync`` for each of its syncs.

    ``wall`` is when the call began, ``seconds`` how long it took, ``what`` the file.
    """
    for file in files:
        for line in file.read_text(errors="replace").splitlines():
            found = _LINE.match(line)
            if found is None or name not in found["file"]:
                continue
            wall, took, what = float(found["at"]), float(found["took"]), found["file"]
            if found["call"] in ("fsync", "fdatasync"):
                yield Event(t=wall, wall=wall, kind="sync", what=what, seconds=took)
                continue
            for task_id in set(re.findall(_ID, found["rest"])):
                yield Event(t=wall, wall=wall, kind="write", id=task_id, what=what, seconds=took)
