"""The embedded file survives what processes, disks and people do to it."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from typing import TYPE_CHECKING

import pytest

from celeriac.embedded import file as file_module
from celeriac.embedded.file import APPLICATION_ID, SCHEMA_VERSION, EmbeddedFile, Link
from celeriac.embedded.location import Location
from celeriac.errors import BrokerFull, BrokerUnavailable, ImproperlyConfigured, OperationalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

INSERT = "INSERT INTO saved_group (id, payload) VALUES (?, ?)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q.sqlite3"


@pytest.fixture
def link(path: Path) -> Iterator[Link]:
    link = EmbeddedFile(Location(path)).link()
    yield link
    link.close()


def count(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        number: int = connection.execute("SELECT count(*) FROM saved_group").fetchone()[0]
        return number
    finally:
        connection.close()


def in_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a forked child; its exit status, 0 if all went well."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_construction_touches_nothing(path: Path) -> None:
    EmbeddedFile(Location(path)).link().close()
    assert not path.exists()


def test_a_new_file_is_set_up_once_for_all(path: Path) -> None:
    links = [EmbeddedFile(Location(path)).link() for _ in range(8)]
    errors: list[BaseException] = []

    def use(link: Link, number: int) -> None:
        try:
            link.execute(INSERT, (str(number), b""))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=use, args=(link, number)) for number, link in enumerate(links)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    for link in links:
        link.close()
    assert count(path) == 8


def test_the_pragmas_promise_durability(link: Link) -> None:
    def pragma(name: str) -> object:
        return link.read(lambda connection: connection.execute(f"PRAGMA {name}").fetchone()[0])

    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 2  # FULL
    assert pragma("user_version") == SCHEMA_VERSION
    assert pragma("application_id") == APPLICATION_ID


def test_files_of_others_are_left_alone(path: Path, link: Link) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    path.chmod(0o600)
    with pytest.raises(ImproperlyConfigured, match="another program"):
        link.execute(INSERT, ("a", b""))


def test_files_of_the_future_are_refused(path: Path, link: Link) -> None:
    link.execute(INSERT, ("a", b""))
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(ImproperlyConfigured, match="newer celeriac"):
        EmbeddedFile(Location(path)).link().execute(INSERT, ("b", b""))


def test_tables_that_another_process_makes_while_this_one_opens_are_seen(
    path: Path, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite checks what it remembers of the tables when a step runs, but not when it compiles a trigger."""
    other = EmbeddedFile(Location(path)).link()
    migrate = file_module.migrate

    def slowly(connection: sqlite3.Connection, *where: Path | file_module.Format) -> None:
        monkeypatch.setattr(file_module, "migrate", migrate)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # it has seen an empty file
        other.read(lambda connection: connection.execute("SELECT count(*) FROM saved_group").fetchone())
        migrate(connection, *where)  # type: ignore[arg-type]

    monkeypatch.setattr(file_module, "migrate", slowly)
    link.execute("INSERT INTO finishing (token, id) VALUES (1, 1)")
    other.close()


def test_a_damaged_file_is_named(path: Path, link: Link) -> None:
    path.write_bytes(b"no database at all " * 1000)
    path.chmod(0o600)
    with pytest.raises(ImproperlyConfigured, match=r"damaged.*\.recover"):
        link.execute(INSERT, ("a", b""))


def test_a_failed_transaction_leaves_nothing(path: Path, link: Link) -> None:
    def half(connection: sqlite3.Connection) -> None:
        connection.execute(INSERT, ("a", b""))
        raise KeyError("in the middle")

    with pytest.raises(KeyError):
        link.write(half)
    with pytest.raises(OperationalError, match="no such table"):
        link.write(lambda connection: connection.execute("DELETE FROM nowhere"))
    link.execute(INSERT, ("b", b""))
    assert count(path) == 1


def test_a_lock_is_waited_for_until_the_deadline(path: Path, link: Link) -> None:
    link.execute(INSERT, ("a", b""))
    foreign = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    foreign.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable, match="locked by another process"):
        link.execute(INSERT, ("b", b""), patience=0.1)
    assert 0.05 < time.monotonic() - began < 60
    assert link.read(lambda connection: connection.execute("SELECT count(*) FROM saved_group").fetchone()[0]) == 1
    release = threading.Timer(0.1, lambda: foreign.execute("COMMIT"))
    release.start()
    link.execute(INSERT, ("c", b""), patience=20)
    release.join()
    foreign.close()


def test_threads_take_turns(path: Path, link: Link) -> None:
    """A second link of the same process waits for the first, and no longer than told."""
    inside, leave = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        inside.set()
        assert leave.wait(60)

    holder = threading.Thread(target=lambda: link.write(slow))
    holder.start()
    assert inside.wait(60)
    other = EmbeddedFile(Location(path)).link()
    for blocked in (other, link):
        with pytest.raises(BrokerUnavailable):
            blocked.execute(INSERT, ("a", b""), patience=0.05)
    leave.set()
    other.execute(INSERT, ("b", b""), patience=20)
    holder.join(60)
    other.close()


def test_a_deleted_file_is_made_anew_instead_of_written_unseen(path: Path, link: Link) -> None:
    link.execute(INSERT, ("a", b""))
    for name in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        name.unlink(missing_ok=True)
    link.execute(INSERT, ("b", b""))
    assert count(path) == 1


def test_closed_links_say_so(link: Link) -> None:
    link.execute(INSERT, ("a", b""))
    link.close()
    link.close()
    with pytest.raises(OperationalError, match="closed"):
        link.execute(INSERT, ("b", b""))


# ── forks ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_parent_and_child_both_write_after_a_fork(path: Path, link: Link) -> None:
    link.execute(INSERT, ("before", b""))

    def work() -> None:
        for number in range(20):
            link.execute(INSERT, (f"child-{number}", b""))

    assert in_child(work) == 0
    link.execute(INSERT, ("after", b""))
    assert count(path) == 22


def test_what_a_child_writes_survives_its_parents_leaving(path: Path, link: Link) -> None:
    """With a connection inherited, the child would hold no lock, and the last to leave would delete its log."""
    link.execute(INSERT, ("before", b""))
    ready_read, ready_write = os.pipe()
    go_read, go_write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            link.execute(INSERT, ("child-1", b""))
            os.write(ready_write, b"x")
            os.read(go_read, 1)
            link.execute(INSERT, ("child-2", b""))
            status = 0
        finally:
            os._exit(status)  # without closing anything
    os.read(ready_read, 1)
    link.execute(INSERT, ("parent", b""))
    link.close()
    assert count(path) == 3  # opens, is the last but the child, and leaves
    os.write(go_write, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert count(path) == 4
    for descriptor in (ready_read, ready_write, go_read, go_write):
        os.close(descriptor)


def test_a_child_forked_inside_a_transaction_refuses(path: Path, link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_module, "PATIENCE", -0.95)  # before_fork waits a second longer
    inside, leave = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        connection.execute(INSERT, ("slow", b""))
        inside.set()
        assert leave.wait(60)

    holder = threading.Thread(target=lambda: link.write(slow, patience=20))
    holder.start()
    assert inside.wait(60)

    def work() -> None:
        with pytest.raises(OperationalError, match="forked while"):
            link.execute(INSERT, ("child", b""))

    assert in_child(work) == 0
    leave.set()
    holder.join(60)
    assert count(path) == 1


def test_forks_of_busy_threads_do_no_harm(path: Path, link: Link) -> None:
    """Many forks while several threads write: every write is there, nobody hangs, the file is sound."""
    stop = threading.Event()
    written = [0, 0]

    def write(place: int, mine: Link) -> None:
        while not stop.is_set():
            mine.execute(INSERT, (f"{place}-{written[place]}", b"x" * 200), patience=20)
            written[place] += 1

    links = [link, EmbeddedFile(Location(path)).link()]
    threads = [threading.Thread(target=write, args=(place, mine)) for place, mine in enumerate(links)]
    for thread in threads:
        thread.start()
    for number in range(10):
        assert in_child(lambda number=number: link.execute(INSERT, (f"child-{number}", b""), patience=20)) == 0
    stop.set()
    for thread in threads:
        thread.join(60)
    links[1].close()
    assert count(path) == sum(written) + 10
    assert link.read(lambda connection: connection.execute("PRAGMA integrity_check").fetchone()[0]) == "ok"


# ── a full disk ──────────────────────────────────────────────────────────────────────────────────────────────


def test_full_is_a_typed_error_and_passes(path: Path, link: Link) -> None:
    link.execute(INSERT, ("a", b""))
    pages = link.read(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
    link.read(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages + 1}").fetchall())
    with pytest.raises(BrokerFull, match="No space"):
        link.execute(INSERT, ("b", b"x" * 100_000), essential=False)
    with pytest.raises(BrokerFull):
        link.execute(INSERT, ("b", b"x" * 100_000))
    link.execute(INSERT, ("c", b""))
    link.read(lambda connection: connection.execute("PRAGMA max_page_count = 100000").fetchall())
    link.execute(INSERT, ("d", b"x" * 100_000))
    assert count(path) == 3


def test_the_reserve_is_real_and_comes_back(path: Path, link: Link) -> None:
    link.execute(INSERT, ("a", b""))
    reserve = EmbeddedFile(Location(path)).reserve
    assert reserve.restore()
    assert reserve.path.stat().st_blocks * 512 >= 1 << 20
    assert reserve.path.stat().st_mode & 0o777 == 0o600
    assert reserve.give_up()
    assert not reserve.give_up()
    assert reserve.restore()
