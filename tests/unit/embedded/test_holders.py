"""Who is alive: locks that end with their process, whatever it has forked, and lists that don't grow."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from celeriac.clock import SYSTEM_CLOCK
from celeriac.embedded import messages
from celeriac.embedded.doorbell import directory_for
from celeriac.embedded.file import EmbeddedFile, Link
from celeriac.embedded.holders import is_gone, lock_path
from celeriac.embedded.location import location_of
from celeriac.errors import BrokerUnavailable
from celeriac.transports.base import ACK, Envelope, Outgoing, QueueSpec, Route, Settlement
from celeriac.transports.sqlite import SqliteConsumer, SqliteTransport

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Numbers:
    broker_lease = 30.0
    broker_max_message_bytes = 1 << 20
    task_dead_letter_expires = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q.sqlite3"


@pytest.fixture
def transport(path: Path) -> SqliteTransport:
    return SqliteTransport(f"sqlite:///{path}", Numbers, SYSTEM_CLOCK)


@pytest.fixture
def link(path: Path) -> Iterator[Link]:
    made = EmbeddedFile(location_of(f"sqlite:///{path}")).link()
    yield made
    made.close()


def publish(transport: SqliteTransport, count: int) -> None:
    publisher = transport.publisher()
    batch = [Outgoing(Envelope(b"%d" % n, {}, {}), Route("", "q")) for n in range(count)]
    publisher.publish(batch, SYSTEM_CLOCK.monotonic() + 10)
    publisher.close()


def consuming(transport: SqliteTransport) -> SqliteConsumer:
    return transport.blocking_consumer([QueueSpec(name="q")])


def look_again(consumer: SqliteConsumer) -> None:
    consumer._looked_for_gone_at = float("-inf")


def test_the_lock_ends_with_its_process_though_a_child_lives_on(
    transport: SqliteTransport, path: Path, link: Link
) -> None:
    publish(transport, 3)
    reading, writing = os.pipe()
    holder = os.fork()
    if holder == 0:
        consumer = consuming(SqliteTransport(f"sqlite:///{path}", Numbers, SYSTEM_CLOCK))
        consumer.receive(2, 5)
        if os.fork() == 0:
            os.read(reading, 1)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(holder, 0)
    try:
        [(first, _)] = messages.holders(link)
        assert is_gone(path, first)
        mine = consuming(transport)
        assert len(mine.receive(10, 5)) == 3
        mine.close()
        assert messages.holders(link) == []
    finally:
        os.write(writing, b"x")
        os.close(reading)
        os.close(writing)


def test_a_consumer_is_seen_again_after_its_folder_was_tidied(
    transport: SqliteTransport, path: Path, link: Link
) -> None:
    consumer = consuming(transport)
    consumer.receive(1, 0)
    [(first, _)] = messages.holders(link)
    lock_path(path, first).unlink()
    assert is_gone(path, first) is None
    look_again(consumer)
    consumer.receive(1, 0)
    assert is_gone(path, first) is False
    lock_path(path, first).unlink()
    lock_path(path, first).touch()  # somebody has restored the folder
    look_again(consumer)
    consumer.receive(1, 0)
    assert is_gone(path, first) is False
    consumer.close()
    assert messages.holders(link) == []
    assert list(directory_for(path).glob("h-*")) == []


def test_who_left_no_file_and_holds_nothing_is_struck(transport: SqliteTransport, path: Path, link: Link) -> None:
    messages.arrive(link, 100, 199)
    consumer = consuming(transport)
    consumer.receive(1, 0)
    assert len(messages.holders(link)) == 1
    consumer.close()


def test_what_could_not_be_given_back_at_the_end_is_taken_by_the_next(
    transport: SqliteTransport, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(transport, 3)
    consumer = consuming(transport)
    assert len(consumer.receive(3, 5)) == 3

    def refuse(*_: Any) -> None:
        raise BrokerUnavailable("locked")

    with monkeypatch.context() as patch:
        patch.setattr(messages, "leave", refuse)
        with pytest.raises(BrokerUnavailable):
            consumer.close()
    other = consuming(transport)
    assert len(other.receive(3, 5)) == 3
    other.close()
    assert messages.holders(link) == []


def test_what_is_kept_is_settled_by_the_next_consumer_and_nobody_else_gets_it(
    transport: SqliteTransport, path: Path, link: Link
) -> None:
    publish(transport, 4)
    stranger = consuming(SqliteTransport(f"sqlite:///{path}", Numbers, SYSTEM_CLOCK))
    broken = consuming(transport)
    runs, waits, ends, hangs = broken.receive(4, 5)
    broken.close_keeping([runs.receipt, ends.receipt, hangs.receipt])
    [found] = stranger.receive(4, 5)
    assert found.envelope.body == waits.envelope.body
    following = consuming(transport)
    assert following.renew([runs.receipt, ends.receipt, hangs.receipt]) == []
    assert following.settle([Settlement(ends.receipt, ACK)]) == []
    assert following.receive(4, 0) == []
    assert len(transport.kept) == 1
    assert len(messages.holders(link)) == 3
    assert following.settle([Settlement(runs.receipt, ACK)]) == []
    following.close()  # for good: what hangs goes back
    assert transport.kept == []
    look_again(stranger)
    assert [one.envelope.body for one in stranger.receive(4, 5)] == [hangs.envelope.body]
    stranger.close()
    assert messages.holders(link) == []


def test_who_kept_something_and_has_settled_it_is_struck(transport: SqliteTransport, link: Link) -> None:
    publish(transport, 1)
    broken = consuming(transport)
    [runs] = broken.receive(1, 5)
    broken.close_keeping([runs.receipt])
    following = consuming(transport)
    following.settle([Settlement(runs.receipt, ACK)])
    following.receive(1, 0)
    assert transport.kept == []
    assert len(messages.holders(link)) == 1
    following.close()
