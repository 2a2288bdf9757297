"""The broker's moves on the file: what the conformance suite cannot see from outside."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from celeriac.embedded import messages
from celeriac.embedded.file import EmbeddedFile
from celeriac.embedded.location import Location
from celeriac.errors import BrokerFull, PublishRejected
from celeriac.results.sqlite import SqliteStore
from celeriac.testing.conformance.clock import SteppedClock
from celeriac.transports.base import ACK, RELEASE, Bury, Envelope, Outgoing, QueueSpec, Route, Settlement
from celeriac.transports.sqlite import SqliteTransport
from celeriac.wire.result_record import ResultRecord

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celeriac.transports.sqlite import SqliteConsumer


class Numbers:
    broker_lease = 30.0
    broker_max_message_bytes = 1 << 20
    task_dead_letter_expires = 60.0


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/q.sqlite3"


@pytest.fixture
def transport(url: str, clock: SteppedClock) -> SqliteTransport:
    return SqliteTransport(url, Numbers, clock)


@pytest.fixture
def publish(transport: SqliteTransport) -> Iterator[Any]:
    publisher = transport.publisher()
    yield lambda *batch: publisher.publish(batch, time.monotonic() + 10)
    publisher.close()


@pytest.fixture
def consumer(transport: SqliteTransport) -> Iterator[SqliteConsumer]:
    consumer = transport.blocking_consumer([QueueSpec(name="q")])
    yield consumer
    consumer.close()


@pytest.fixture
def admin(transport: SqliteTransport) -> Iterator[Any]:
    admin = transport.admin()
    yield admin
    admin.close()


def message(body: bytes = b"[]", **headers: Any) -> Outgoing:
    return Outgoing(Envelope(body, headers, {"content_type": "application/json"}), Route("", "q"))


def run_sql(tmp_path: Path, sql: str, *parameters: Any) -> list[Any]:
    link = EmbeddedFile(Location(tmp_path / "q.sqlite3")).link()
    try:
        return link.read(lambda connection: connection.execute(sql, parameters).fetchall())
    finally:
        link.close()


def test_headers_that_cannot_be_read_are_quarantined_byte_for_byte(
    tmp_path: Path, publish: Any, consumer: SqliteConsumer, admin: Any
) -> None:
    publish(*(message(b"%d" % n, n=n) for n in range(5)))
    bad = {2: b"\xff\xfe not msgpack", 3: b"", 4: b"\x91" * 3000}
    for number, meta in bad.items():
        run_sql(tmp_path, "UPDATE message SET meta = ? WHERE id = ?", meta, number)
    found = consumer.receive(10, 1)
    assert [one.envelope.body for one in found] == [b"0", b"1", b"2", b"3", b"4"]
    assert [one.malformed is None for one in found] == [True, False, False, False, True]
    for one in found[1:4]:
        assert "cannot be read" in (one.malformed or "")
        assert not consumer.settle([Settlement(one.receipt, Bury(one.malformed or "", quarantine=True, worker="w"))])
    buried = admin.buried(["q"], 10)
    assert [(one.raw, one.envelope, one.quarantined) for one in buried] == [
        (b"3", None, True), (b"2", None, True), (b"1", None, True),
    ]  # fmt: skip
    kept = run_sql(tmp_path, "SELECT meta FROM buried ORDER BY id")
    assert [row[0] for row in kept] == list(bad.values())
    assert admin.buried(["other"], 10) == []


def test_the_buried_can_be_replayed_and_expire(
    publish: Any, consumer: SqliteConsumer, admin: Any, clock: SteppedClock
) -> None:
    publish(*(message(b"%d" % n, n=n) for n in range(3)))
    found = consumer.receive(3, 1)
    consumer.settle([Settlement(one.receipt, Bury("too often", worker="w1")) for one in found])
    dead = admin.buried(["q"], 10)
    assert [(one.reason, one.worker, one.envelope.headers) for one in dead] == [
        ("too often", "w1", {"n": n}) for n in (2, 1, 0)
    ]
    assert admin.replay([dead[0], dead[0]]) == 1
    (again,) = consumer.receive(3, 1)
    assert (again.envelope.body, again.attempt, again.redelivered) == (b"2", 0, False)
    assert len(admin.buried(["q"], 10)) == 2
    clock.advance(61)
    consumer.settle([Settlement(again.receipt, ACK)])  # tidies up on the way
    assert admin.buried(["q"], 10) == []


def test_a_clock_set_back_hides_nothing(publish: Any, consumer: SqliteConsumer, clock: SteppedClock) -> None:
    publish(message(b"1"))
    clock.jump(-3600)
    publish(message(b"2"))
    assert {one.envelope.body for one in consumer.receive(10, 1)} == {b"1", b"2"}


def test_a_clock_set_forward_takes_nothing_from_those_who_hold_it(
    transport: SqliteTransport, publish: Any, consumer: SqliteConsumer, clock: SteppedClock
) -> None:
    other = transport.blocking_consumer([QueueSpec(name="q")])
    publish(message(b"1"), message(b"2"))
    [mine] = consumer.receive(1, 1)
    assert other.receive(1, 1)
    clock.advance(1)
    other.receive(1, 0)
    clock.jump(3600)
    assert other.receive(2, 0.1) == []
    assert consumer.renew([mine.receipt]) == []
    clock.advance(15)
    assert other.receive(2, 0.1) == []
    # who does not renew loses it all the same, only later
    clock.advance(45)
    assert [one.envelope.body for one in other.receive(2, 0.1)] == [b"1", b"2"]
    assert consumer.renew([mine.receipt]) == [mine.receipt]
    other.close()


def test_headers_beyond_plain_data_are_refused(publish: Any, admin: Any) -> None:
    for value in (object(), 1 << 70, lambda: None):
        with pytest.raises(PublishRejected, match="headers"):
            publish(message(), message(value=value))
    assert admin.depth("q") == 0


def test_a_bulk_is_all_or_nothing_and_in_order(publish: Any, consumer: SqliteConsumer, admin: Any) -> None:
    publish(*(message(b"%d" % n) for n in range(1000)))
    assert admin.depth("q") == 1000
    got = [int(one.envelope.body) for _ in range(10) for one in consumer.receive(100, 1)]
    assert got == list(range(1000))


def test_settling_more_than_a_statement_holds(publish: Any, consumer: SqliteConsumer, admin: Any) -> None:
    publish(*(message(b"%d" % n) for n in range(300)))
    found = consumer.receive(300, 1)
    assert not consumer.settle([Settlement(one.receipt, RELEASE) for one in found[:150]])
    assert not consumer.settle([Settlement(one.receipt, ACK) for one in found[150:]])
    lost = consumer.settle([Settlement(one.receipt, ACK) for one in found])
    assert sorted(lost) == sorted(one.receipt for one in found)
    assert admin.depth("q") == 150
    assert [int(one.envelope.body) for one in consumer.receive(300, 1)] == list(range(150))


def test_a_message_is_never_in_two_places(tmp_path: Path, publish: Any, consumer: SqliteConsumer) -> None:
    publish(*(message(b"%d" % n) for n in range(90)))
    found = consumer.receive(60, 1)
    verdicts = [ACK, RELEASE, Bury("x")]
    consumer.settle([Settlement(one.receipt, verdicts[place % 3]) for place, one in enumerate(found[:30])])
    ((stored, placed, distinct),) = run_sql(
        tmp_path,
        "WITH place AS (SELECT id FROM ready UNION ALL SELECT id FROM delayed UNION ALL SELECT id FROM held) "
        "SELECT (SELECT count(*) FROM message), count(*), count(DISTINCT id) FROM place",
    )
    assert stored == placed == distinct == 90 - 20


def test_leases_leave_no_rows_behind(
    tmp_path: Path, publish: Any, consumer: SqliteConsumer, clock: SteppedClock
) -> None:
    publish(*(message() for _ in range(40)))
    for _ in range(40):
        (one,) = consumer.receive(1, 1)
        consumer.settle([Settlement(one.receipt, ACK)])
    for _ in range(5):  # sixteen leases at a time
        clock.advance(31)
        assert not consumer.receive(1, 0)
    assert run_sql(tmp_path, "SELECT count(*) FROM lease") == [(0,)]


def test_a_claim_does_not_read_the_whole_queue(tmp_path: Path, publish: Any) -> None:
    """The plans that keep a claim as cheap among a million messages as among ten."""
    publish(message())

    def plan(sql: str, *parameters: Any) -> str:
        return " / ".join(row[3] for row in run_sql(tmp_path, "EXPLAIN QUERY PLAN " + sql, *parameters))

    claim = plan("SELECT id FROM ready WHERE queue = ? ORDER BY rank, position, id LIMIT 5", "q")
    assert claim == "SEARCH ready USING PRIMARY KEY (queue=?)"
    for table in ("delayed", "lease"):
        due = plan(f"SELECT until FROM {table} WHERE until <= ? ORDER BY until LIMIT 5", 1)
        assert due == f"SEARCH {table} USING PRIMARY KEY (until<?)"
    assert "SCAN" not in plan("DELETE FROM held WHERE token = 1 AND id = 1")
    assert "SCAN" not in plan("SELECT id FROM buried WHERE expires_at <= 5 LIMIT 5")
    assert "SCAN" not in plan("SELECT number FROM result WHERE expires_at <= 5 LIMIT 5")


def test_results_and_acknowledgements_are_one_transaction(
    url: str, publish: Any, consumer: SqliteConsumer, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(url, Numbers, clock)
    publish(message())
    (one,) = consumer.receive(1, 1)
    commit = [[ResultRecord("t", "SUCCESS", b"x")], [message(b"next")], [Settlement(one.receipt, Bury("x"))]]

    def fail(*_: Any) -> None:
        raise BrokerFull("in the middle")

    with monkeypatch.context() as patched:
        patched.setattr("celeriac.embedded.records.give_back_within", fail)
        with pytest.raises(BrokerFull):
            consumer.commit(*commit)  # type: ignore[arg-type]
    assert not store.read(["t"])
    assert not consumer.receive(1, 0)
    assert not consumer.commit(*commit)  # type: ignore[arg-type]
    assert store.read(["t"])["t"].payload == b"x"
    assert [one.envelope.body for one in consumer.receive(2, 1)] == [b"next"]
    store.close()


def test_no_new_work_while_the_reserve_is_gone(
    tmp_path: Path, publish: Any, consumer: SqliteConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(message())
    reserve = EmbeddedFile(Location(tmp_path / "q.sqlite3")).reserve
    assert reserve.give_up()
    with monkeypatch.context() as patched:
        patched.setattr("celeriac.embedded.reserve._COMFORT", 1 << 60)
        with pytest.raises(BrokerFull):
            publish(message())
        (one,) = consumer.receive(5, 1)
        assert not consumer.settle([Settlement(one.receipt, ACK)])
    publish(message())
    assert reserve.path.exists()


def test_an_idle_consumer_takes_no_write_lock(tmp_path: Path, publish: Any, consumer: SqliteConsumer) -> None:
    publish(message())
    (one,) = consumer.receive(1, 1)
    consumer.settle([Settlement(one.receipt, ACK)])
    assert not consumer.receive(1, 0)
    foreign = EmbeddedFile(Location(tmp_path / "q.sqlite3")).link()
    inside, leave = threading.Event(), threading.Event()

    def hold(connection: Any) -> None:
        inside.set()
        assert leave.wait(60)

    holder = threading.Thread(target=lambda: foreign.write(hold))
    holder.start()
    assert inside.wait(60)
    assert not consumer.receive(1, 0)
    leave.set()
    holder.join(60)
    foreign.close()


def test_the_stored_headers_are_plain_msgpack(tmp_path: Path, publish: Any) -> None:
    publish(message(n=1))
    ((meta,),) = run_sql(tmp_path, "SELECT meta FROM message")
    assert msgspec.msgpack.decode(meta) == [{"n": 1}, {"content_type": "application/json"}, ["", "q", "direct"]]
    assert messages.rank_of(Envelope(b"", {}, {"priority": 9})) == -9
