"""Beginning again in the same process: how the worker was started, a rehearsal of that, and the change itself.

The rehearsal loads the code in a process of its own, so that a worker is never stopped for code that does not load.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import NoReturn

import msgspec

#: seconds that the new code may take to load
_PATIENCE = 60.0
#: characters of what a rehearsal says that are worth a log line
_SHOWN = 4000


class Restart(msgspec.Struct, frozen=True, kw_only=True):
    """What was called to start this worker."""

    command: tuple[str, ...]  #: the interpreter and its arguments
    folder: str  #: where it was called
    environment: dict[str, str] = {}  #: beyond what this process has
    rehearsal: dict[str, str] = {}  #: what tells a process to load everything, and to end
    on_hangup: bool = True  #: SIGHUP means it; else that means to end
    on_change: bool = False  #: a change of the app's files means it
    since: float = 0.0  #: when this process began to load, in seconds since the epoch

    async def rehearse(self) -> str:
        """Why the code cannot be loaded now; empty: it can."""
        environment = {**os.environ, **self.environment, **self.rehearsal}
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command, cwd=self.folder, env=environment, stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
        except OSError as error:
            return f"{self.command[0]} cannot be started in {self.folder}: {error.strerror}"
        try:
            async with asyncio.timeout(_PATIENCE):
                _, words = await process.communicate()
        except TimeoutError:
            return f"it was not loaded within {_PATIENCE:g} s"
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        if process.returncode == 0:
            return ""
        text = words.decode(errors="replace").strip()
        return text[-_SHOWN:] or f"it ended with status {process.returncode}"

    def begin_again(self) -> NoReturn:
        """Become what was started then, with the same process id. Raises ``OSError``."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os.chdir(self.folder)
        os.execve(self.command[0], list(self.command), {**os.environ, **self.environment})
