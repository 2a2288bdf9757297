"""Wakes processes that wait for the embedded file to change.

Each waiter binds a datagram socket in a private directory next to the file; who has written sends a few bytes to
every socket there and does not wait. A ring is a hint: it may be lost or needless, so waiters look at the file at
least once a second anyway.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import hashlib
import os
import secrets
import socket
import stat
import tempfile
import threading
import time
import warnings
import weakref
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from celeriac.errors import SecurityWarning
from celeriac.polling import READABLE, poller

if TYPE_CHECKING:
    from collections.abc import Iterable

#: kinds of waiters; a ring reaches one kind
QUEUES, RESULTS = "q", "r"
#: the kinds for broadcasts: one of these for each exchange
_BROADCASTS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#: seconds after which a waiter looks by itself
POLL = 1.0
#: sun_path holds 108 bytes on Linux, 104 elsewhere, with a zero at the end
_LONGEST_PATH_BYTES = 103
#: a slash, a kind, a process id in hexadecimal, some randomness
_NAME_BYTES = 19
#: what the directories under the temporary directory are called
_ELSEWHERE = "celeriac-"
#: more than this is cut: an empty ring means "anything"
_LONGEST_RING_BYTES = 4096
#: a listing younger than this may miss a socket of the same clock tick (coarse inode times: 4 ms at 250 Hz)
_LISTING_GRACE_NS = 50_000_000
_INTERRUPT = b"\0"


def broadcasts(exchange: str) -> str:
    """The kind of those who wait for what is published to ``exchange``; two may share one, and ring needlessly."""
    return _BROADCASTS[zlib.crc32(exchange.encode("utf-8", "surrogatepass")) % len(_BROADCASTS)]


class Doorbells:
    """The bells of one file: rings them, and makes new ones. Thread-safe, fork-safe."""

    def __init__(self, path: Path) -> None:
        self._directory = directory_for(path)
        self._directory_name = os.fspath(self._directory)
        self._listing: dict[str, list[str]] = {}
        self._listed_at = -1

    def ring(self, kind: str, words: Iterable[str] = ()) -> None:
        """Wake the waiters of ``kind``; ``words`` (queue names, task ids) let them tell whether it concerns them."""
        names = self._names(kind)
        if not names:
            return
        text = "\n".join(words).encode("utf-8", "surrogatepass")
        self._send(names, text if len(text) <= _LONGEST_RING_BYTES else b"")

    def anybody(self, kind: str) -> bool:
        """False: nobody waits for ``kind``, unless somebody could not hang up a bell and polls."""
        if self._names(kind):
            return True
        try:
            return not _is_ours(os.lstat(self._directory_name))
        except OSError:
            return False

    def bell(self, kind: str) -> Bell:
        """A new waiter. Without a usable directory it can only sleep and poll."""
        return Bell(self._directory, kind)

    def _names(self, kind: str) -> list[str]:
        try:
            changed = os.stat(self._directory_name).st_mtime_ns
        except OSError:
            return []
        if changed != self._listed_at:
            try:
                found = os.listdir(self._directory_name)
            except OSError:
                return []
            listing: dict[str, list[str]] = {}
            for name in found:
                listing.setdefault(name[:1], []).append(f"{self._directory_name}/{name}")
            self._listing = listing
            settled = time.time_ns() - changed > _LISTING_GRACE_NS
            self._listed_at = changed if settled else -1
        return self._listing.get(kind, [])

    def _send(self, names: list[str], text: bytes) -> None:
        sender = _sender()
        for name in names:
            try:
                sender.sendto(text, name)
            except BlockingIOError:
                pass  # its buffer is full of rings already
            except ConnectionRefusedError:  # its owner died without removing it
                with contextlib.suppress(OSError):
                    os.unlink(name)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EMSGSIZE, errno.ENOBUFS, errno.EPERM, errno.EACCES):
                    raise


class Bell:
    """One waiter's socket. One thread waits; any thread may interrupt."""

    def __init__(self, directory: Path, kind: str) -> None:
        self._socket: socket.socket | None = None
        self._fallback = threading.Event()
        self.path = directory / f"{kind}-{os.getpid():x}-{secrets.token_hex(4)}"
        if not make_private(directory):
            return
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            listener.setblocking(False)
            try:
                listener.bind(os.fspath(self.path))
            except FileNotFoundError:  # the last to leave has just taken the directory along
                make_private(directory)
                listener.bind(os.fspath(self.path))
            os.chmod(self.path, 0o600)
        except OSError:
            listener.close()
            return
        self._socket = listener
        # also at the end of the process, which then leaves no socket behind
        self._finalizer = weakref.finalize(self, _remove, listener, os.fspath(self.path))
        _bells.add(self)

    def fileno(self) -> int:
        """For an event loop; -1 when there is no socket."""
        return -1 if self._socket is None else self._socket.fileno()

    def drain(self) -> bytes | None:
        """What rang since the last look, joined; None for silence, empty for "anything"."""
        heard: list[bytes] = []
        listener = self._socket
        if listener is None:
            if self._fallback.is_set():
                self._fallback.clear()
                return b""
            return None
        while True:
            try:
                heard.append(listener.recv(_LONGEST_RING_BYTES + 1))
            except BlockingIOError:
                break
            except OSError:  # closed meanwhile
                break
        if not heard:
            return None
        return b"" if b"" in heard or _INTERRUPT in heard else b"\n".join(heard)

    def wait(self, seconds: float) -> bytes | None:
        """Sleep until somebody rings or interrupts, at most ``seconds``. As :meth:`drain`."""
        listener = self._socket
        if listener is None:
            self._fallback.wait(max(0.0, seconds))
            return self.drain()
        ears = poller()
        try:
            ears.register(listener.fileno(), READABLE)
            ears.poll(max(0.0, seconds) * 1000)
        except (OSError, ValueError):  # closed meanwhile
            return b""
        return self.drain()

    def interrupt(self) -> None:
        """Make :meth:`wait` return soon."""
        if self._socket is None:
            self._fallback.set()
            return
        with contextlib.suppress(OSError):
            _sender().sendto(_INTERRUPT, os.fspath(self.path))

    def close(self) -> None:
        listener, self._socket = self._socket, None
        self._fallback.set()
        if listener is not None:
            self._finalizer()

    def inherited(self) -> None:
        """In a forked child: the socket is the parent's."""
        listener, self._socket = self._socket, None
        if listener is not None:
            self._finalizer.detach()
            listener.close()


def _remove(listener: socket.socket, name: str) -> None:
    listener.close()
    with contextlib.suppress(OSError):
        os.unlink(name)
    leave_directory(Path(name).parent)


def leave_directory(directory: Path) -> None:
    """Remove a directory of bells under the temporary directory if this was its last user."""
    if directory.name.startswith(_ELSEWHERE):
        with contextlib.suppress(OSError):
            os.rmdir(directory)


def directory_for(path: Path) -> Path:
    """Where the bells of ``path`` hang: beside it, or under the temporary directory if its name is too long."""
    beside = path.with_name(path.name + "-bells")
    if len(os.fsencode(beside)) + _NAME_BYTES <= _LONGEST_PATH_BYTES:
        return beside
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"{_ELSEWHERE}{os.geteuid()}-{digest}"


def make_private(directory: Path) -> bool:
    """Create ``directory`` for this user alone; False (and a warning if somebody else owns it) if that fails."""
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)
        found = os.lstat(directory)
    except OSError:
        return False
    if not _is_ours(found):
        warnings.warn(
            f"{directory} is not a private directory of this user; waiters poll once a second instead of being woken. "
            f"Remove it, or look who made it.",
            SecurityWarning,
            stacklevel=2,
        )
        return False
    return True


def _is_ours(found: os.stat_result) -> bool:
    return stat.S_ISDIR(found.st_mode) and found.st_uid in (os.geteuid(), 0) and not found.st_mode & 0o022


_bells: weakref.WeakSet[Bell] = weakref.WeakSet()
#: the socket that rings, one per process; unbound, so a forked child may use its parent's
_senders: list[socket.socket] = []


def _sender() -> socket.socket:
    if not _senders:
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sender.setblocking(False)
        atexit.register(sender.close)
        _senders.append(sender)
    return _senders[0]


def _after_fork_in_child() -> None:
    for bell in list(_bells):
        bell.inherited()
    _bells.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
