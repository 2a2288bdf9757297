"""Threads that publish together share commits, and each hears only of its own message."""

from __future__ import annotations

import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from celeriac.embedded import group_commit
from celeriac.embedded.file import EmbeddedFile
from celeriac.embedded.group_commit import GroupCommit
from celeriac.embedded.location import Location
from celeriac.errors import BrokerUnavailable, PublishTimeout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celeriac.embedded.file import Link


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Link]:
    link = EmbeddedFile(Location(tmp_path / "q.sqlite3")).link()
    yield link
    link.close()


def row(body: bytes) -> Any:
    return ("q", 0, 0, None, b"", body)


def stored(link: Link) -> set[bytes]:
    return {body for (body,) in link.read(lambda connection: connection.execute("SELECT body FROM message").fetchall())}


class Gate:
    """Holds the first send open until told, and counts the sends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inside, self.leave = threading.Event(), threading.Event()
        self.sizes: list[int] = []
        self.refuse: bytes | None = None
        self._send = group_commit.send
        monkeypatch.setattr(group_commit, "send", self)

    def __call__(self, link: Link, rows: Any, patience: float) -> None:
        self.sizes.append(len(rows))
        if not self.inside.is_set():
            self.inside.set()
            assert self.leave.wait(60)
        if self.refuse in [one[-1] for one in rows]:
            raise BrokerUnavailable("refused")
        self._send(link, rows, patience)


def test_waiting_threads_share_one_commit(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    commit = GroupCommit(link)
    threads = [threading.Thread(target=commit.send, args=([row(b"first")], 20))]
    threads[0].start()
    assert gate.inside.wait(60)
    for number in range(10):
        threads.append(threading.Thread(target=commit.send, args=([row(b"%d" % number)], 20)))
        threads[-1].start()
    while len(commit._waiting) < 10:
        time.sleep(0.001)
    gate.leave.set()
    for thread in threads:
        thread.join(60)
    assert gate.sizes == [1, 10]
    assert stored(link) == {b"first", *(b"%d" % number for number in range(10))}


def test_one_refusal_does_not_refuse_the_others(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    gate.refuse = b"3"
    commit = GroupCommit(link)
    refused: list[bytes] = []

    def send(body: bytes) -> None:
        try:
            commit.send([row(body)], 20)
        except BrokerUnavailable:
            refused.append(body)

    threads = [threading.Thread(target=send, args=(b"first",))]
    threads[0].start()
    assert gate.inside.wait(60)
    for number in range(6):
        threads.append(threading.Thread(target=send, args=(b"%d" % number,)))
        threads[-1].start()
    while len(commit._waiting) < 6:
        time.sleep(0.001)
    gate.leave.set()
    for thread in threads:
        thread.join(60)
    assert refused == [b"3"]
    assert stored(link) == {b"first", b"0", b"1", b"2", b"4", b"5"}


def test_a_deadline_while_waiting_means_not_stored(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    commit = GroupCommit(link)
    first = threading.Thread(target=commit.send, args=([row(b"first")], 20))
    first.start()
    assert gate.inside.wait(60)
    with pytest.raises(BrokerUnavailable, match="not stored"):
        commit.send([row(b"late")], 0.05)
    gate.leave.set()
    first.join(60)
    commit.send([row(b"second")], 20)
    assert stored(link) == {b"first", b"second"}


def test_a_deadline_while_another_commits_for_us_means_unknown(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = GroupCommit(link)
    link.execute("DELETE FROM message")
    entry = group_commit._Entry([row(b"x")])
    entry.state = "taken"
    with pytest.raises(PublishTimeout, match="may be stored"):
        commit._give_up(entry)


def test_a_file_locked_by_others_is_a_typed_error_for_all(link: Link, tmp_path: Path) -> None:
    commit = GroupCommit(link)
    commit.send([row(b"first")], 5)
    foreign = sqlite3.connect(tmp_path / "q.sqlite3", isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    errors: list[type] = []

    def send() -> None:
        try:
            commit.send([row(b"x")], 0.2)
        except Exception as error:
            errors.append(type(error))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    foreign.execute("ROLLBACK")
    foreign.close()
    assert len(errors) == 4
    assert set(errors) <= {BrokerUnavailable, PublishTimeout}
    assert stored(link) == {b"first"}
