"""A pid file: at most one living process holds it; a dead one's is replaced."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from celeriac.cli.failures import EX_CANTCREAT, fail

if TYPE_CHECKING:
    from collections.abc import Generator


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
        return pid  # it lives, as somebody else
    return pid


@contextmanager
def held(path: Path) -> Generator[None]:
    """Hold the pid file during the block. Ends the command with status 73 when a living process has it."""
    pid = holder(path)
    if pid is not None and pid != os.getpid():
        fail(f"The pid file {path} is held by process {pid}.", EX_CANTCREAT)
    path.unlink(missing_ok=True)
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
