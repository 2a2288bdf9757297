"""The embedded file: connections, transactions, and what keeps them safe.

A :class:`Link` is one SQLite connection that opens itself when first used and serves one thread at a time. Every
write takes SQLite's write lock at its start, waits for it no longer than told, and either happens wholly or not.
Fork-safe, crash-only: a connection that reports anything strange is closed and made anew.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
import weakref
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from celeriac.embedded.faults import full, is_busy, is_full, locked, spoils_connection, translated
from celeriac.embedded.location import Location, prepare
from celeriac.embedded.log_room import LogRoom
from celeriac.embedded.reserve import Reserve
from celeriac.errors import ImproperlyConfigured, OperationalError, PublishUnknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

T = TypeVar("T")

#: seconds that an operation without a deadline of its own waits for a lock
PATIENCE = 5.0
#: "celr", so that file(1) and people with a hex dump know what this is
APPLICATION_ID = 0x63656C72
SCHEMA_VERSION = 1
#: pages; 16 MiB of log between checkpoints cost a third less per message than SQLite's 4 MiB
_CHECKPOINT_PAGES = 4000
#: the log has a header of 32 bytes and a page of 4096 in a frame of 4120; the last transaction may go beyond
_LOG_BYTES = 32 + (_CHECKPOINT_PAGES + 200) * 4120
_LOG_LIMIT_BYTES = 64 << 20
_OLDEST_SQLITE = (3, 35, 0)  # RETURNING and upsert in triggers


class Format(NamedTuple):
    """What is in a file, and how it is known again."""

    schema: str
    application_id: int
    version: int


QUEUE = Format("schema.sql", APPLICATION_ID, SCHEMA_VERSION)
#: "cell": the counters of limits, in a file of their own
LIMITS = Format("limits.sql", 0x63656C6C, 1)


class EmbeddedFile:
    """One file as this process sees it. Construction does no I/O."""

    def __init__(self, location: Location, content: Format = QUEUE) -> None:
        self._location = location
        self.content = content
        self._path: Path | None = None
        self._reserve: Reserve | None = None

    @property
    def path(self) -> Path:
        """The real path; checks and creates the file when first asked."""
        if self._path is None:
            if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
                raise ImproperlyConfigured(
                    f"SQLite {sqlite3.sqlite_version} is too old for the embedded broker; 3.35 or later is needed."
                )
            self._path = prepare(self._location)
        return self._path

    @property
    def reserve(self) -> Reserve:
        if self._reserve is None:
            self._reserve = Reserve(self.path)
        return self._reserve

    def forget_path(self) -> None:
        """The file is gone or replaced: check and create it again at the next use."""
        self._path = self._reserve = None

    def link(self, *, durable: bool = True, procedures: bool = True) -> Link:
        """A connection of one's own. ``durable``: a commit returns after the disk has it."""
        return Link(self, durable=durable, procedures=procedures)


class Link:
    """One connection. Thread-safe (one thread at a time), fork-safe. Opens itself."""

    def __init__(self, file: EmbeddedFile, *, durable: bool, procedures: bool) -> None:
        self._file = file
        self._durable = durable
        self._procedures = procedures
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._name = ""
        self._identity = (0, 0)
        self._log_room = LogRoom(_LOG_BYTES) if durable else None
        self._closed = False
        #: set in a child that was forked in the middle of this link's transaction (see forks below)
        self._unusable = False
        with _registry_lock:
            _links.add(self)

    # ── the three ways to use it ─────────────────────────────────────────────────────────────────────────────

    def write(
        self, work: Callable[[sqlite3.Connection], T], *, patience: float = PATIENCE, essential: bool = True
    ) -> T:
        """Run ``work`` in a transaction that holds the write lock from its start (a deferred one could fail midway
        with SQLITE_BUSY_SNAPSHOT). ``essential``: may use the reserve when the disk is full."""

        def transaction(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            answer = work(connection)
            try:
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                if is_full(error, self._file.path) or is_busy(error):
                    raise
                # the log may hold the whole transaction although the sync failed
                raise PublishUnknown(f"{self._file.path}: the commit failed ({error}); it may be stored.") from error
            return answer

        return self._run(transaction, patience, writes=True, essential=essential)

    def execute(
        self, sql: str, parameters: Sequence[object] = (), *, patience: float = PATIENCE, essential: bool = True
    ) -> int:
        """Run one writing statement as a transaction of its own; the number of rows that it changed in all."""

        def statement(connection: sqlite3.Connection) -> int:
            before = connection.total_changes
            connection.execute(sql, parameters)
            return connection.total_changes - before

        return self._run(statement, patience, writes=True, essential=essential)

    def read(self, work: Callable[[sqlite3.Connection], T], *, patience: float = PATIENCE) -> T:
        """Run ``work``, which only reads. Never waits for a writer."""
        return self._run(work, patience, writes=False, essential=False)

    def close(self) -> None:
        """Close the connection; it stays closed. Idempotent."""
        with _registry_lock:
            _links.discard(self)
        taken = self._lock.acquire(timeout=PATIENCE)
        self._closed = True
        if taken:
            try:
                self._drop()
            finally:
                self._lock.release()

    # ── how ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self, work: Callable[[sqlite3.Connection], T], patience: float, *, writes: bool, essential: bool) -> T:
        ends = time.monotonic() + patience
        path = self._file.path
        if not self._lock.acquire(timeout=max(0.0, patience)):
            raise locked(path)
        try:
            writer = _writer_of(path) if writes else None
            # threads of one process take turns here instead of polling each other's file lock
            if writer is not None and not writer.acquire(timeout=max(0.0, ends - time.monotonic())):
                raise locked(path)
            try:
                answer = self._attempt(work, ends, essential)
                if writes and self._log_room is not None and self._connection is not None:
                    self._log_room.committed(self._connection, self._name)
                return answer
            finally:
                if writer is not None:
                    writer.release()
        finally:
            self._lock.release()

    def _attempt(self, work: Callable[[sqlite3.Connection], T], ends: float, essential: bool) -> T:
        relieved = False
        for pause in _pauses():
            try:
                connection = self._ready()
                try:
                    return work(connection)
                except BaseException:
                    self._roll_back()
                    raise
            except sqlite3.Error as error:
                if is_busy(error):
                    if time.monotonic() + pause >= ends:
                        raise locked(self._file.path) from error
                    time.sleep(pause)
                    continue
                if is_full(error, self._file.path):
                    if not essential or relieved or not self._relieve():
                        raise full(self._file.path) from error
                    relieved = True
                    continue
                if spoils_connection(error):
                    self._drop()
                raise translated(error, self._file.path) from error
        raise AssertionError("the pauses never end")

    def _ready(self) -> sqlite3.Connection:
        if self._connection is not None and not self._still_there():
            self._drop()
        if self._connection is None:
            if self._closed:
                raise OperationalError(f"The connection to {self._file.path} is closed; open a new transport or store.")
            if self._unusable:
                raise OperationalError(
                    f"This process was forked while {self._file.path} was being written and may not use it: SQLite "
                    f"would believe in locks that only the parent holds. Fork at a quieter moment, or spawn."
                )
            self._connection = self._open()
        return self._connection

    def _still_there(self) -> bool:
        """Whether the path still leads to the open file; writing to a deleted one would lose the work unseen."""
        try:
            found = os.stat(self._name)
        except OSError:
            self._file.forget_path()
            return False
        if (found.st_dev, found.st_ino) == self._identity:
            return True
        self._file.forget_path()
        return False

    def _open(self) -> sqlite3.Connection:
        path = self._file.path
        connection = sqlite3.connect(
            path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            configure(connection, durable=self._durable)
            migrate(connection, path, self._file.content)
            if self._procedures:
                for statement in _statements("procedures.sql"):
                    connection.execute(statement)
            found = os.stat(path)
        except BaseException:
            connection.close()
            raise
        self._name = os.fspath(path)
        self._identity = (found.st_dev, found.st_ino)
        return connection

    def _relieve(self) -> bool:
        """Make room for what must be written although the disk is full."""
        given = self._file.reserve.give_up()
        try:
            self._ready().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error:
            return given
        return True

    def _roll_back(self) -> None:
        connection = self._connection
        if connection is not None and connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error:
                self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:
                _leak(connection)

    # ── forks ────────────────────────────────────────────────────────────────────────────────────────────────
    #
    # SQLite keeps its POSIX locks in process-wide tables keyed by inode. A child inherits the tables but not the
    # locks: a connection it opened to a file its parent has open would skip locking, and the next process to leave
    # would take itself for the last one and delete the log under it. So no connection is open across a fork: the
    # parent closes its own first and both sides open new ones at the next use. Only a link whose transaction did
    # not end in time stays open in the parent; the child leaks its copy and refuses to use the file.

    def before_fork(self) -> bool:
        """Close, and keep the lock until :meth:`after_fork`. False when a transaction did not end in time."""
        if not self._lock.acquire(timeout=PATIENCE + 1):
            return False
        self._drop()
        return True

    def after_fork(self) -> None:
        self._lock.release()

    def inherited_in_use(self) -> None:
        """In a child whose parent was inside a transaction of this link."""
        self._lock = threading.Lock()
        connection, self._connection = self._connection, None
        if connection is not None:
            _leak(connection)
        self._unusable = True


def configure(connection: sqlite3.Connection, *, durable: bool) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise ImproperlyConfigured(f"SQLite could not switch its file to a write-ahead log (mode {mode!r}).")
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {_LOG_LIMIT_BYTES}")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA cache_size = -8192")
    # some distributions overwrite what is deleted with zeros, which makes pages dirty that else are just dropped
    connection.execute("PRAGMA secure_delete = OFF")


def migrate(connection: sqlite3.Connection, path: Path, content: Format = QUEUE) -> None:
    """Bring the tables to this version; many processes may try at once."""
    if _version(connection) == content.version:
        _recognise(connection, path, content)
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)
        if version > content.version:
            raise ImproperlyConfigured(
                f"{path} was written by a newer celeriac (format {version}, this one knows {content.version}). Update "
                f"celeriac, or use another file."
            )
        if version == 0:
            if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                raise ImproperlyConfigured(f"{path} is a SQLite file of another program; choose another path.")
            for statement in _statements(content.schema):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {content.application_id}")
            connection.execute(f"PRAGMA user_version = {content.version}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    _recognise(connection, path, content)


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _recognise(connection: sqlite3.Connection, path: Path, content: Format) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != content.application_id:
        raise ImproperlyConfigured(f"{path} is a SQLite file of another program; choose another path.")
    # Another process may have made the tables since this connection first looked. A step notices the change; only
    # compiling does not, where the tables are named inside a trigger: "no such table".
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()


def _statements(name: str) -> list[str]:
    """The statements of one of our SQL files; triggers hold semicolons, so SQLite itself says where each ends."""
    found = _scripts.get(name)
    if found is None:
        found, text = [], ""
        for line in (resources.files("celeriac.embedded") / name).read_text("utf-8").splitlines(keepends=True):
            text += line
            if sqlite3.complete_statement(text):
                found.append(text)
                text = ""
        _scripts[name] = found
    return found


_scripts: dict[str, list[str]] = {}


def _pauses() -> Iterator[float]:
    """How long to wait between two tries for a lock; transactions last a millisecond or less."""
    pause = 0.0003
    while True:
        yield pause * random.uniform(0.5, 1.5)
        pause = min(pause * 1.5, 0.01)


# ── the links of this process ────────────────────────────────────────────────────────────────────────────────

_links: weakref.WeakSet[Link] = weakref.WeakSet()
_registry_lock = threading.Lock()
_writers: dict[Path, threading.Lock] = {}
_held_for_fork: list[Link] = []
_busy_at_fork: list[Link] = []


def _writer_of(path: Path) -> threading.Lock:
    found = _writers.get(path)
    if found is None:
        found = _writers.setdefault(path, threading.Lock())
    return found


def _before_fork() -> None:
    _registry_lock.acquire()
    for link in list(_links):
        (_held_for_fork if link.before_fork() else _busy_at_fork).append(link)


def _after_fork_in_parent() -> None:
    for link in _held_for_fork:
        link.after_fork()
    _held_for_fork.clear()
    _busy_at_fork.clear()
    _registry_lock.release()


def _after_fork_in_child() -> None:
    if _busy_at_fork:
        _writers.clear()
    for link in _busy_at_fork:
        link.inherited_in_use()
    _after_fork_in_parent()


def _leak(connection: sqlite3.Connection) -> None:
    """Keep ``connection`` from ever being closed, not even when the interpreter ends."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
