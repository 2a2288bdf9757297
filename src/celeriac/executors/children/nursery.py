"""The nursery: a single-threaded process that starts the children and watches over them.

Forking is safe only from a process without threads, and the worker has some; so a process that never has any does it
(a fork server). It reports births and deaths, kills when told to, and takes every child with it when the worker is
gone: children neither outlive it (parent-death signal) nor it the worker (end of the control socket).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from celeriac.executors.children import child
from celeriac.executors.children.child import Ends, Setup

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.executors.base import Registry

# ── what crosses the control socket ──────────────────────────────────────────────────────────────────────────


class Start(msgspec.Struct, tag="start"):
    """Start the child ``key``; its three fds come along."""

    key: int
    name: str


class Kill(msgspec.Struct, tag="kill"):
    """Kill the child ``key`` and its process group, if it still lives."""

    key: int


class Loaded(msgspec.Struct, tag="loaded"):
    """The nursery is ready. ``threads``: how many it has; more than one means that it can't fork."""

    threads: int


class LoadFailed(msgspec.Struct, tag="load_failed"):
    text: str


class Born(msgspec.Struct, tag="born"):
    key: int
    pid: int


class Unborn(msgspec.Struct, tag="unborn"):
    """The child could not be started."""

    key: int
    reason: str


class Gone(msgspec.Struct, tag="gone"):
    """The child has exited. ``status`` as :func:`os.waitpid` gives it."""

    key: int
    status: int


Order = Start | Kill
Report = Loaded | LoadFailed | Born | Unborn | Gone

_encode = msgspec.json.Encoder().encode
_orders: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)
_reports: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)
FDS_PER_START = 3


def encode_line(message: Order | Report) -> bytes:
    return _encode(message) + b"\n"


def read_order(line: bytes) -> Order:
    return _orders.decode(line)


def read_report(line: bytes) -> Report:
    return _reports.decode(line)


def thread_count() -> int:
    """How many threads this process has, those of C libraries included where the system tells."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()


# ── the process ──────────────────────────────────────────────────────────────────────────────────────────────


class Nursery:
    """The nursery's state and loop."""

    def __init__(self, setup: Setup, control: socket.socket, call: Callable[[], Registry] | None) -> None:
        self._setup = setup
        self._control = control
        self._call = call
        self._registry: Registry | None = None
        self._children: dict[int, int] = {}  #: pid → key
        self._fds: deque[int] = deque()
        self._rest = b""
        self._wake_reader, self._wake_writer = socket.socketpair()

    def run(self) -> None:
        """Until the control socket ends."""
        self._own_signals()
        if not self._load():
            return
        control, wake = self._control, self._wake_reader
        with selectors.DefaultSelector() as selector:
            selector.register(control, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            try:
                while True:
                    # Woken by a child's death, an order or the end of the worker; nothing else is waited for.
                    selector.select()
                    self._drain_wake()
                    self._reap()
                    if not self._read_orders():
                        break
            except (BrokenPipeError, ConnectionResetError):
                pass
        self._kill_all()
        for sock in (control, wake, self._wake_writer):
            sock.close()

    def _own_signals(self) -> None:
        # The worker decides when to leave; a terminal's or service manager's signal to the whole group is not for us.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())

    def _load(self) -> bool:
        if self._setup.mode == "loaded":
            try:
                self._registry = child.load(self._setup, self._call)
            except BaseException as error:
                self._report(LoadFailed(child.describe_failure(self._setup, error)))
                return False
            gc.collect()
            gc.freeze()  # so that children's collections don't touch, and thereby copy, what they share
        self._report(Loaded(thread_count()))
        return True

    def _report(self, report: Report) -> None:
        self._control.sendall(encode_line(report))

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_reader.recv(4096):
                pass

    def _read_orders(self) -> bool:
        """Carry out what has come; ``False``: the worker is gone."""
        try:
            data, fds, _, _ = socket.recv_fds(self._control, 65536, 64, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        if not data:
            return False
        self._fds.extend(fds)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            match read_order(line):
                case Start(key, name):
                    ends = Ends(*(self._fds.popleft() for _ in range(FDS_PER_START)))
                    self._start(key, name, ends)
                case Kill(key):
                    self._kill(key)
        return True

    # ── births ───────────────────────────────────────────────────────────────────────────────────────────────

    def _start(self, key: int, name: str, ends: Ends) -> None:
        try:
            pid = self._spawn(name, ends) if self._setup.mode == "spawn" else self._fork(name, ends)
        except OSError as error:
            self._report(Unborn(key, f"{errno.errorcode.get(error.errno or 0, '')} {error.strerror}"))
            return
        finally:
            for fd in (ends.data, ends.bell, ends.slate):
                os.close(fd)
        self._children[pid] = key
        self._report(Born(key, pid))

    def _fork(self, name: str, ends: Ends) -> int:
        nursery = os.getpid()
        # Signals wait until the child has its own dispositions.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                self._be_child(nursery, name, ends)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        return pid

    def _be_child(self, nursery: int, name: str, ends: Ends) -> None:
        status = 1
        try:
            child.lead_and_die_with(nursery)
            signal.set_wakeup_fd(-1)
            for sock in (self._control, self._wake_reader, self._wake_writer):
                sock.close()
            status = child.run(self._setup, ends, name, self._registry, self._call)
        except BaseException:
            traceback.print_exc()
        finally:
            child.leave(status)

    def _spawn(self, name: str, ends: Ends) -> int:
        process = subprocess.Popen(
            [
                sys.executable, "-c", child.bootstrap(child.__name__, self._setup.prelude),
                msgspec.json.encode(self._setup).decode(),
                msgspec.json.encode(ends).decode(), name, str(os.getpid()),
            ],
            pass_fds=(ends.data, ends.bell, ends.slate),
        )  # fmt: skip
        process.returncode = 0  # reaped here, together with forked ones
        return process.pid

    # ── deaths ───────────────────────────────────────────────────────────────────────────────────────────────

    def _reap(self) -> None:
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            key = self._children.pop(pid, None)
            if key is not None:
                self._report(Gone(key, status))

    def _kill(self, key: int) -> None:
        # Only a child that is not reaped yet: its pid cannot have been given to somebody else.
        for pid, candidate in self._children.items():
            if candidate == key:
                _kill_group(pid)

    def _kill_all(self) -> None:
        for pid in self._children:
            _kill_group(pid)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):  # it may not lead its group yet
        os.kill(pid, signal.SIGKILL)


def be_nursery(setup: Setup, control: socket.socket, call: Callable[[], Registry] | None) -> None:
    """Turn this freshly forked process into the nursery. Never returns. Signals must be blocked."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)) and number not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(number, signal.SIG_DFL)
        asyncio._set_running_loop(None)
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        Nursery(setup, control, call).run()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        child.leave(status)


def main() -> None:
    """Entry of a fresh interpreter: ``argv`` is the setup and the control socket's fd."""
    setup = msgspec.json.decode(sys.argv[1], type=Setup)
    Nursery(setup, socket.socket(fileno=int(sys.argv[2])), None).run()
    child.leave(0)
