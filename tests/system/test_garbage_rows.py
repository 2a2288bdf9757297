"""Garbage written straight into the tables: set aside unchanged or dropped; the worker stays, the neighbours run."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.conftest import House

pytestmark = pytest.mark.system

MESSAGE = "INSERT INTO message (id, meta, body) VALUES (?, ?, ?)"
READY = "INSERT INTO ready (queue, rank, position, id, attempts, redelivered) VALUES ('celery', ?, ?, ?, ?, ?)"
DELAYED = "INSERT INTO delayed (until, id, queue, rank, attempts, redelivered) VALUES (?, ?, 'celery', 0, 0, 0)"

#: messages whose headers cannot be read: (meta, body)
UNREADABLE: dict[str, tuple[object, object]] = {
    "empty": (b"", b""),
    "not-msgpack": (b"\xc1\xc1\xc1", b"\x00\xff" * 9),
    "truncated": (b"\x93\x81\xa2id", b"body"),
    "another-shape": (b"\x01", b"body"),
    "nested": (b"\x91" * 5000 + b"\xc0", b"body"),
    "text": ("ünïcödé", "bödy" * 7),
    "number": (7, -(2**63)),
    "real": (1.5, 1e300),
}


def insert(house: House, rows: list[tuple[str, tuple[object, ...]]]) -> None:
    with closing(sqlite3.connect(house.file, timeout=30)) as connection, connection:
        for sql, values in rows:
            connection.execute(sql, values)


def finished(house: House) -> int:
    return list(house.states().values()).count("SUCCESS")


def test_unreadable_messages_are_set_aside_byte_by_byte(house: House) -> None:
    house.python("[add.delay(n, n) for n in range(20)]")
    rows: list[tuple[str, tuple[object, ...]]] = []
    for number, (meta, body) in enumerate(UNREADABLE.values()):
        rows.append((MESSAGE, (-number - 1, meta, body)))
        # in the middle of the good ones, so that one claim takes all
        rows.append((READY, (0, house.query("select position from ready")[10][0], -number - 1, 0, 0)))
    insert(house, rows)
    worker = house.worker("-c", "1")
    house.until(lambda: finished(house) == 20, 20, "the neighbours ran")
    house.until(lambda: house.waiting() == 0, 20, "everything is settled")
    buried = house.query("select kind, meta, body, reason from buried order by id")
    assert {row[0] for row in buried} == {"quarantine"}
    assert sorted(map(repr, (row[1:3] for row in buried))) == sorted(map(repr, UNREADABLE.values()))
    assert all(row[3] for row in buried)
    assert worker.stop() == 0


#: rows of ``ready`` that point to a good message: (rank, position, attempts, redelivered)
ODD_PLACES: dict[str, tuple[object, ...]] = {
    "text": ("first", 0, 0, 0),
    "real": (0.5, 1.5, 0, 0),
    "attempts are text": (0, 0, "many", 0),
    "attempts are huge": (0, 0, 2**63 - 1, 2**63 - 1),
    "attempts are negative": (0, 0, -5, -5),
    "bytes": (b"\xff", b"\xff", b"\xff", b"\xff"),
    "infinite": (float("inf"), float("-inf"), 0, 0),
}


@pytest.mark.parametrize("name", ODD_PLACES)
def test_odd_values_in_the_order_of_a_queue_stop_nothing(house: House, name: str) -> None:
    house.python("[add.delay(n, n) for n in range(10)]")
    [meta, body] = house.query("select meta, body from message limit 1")[0]
    rank, position, attempts, redelivered = ODD_PLACES[name]
    insert(house, [(MESSAGE, (99, meta, body)), (READY, (rank, position, 99, attempts, redelivered))])
    worker = house.worker("-c", "1")
    house.until(lambda: finished(house) == 10, 20, "the neighbours ran")
    house.until(lambda: house.waiting() == 0, 20, "everything is settled")
    assert house.python("print(add.delay(20, 22).get(timeout=60))").strip() == "42"
    assert worker.stop() == 0


#: rows that no message belongs to, and messages with several places
STRAY: dict[str, list[tuple[str, tuple[object, ...]]]] = {
    "ready without a message": [(READY, (0, 0, 12345, 0, 0))],
    "delayed without a message": [(DELAYED, (1, 12345))],
    "delayed until text": [(DELAYED, ("tomorrow", 12345))],
    "delayed until minus infinity": [(DELAYED, (float("-inf"), 12345))],
    "twice in ready": [(READY, (0, 0, 1, 0, 0))],
    "twice in delayed": [(DELAYED, (1, 1)), (DELAYED, (2, 1))],
    "a lease of nobody": [("INSERT INTO lease (until, token) VALUES (?, ?)", (-5, "nobody"))],
    "a lease until text": [("INSERT INTO lease (until, token) VALUES (?, ?)", ("soon", -1))],
    "held by nobody": [
        ("INSERT INTO held VALUES (?, ?, ?, 'celery', 0, 0, 0, 0)", (1, 12345, 1)),
        ("INSERT INTO lease (until, token) VALUES (?, ?)", (1, 1)),
    ],
    "a holder of nonsense": [("INSERT INTO holder VALUES (?, ?)", (-(2**63), "last"))],
    "a queue of nonsense": [("INSERT INTO queue VALUES (CAST(x'ff' AS TEXT), x'c1')", ())],
    "a queue of bytes": [("INSERT INTO ready VALUES (x'ff00', 0, 0, 1, 0, 0)", ())],
    "a queue that is not UTF-8": [("INSERT INTO ready VALUES (CAST(x'ff00' AS TEXT), 0, 0, 77, 0, 0)", ())],
    "a binding of nonsense": [("INSERT INTO binding VALUES (x'ff', CAST(x'ff' AS TEXT), 1, 'sideways')", ())],
}


@pytest.mark.parametrize("name", STRAY)
def test_stray_rows_stop_nothing(house: House, name: str) -> None:
    house.python("[add.delay(n, n) for n in range(10)]")
    insert(house, STRAY[name])
    worker = house.worker("-c", "1")
    house.until(lambda: finished(house) == 10, 20, "the neighbours ran")
    assert house.python("print(add.delay(20, 22).get(timeout=60))").strip() == "42"
    status = house.celeriac("-A", "house", "status")
    assert status.returncode == 0, status.stderr
    assert "Traceback" not in status.stderr + worker.log
    assert "BrokerLost" not in worker.log
    assert worker.stop() == 0
    assert house.integrity() == "ok"
