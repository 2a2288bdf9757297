"""Captures the AMQP bytes of a real py-amqp, the library that Celery speaks with, as a golden file.

    .venv-celery/bin/python tools/capture_amqp.py tests/wire/golden/amqp.json

``written``: Python values and the bytes that py-amqp makes of them. ``read``: bytes of every type that it knows, and
what it reads. ``properties`` and ``methods``: property lists and method arguments with their bytes. Values are Python
reprs.
"""

from __future__ import annotations

import json
import struct
import sys
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import amqp
from amqp import Message, spec
from amqp.serialization import dumps, loads
from celery import Celery


def task_headers() -> list[dict[str, Any]]:
    """The headers of real task messages, with their random parts made constant."""
    app = Celery("golden", broker="memory://")
    constant = "475882d0-7e95-4fcd-85bd-b7624b481fdb"
    options: list[dict[str, Any]] = [
        {},
        {"eta": datetime(2030, 1, 2, 3, 4, 5, 678901, UTC), "expires": datetime(2030, 1, 3, tzinfo=UTC)},
        {"group_id": constant, "group_index": 3, "root_id": constant, "parent_id": constant, "retries": 2},
        {"time_limit": 30, "soft_time_limit": 12.5, "shadow": "schön", "argsrepr": "('ä' * 200,)" * 20},
    ]
    found = []
    for one in options:
        message = app.amqp.as_task_v2(constant, "proj.tasks.add", (2, "zwölf"), {"key": None}, **one)
        found.append({**message.headers, "origin": "gen1@golden"})
    found[0] |= {"stamps": {"batch": ["a", "b"]}, "stamped_headers": ["batch"], "batch": ["a", "b"]}
    return found


VALUES: dict[str, Any] = {
    "empty": {},
    "none, true, false": {"n": None, "t": True, "f": False},
    "small integers": {"zero": 0, "one": 1, "minus": -1, "max": 2**31 - 1, "min": -(2**31) + 1},
    "large integers": {"a": 2**31, "b": -(2**31), "c": 2**63 - 1, "d": -(2**63)},
    "floats": {"half": 0.5, "big": 1e300, "inf": float("inf"), "minus": -0.0},
    "strings": {"": "", "ä": "schön", "long": "x" * 300, "nul": "a\0b", "emoji": "😀", "surrogate": "\ud800"},
    "decimals": {"a": Decimal("1.25"), "b": Decimal("-7"), "c": Decimal("0.0001"), "zero": Decimal("0")},
    "times": {
        "naive": datetime(2020, 2, 3, 4, 5, 6),
        "utc": datetime(2020, 2, 3, 4, 5, 6, tzinfo=UTC),
        "east": datetime(2020, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=2))),
        "epoch": datetime(1970, 1, 1, tzinfo=UTC),
    },
    "lists": {"empty": [], "flat": [1, "two", None, 3.0], "nested": [[1, [2]], {"k": [None]}], "tuple": (1, 2)},
    "tables": {"empty": {}, "nested": {"a": {"b": {"c": {"d": 1}}}}},
    "x-death": {"x-death": [{"count": 1, "reason": "expired", "queue": "q", "time": datetime(2024, 1, 2, tzinfo=UTC),
                             "exchange": "", "routing-keys": ["q"]}]},
}  # fmt: skip

#: bytes of one table entry, key ``k``
TYPES: dict[str, bytes] = {
    "t": b"t\x01", "b": b"b\xff", "B": b"B\xff", "s": b"s\xff\xfe", "U": b"U\xff\xfe", "u": b"u\xff\xfe",
    "I": b"I\xff\xff\xff\xfe", "i": b"i\xff\xff\xff\xfe", "l": b"l" + struct.pack(">q", -5),
    "L": b"L" + struct.pack(">q", -5), "f": b"f" + struct.pack(">f", 1.5), "d": b"d" + struct.pack(">d", 1.1),
    "D": b"D\x02" + struct.pack(">i", -12345), "S": b"S\x00\x00\x00\x02\xc3\xa4",
    "S bytes": b"S\x00\x00\x00\x02\xff\xfe",
    "x": b"x\x00\x00\x00\x02\xff\xfe", "V": b"V", "T": b"T" + struct.pack(">Q", 1700000000),
    "A": b"A\x00\x00\x00\x03Vt\x00", "F": b"F\x00\x00\x00\x04\x01at\x01",
}  # fmt: skip

PROPERTIES: list[dict[str, Any]] = [
    {},
    {"content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 2, "priority": 0,
     "correlation_id": "c" * 36, "reply_to": "r" * 36, "application_headers": {"lang": "py", "retries": 0}},
    {"application_headers": {"a": 1}},
    {"expiration": "60000", "message_id": "m", "timestamp": 1700000000, "type": "t", "user_id": "guest",
     "app_id": "a", "cluster_id": "c"},
]  # fmt: skip

METHODS: list[tuple[str, Any, str, list[Any]]] = [
    ("queue.declare", spec.Queue.Declare, "BsbbbbbF",
     [0, "q", False, True, False, True, False, {"x-max-priority": 10, "x-queue-type": "quorum"}]),
    ("exchange.declare", spec.Exchange.Declare, "BssbbbbbF", [0, "e", "topic", False, True, False, False, False, {}]),
    ("queue.bind", spec.Queue.Bind, "BsssbF", [0, "q", "e", "a.b.#", False, {"x": None}]),
    ("exchange.bind", spec.Exchange.Bind, "BsssbF", [0, "to", "from", "key", False, {}]),
    ("basic.consume", spec.Basic.Consume, "BssbbbbF", [0, "q", "tag", False, True, True, False, {"x-priority": 3}]),
    ("basic.publish", spec.Basic.Publish, "Bssbb", [0, "e", "key", True, False]),
    ("basic.ack", spec.Basic.Ack, "Lb", [2**40, True]),
    ("basic.nack", spec.Basic.Nack, "Lbb", [7, False, True]),
    ("basic.qos", spec.Basic.Qos, "lBb", [0, 500, True]),
    ("connection.tune-ok", spec.Connection.TuneOk, "BlB", [2047, 131072, 60]),
    ("connection.close", spec.Connection.Close, "BsBB", [320, "CONNECTION_FORCED", 10, 40]),
]  # fmt: skip


def main(target: Path) -> None:
    values = {**VALUES, **{f"task headers {n}": headers for n, headers in enumerate(task_headers())}}
    captured = {
        "amqp": amqp.__version__,
        "written": [
            {"name": name, "value": repr(value), "bytes": dumps("F", [value]).hex(),
             "read": repr(loads("F", dumps("F", [value]), 0)[0][0])}
            for name, value in values.items()
        ],
        "read": [
            {"name": name, "bytes": (b"\x01k" + data).hex(),
             "read": repr(loads("F", struct.pack(">I", len(data) + 2) + b"\x01k" + data, 0)[0][0]["k"])}
            for name, data in TYPES.items()
        ],
        "properties": [
            {"value": repr(given), "bytes": Message("", **given)._serialize_properties().hex()} for given in PROPERTIES
        ],
        "methods": [
            {"name": name, "arguments": repr(arguments),
             "bytes": (struct.pack(">HH", *index) + dumps(layout, arguments)).hex()}
            for name, index, layout, arguments in METHODS
        ],
    }  # fmt: skip
    target.write_text(json.dumps(captured, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
