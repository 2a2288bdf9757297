"""Tables that match a shape are read as if there were none, and nobody's changes show in another's table."""

from __future__ import annotations

import random
from typing import Any

import pytest

from celeriac.amqp import tables
from celeriac.amqp.errors import Malformed
from celeriac.amqp.shapes import Shapes


@pytest.fixture(autouse=True)
def _no_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_shapes", Shapes())


def _headers(identifier: str, **more: Any) -> dict[str, Any]:
    return {
        "lang": "py", "task": "tasks.add", "id": identifier, "eta": None, "retries": 0, "timelimit": [None, None],
        "root_id": identifier, "ignore_result": False, "stamps": {}, **more,
    }  # fmt: skip


def _written(headers: dict[str, Any]) -> bytes:
    return tables.encode_table(headers)[4:]


def test_tables_of_one_shape_are_read_with_their_own_values() -> None:
    for number in range(100, 120):
        headers = _headers(f"id-{number}", argsrepr=f"({number},)")
        found = tables.decode_table(_written(headers))
        assert found == headers
        assert list(found) == list(headers)


def test_what_a_receiver_changes_is_its_own() -> None:
    for number in range(10):
        found = tables.decode_table(_written(_headers(f"id-{number}")))
        assert found == _headers(f"id-{number}")
        found["timelimit"].append(number)
        found["stamps"]["by"] = number
        found["task"] = "changed"


def test_values_of_another_kind_or_text_are_read_as_they_are() -> None:
    for number in range(4):
        tables.decode_table(_written(_headers(f"id-{number}")))
    for headers in (
        _headers("id-5", retries=1),
        _headers("id-5", ignore_result=True),
        _headers("ïd-"),  # as long, in bytes, as the others
        _headers("id-5", timelimit=[None, True]),
        {**_headers("id-5"), "task": "tasks.sub"},
    ):
        assert tables.decode_table(_written(headers)) == headers


def test_damaged_tables_are_refused_or_read_as_without_shapes() -> None:
    for number in range(4):
        tables.decode_table(_written(_headers(f"id-{number}")))
    sound = _written(_headers("id-7"))
    dice = random.Random(7)
    for _ in range(3000):
        data = bytearray(sound)
        data[dice.randrange(len(data))] = dice.randrange(256)
        damaged = bytes(data)
        assert _outcome(damaged, tables.decode_table) == _outcome(damaged, _without_shapes)


def _without_shapes(data: bytes) -> dict[str, Any]:
    known, tables._shapes = tables._shapes, Shapes()
    try:
        return tables.decode_table(data)
    finally:
        tables._shapes = known


def _outcome(data: bytes, read: Any) -> str:
    try:
        return repr(read(data))
    except Malformed as error:
        return f"malformed: {error}"


def test_what_is_learned_is_bounded() -> None:
    for size in range(600):
        tables.decode_table(_written({"id": "x" * size}))
        tables.decode_table(_written({"id": "y" * size}))
    assert len(tables._shapes._slots) == 256
