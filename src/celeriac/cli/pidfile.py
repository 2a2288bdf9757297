"""A pid file: at most one living process holds it; a dead one's is replaced."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from celeriac.cli.failures import EX_CANTCREAT, fail
from celeriac.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Generator

#: seconds by which clocks may disagree about when a process began
_SLACK = 2.0


def holder(path: Path) -> int | None:
    """The living process that holds ``path``, or ``None`` when nobody does."""
    try:
        pid = int(path.read_text(encoding="ascii").strip() or "0")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        fail(f"The pid file {path} is not one ({error}). Remove it if no worker uses it.", EX_CANTCREAT)
    if pid <= 0:
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # it lives, as somebody else
    return None if _is_younger(pid, path) and not _is_ours(pid) else pid


def _is_ours(pid: int) -> bool:
    try:
        return b"celeriac" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _is_younger(pid: int, path: Path) -> bool:
    """Whether the process began after the file was written: then the number is another's by now, as after a reboot."""
    try:
        ticks = int(
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
        )
        uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
        age = uptime - ticks / os.sysconf("SC_CLK_TCK")
        return SYSTEM_CLOCK.time() - path.stat().st_mtime > age + _SLACK
    except (OSError, ValueError, IndexError):
        return False  # this system does not tell


def _bury(path: Path) -> None:
    """Take a dead one's file away, and only that: another worker may be about to do the same."""
    grave = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.rename(grave)
    except OSError:
        return
    pid = holder(grave)
    if pid is not None and pid != os.getpid():
        with suppress(OSError):
            grave.rename(path)
        fail(f"The pid file {path} is held by process {pid}.", EX_CANTCREAT)
    grave.unlink(missing_ok=True)


@contextmanager
def held(path: Path) -> Generator[None]:
    """Hold the pid file during the block. Ends the command with status 73 when a living process has it."""
    pid = holder(path)
    if pid is not None and pid != os.getpid():
        fail(f"The pid file {path} is held by process {pid}.", EX_CANTCREAT)
    _bury(path)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        fail(f"The pid file {path} cannot be written: {error.strerror}.", EX_CANTCREAT)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")
    try:
        yield
    finally:
        if holder(path) == os.getpid():
            path.unlink(missing_ok=True)
