"""The worker's link to its nursery: starts it, sends it orders, hears of births and deaths."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec

from celeriac.errors import ImproperlyConfigured
from celeriac.executors.children import child, nursery
from celeriac.executors.children.child import Setup
from celeriac.executors.children.nursery import Kill, Loaded, LoadFailed, Report, Start, thread_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celeriac.executors.base import Loader, PoolOptions


class NurseryLink:
    """One nursery, from its start to its end. Belongs to the worker's loop."""

    def __init__(
        self, options: PoolOptions, loader: Loader, on_report: Callable[[Report], None],
        on_end: Callable[[NurseryLink], None], prelude: str = "",
    ) -> None:  # fmt: skip
        self._options = options
        self._loader = loader
        self._on_report = on_report
        self._on_end = on_end
        self._prelude = prelude
        self._loop = asyncio.get_running_loop()
        self._control: socket.socket | None = None
        self._pid = 0
        self._rest = b""
        self._loaded: asyncio.Future[Loaded | LoadFailed] | None = None

    @property
    def is_open(self) -> bool:
        return self._control is not None

    async def start(self, fresh: bool = False) -> None:
        """Returns when the nursery is ready to start children. Raises ``ImproperlyConfigured``.

        ``fresh``: as a new interpreter, in which nothing of the user's is imported yet.
        """
        if self._prelude or self._options.start_method == "spawn" or not hasattr(os, "fork"):
            await self._start("spawn", fresh)
            return
        loaded = await self._start("loaded", fresh)
        if loaded.threads > 1:  # the user's code starts threads: fork before it is imported, not after
            await self.close()
            await self._start("bare", fresh)

    async def _start(self, mode: str, fresh: bool) -> Loaded:
        setup = Setup(
            options=self._options, target=self._loader.target, argument=self._loader.argument, path=list(sys.path),
            mode=mode,  # type: ignore[arg-type]  # one of the three literals, by construction
            prelude=self._prelude,
        )  # fmt: skip
        ours, theirs = socket.socketpair()
        can_fork = not fresh and mode != "spawn" and thread_count() == 1
        if not can_fork and self._loader.call is not None and not self._loader.argument:
            ours.close()
            theirs.close()
            raise ImproperlyConfigured(
                "The app has no importable name, so child processes can only be forked; that is not safe here, because "
                "this process has threads already (or start_method is 'spawn'). Give the app a module, or use -P solo."
            )
        self._rest = b""
        self._loaded = self._loop.create_future()
        try:
            self._pid = self._fork(setup, ours, theirs) if can_fork else self._spawn(setup, theirs)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._control = ours
        self._loop.add_reader(ours, self._on_readable)
        try:
            async with asyncio.timeout(self._options.start_timeout):
                answer = await self._loaded
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):  # it is in the user's code, which does not listen to us
                os.kill(self._pid, signal.SIGKILL)
            await self.close()
            raise ImproperlyConfigured(
                f"{setup.argument or setup.target} was not loaded within {self._options.start_timeout} s "
                f"(worker_proc_alive_timeout)"
            ) from None
        except BaseException:
            await self.close()
            raise
        if isinstance(answer, LoadFailed):
            await self.close()
            raise ImproperlyConfigured(answer.text)
        return answer

    def _fork(self, setup: Setup, ours: socket.socket, theirs: socket.socket) -> int:
        for stream in (sys.stdout, sys.stderr):  # what is buffered must not be written twice
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                ours.close()
                nursery.be_nursery(setup, theirs, self._loader.call)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid

    def _spawn(self, setup: Setup, theirs: socket.socket) -> int:
        process = subprocess.Popen(
            [
                sys.executable, "-c", child.bootstrap(nursery.__name__), msgspec.json.encode(setup).decode(),
                str(theirs.fileno()),
            ],
            pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL,
        )  # fmt: skip
        process.returncode = 0  # reaped in close(), like a forked one
        return process.pid

    # ── orders and reports ───────────────────────────────────────────────────────────────────────────────────

    def start_child(self, key: int, name: str, fds: Sequence[int]) -> None:
        """The caller keeps its own copies of ``fds`` and closes them."""
        control = self._control
        if control is None:
            return
        line = nursery.encode_line(Start(key, name))
        control.setblocking(True)  # small, and the nursery does nothing but read
        try:
            socket.send_fds(control, [line], list(fds))
        except OSError:
            self._end()
        else:
            control.setblocking(False)

    def kill_child(self, key: int) -> None:
        control = self._control
        if control is None:
            return
        control.setblocking(True)
        try:
            control.sendall(nursery.encode_line(Kill(key)))
        except OSError:
            self._end()
        else:
            control.setblocking(False)

    def _on_readable(self) -> None:
        control = self._control
        if control is None:
            return
        try:
            data = control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            report = nursery.read_report(line)
            if isinstance(report, Loaded | LoadFailed):
                if self._loaded is not None and not self._loaded.done():
                    self._loaded.set_result(report)
            else:
                self._on_report(report)

    def _end(self) -> None:
        if self._control is None:
            return
        self._detach()
        if self._loaded is not None and not self._loaded.done():
            self._loaded.set_exception(ImproperlyConfigured("The process that starts children ended while it loaded"))
            return
        self._on_end(self)

    def _detach(self) -> None:
        if self._control is not None:
            self._loop.remove_reader(self._control)
            self._control.close()
            self._control = None

    async def close(self) -> None:
        """End the nursery and every child it still has; returns when it is gone."""
        self._detach()
        pid, self._pid = self._pid, 0
        if pid:
            await reap(pid)


async def reap(pid: int) -> None:
    """Wait until our child ``pid`` is gone; kill it after 5 s."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 5.0
    pause = 0.001
    while True:
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:  # noqa: ASYNC222 - WNOHANG does not block
                return
        except ChildProcessError:
            return
        if loop.time() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            deadline += 5.0
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.05)
