"""Bytes that py-amqp, Celery's library, made and read: we make the same ones and read the same values."""

from __future__ import annotations

import datetime as datetime_module
import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from celeriac.amqp.methods import BY_NAME, decode_method, encode_method
from celeriac.amqp.properties import decode_properties, encode_properties
from celeriac.amqp.tables import decode_table, encode_table

GOLDEN = json.loads((Path(__file__).parent / "golden" / "amqp.json").read_text())
NAMES = {
    "Decimal": Decimal, "datetime": datetime_module, "inf": float("inf"), "timedelta": timedelta, "timezone": timezone
}  # fmt: skip


def cases(kind: str) -> list[Any]:
    return [pytest.param(case, id=str(case.get("name", number))) for number, case in enumerate(GOLDEN[kind])]


def value_of(text: str) -> Any:
    return eval(text, NAMES)


def naive(value: Any) -> Any:
    """py-amqp reads times without their zone."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None)
    if isinstance(value, dict):
        return {key: naive(inner) for key, inner in value.items()}
    return [naive(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("case", cases("written"))
def test_tables_are_written_and_read_as_py_amqp_does(case: dict[str, str]) -> None:
    data = bytes.fromhex(case["bytes"])
    assert encode_table(value_of(case["value"])) == data
    assert naive(decode_table(data[4:])) == value_of(case["read"])


@pytest.mark.parametrize("case", cases("read"))
def test_every_type_is_read_as_py_amqp_does(case: dict[str, str]) -> None:
    found = naive(decode_table(bytes.fromhex(case["bytes"])))["k"]
    expected = value_of(case["read"])
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("case", cases("properties"))
def test_properties(case: dict[str, str]) -> None:
    properties = value_of(case["value"])
    headers = properties.pop("application_headers", {})
    assert encode_properties(properties, headers) == bytes.fromhex(case["bytes"])
    assert decode_properties(bytes.fromhex(case["bytes"])) == (properties, headers)


@pytest.mark.parametrize("case", cases("methods"))
def test_methods(case: dict[str, str]) -> None:
    names = [field for field, _ in BY_NAME[case["name"]].fields]
    arguments = dict(zip(names, value_of(case["arguments"]), strict=True))
    assert encode_method(case["name"], arguments).hex() == case["bytes"]
    assert decode_method(bytes.fromhex(case["bytes"])).arguments == arguments
