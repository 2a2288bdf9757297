"""``--detach``: a worker or a camera goes to the background, and the command returns when it works, or has failed to.

A fresh process is started with the same arguments, in a session of its own. While it loads, what it says goes to
whoever called; then to the log file, or nowhere.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from typing import TYPE_CHECKING

import click

from celeriac.cli.failures import EX_CANTCREAT, fail
from celeriac.cli.origin import DETACHED, pop_marker

if TYPE_CHECKING:
    from celeriac.cli.origin import Origin

#: set for a process whose standard error is read by whoever detached it
_AWAITED = "CELERIAC_AWAITED"
#: ends what is said
_READY = b"\0ready"
#: seconds that the caller waits for that; a broker that is not there yet is waited for in the background
_PATIENCE = 30.0
#: seconds between two looks whether the process lives
_LOOK = 0.2
_SHOWN = 8000


def detach(origin: Origin, executable: str | None, quiet: bool) -> int:
    """Start the background process, and wait for its word; the exit status of this command."""
    command = (executable or origin.command[0], *origin.command[1:])
    reader, writer = os.pipe()
    try:
        process = subprocess.Popen(
            command, cwd=origin.folder, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer,
            env={**os.environ, DETACHED: "1", _AWAITED: "1"}, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        click.echo(f"Error: {command[0]} cannot be started: {error.strerror}.", err=True)
        return 1
    finally:
        os.close(writer)
    is_ready, said = _listen(reader, process)
    if said:
        click.echo(said.decode(errors="replace").rstrip(), err=True)
    if is_ready or process.poll() is None:
        if not quiet:
            click.echo(f"started in the background, process {process.pid}{'' if is_ready else ', not ready yet'}")
        process.returncode = 0  # it outlives us: nothing to warn of
        return 0
    return process.returncode or 1


def _listen(reader: int, process: subprocess.Popen[bytes]) -> tuple[bool, bytes]:
    """Whether it became ready in time, and what was said meanwhile."""
    said = b""
    ends = time.monotonic() + _PATIENCE
    while time.monotonic() < ends:
        has_ended = process.poll() is not None
        while select.select([reader], [], [], 0 if has_ended else _LOOK)[0]:
            data = os.read(reader, 65536)
            said = (said + data)[-_SHOWN:]
            if said.endswith(_READY):
                return True, said.removesuffix(_READY)
            if not data:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10.0)
                return False, said
        if has_ended:
            break
    return False, said


class Background:
    """In the background process: its ties to whoever started it, until it is ready."""

    def __init__(self, log_file: str | None) -> None:
        """Nothing is said to the caller any more but by :meth:`tell`. To be made before any process is started."""
        self._word = os.dup(2) if pop_marker(_AWAITED) else -1
        if self._word < 0:
            return
        try:
            out = os.open(log_file or os.devnull, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            out = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        for stream in (1, 2):
            os.dup2(out, stream)
        os.close(out)

    def ready(self) -> None:
        self._tell(_READY)

    def failed(self, error: BaseException) -> None:
        self._tell(f"Error: {error}\n".encode(errors="replace"))

    def _tell(self, words: bytes) -> None:
        if self._word < 0:
            return
        with contextlib.suppress(OSError):
            os.write(self._word, words)
        os.close(self._word)
        self._word = -1


def check_log_file(path: str | None) -> None:
    """A handler that opens it later could only complain to nobody."""
    if path is None:
        return
    try:
        with open(path, "ab"):
            pass
    except OSError as error:
        fail(f"The log file {path} cannot be written: {error.strerror}.", EX_CANTCREAT)
