"""Hostile and broken messages: set aside unchanged with a reason; the worker stays, the neighbours run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.conftest import House

pytestmark = pytest.mark.system

SEND = """
import base64, gzip, zlib, json
from celeriac.transports.base import Envelope, Outgoing, Route

def put(body, task="house.add", id="x", headers=None, **properties):
    made = {"lang": "py", "task": task, "id": id, "retries": 0, "timelimit": [None, None], "root_id": id,
            "eta": None, "expires": None, "group": None, "parent_id": None, **(headers or {})}
    made = {name: value for name, value in made.items() if value is not ...}
    base = {"content_type": "application/json", "content_encoding": "utf-8", "correlation_id": id}
    envelope = Envelope(body, made, {**base, **properties})
    publisher = app.transport.publisher()
    publisher.publish([Outgoing(envelope, Route("", "celery"))], time.monotonic() + 5)

good = json.dumps([[1, 2], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]).encode()
"""

#: name → (code that sends it, a word its reason must contain)
BAD = {
    "truncated": ('put(good[:-9], id="truncated")', ""),
    "not-json": (r'put(b"\xff\xfe\x00garbage", id="not-json")', ""),
    "not-a-triple": ('put(b"[1]", id="not-a-triple")', ""),
    "unknown-task": ('put(good, task="house.nobody", id="unknown-task")', "house.nobody"),
    "unknown-type": ('put(good, id="unknown-type", content_type="application/x-nonsense")', "application/x-nonsense"),
    "pickle": ('put(good, id="pickle", content_type="application/x-python-serialize")', "python-serialize"),
    "unknown-codec": (
        'put(good, id="unknown-codec", headers={"compression": "application/x-squeeze"})', "application/x-squeeze",
    ),
    "nested": ('put(b"[[" + b"[" * 2000 + b"]" * 2000 + b"], {}, null]", id="nested")', "nest"),
    "bomb": (
        'put(zlib.compress(b"[[" + b" " * 300_000_000 + b"], {}, null]", 9), id="bomb",'
        ' headers={"compression": "application/x-gzip"})', "",
    ),
    "no-id": ('put(good, id="no-id", headers={"id": ...})', "id"),
    "bad-id": ('put(good, id="../../etc/passwd")', "id"),
    "bad-eta": ('put(good, id="bad-eta", headers={"eta": "tomorrow-ish"})', "eta"),
    "headers-of-wrong-type": ('put(good, id="wrong", headers={"retries": "many", "timelimit": 7})', ""),
}  # fmt: skip


def test_bad_messages_are_set_aside_and_neighbours_run(house: House) -> None:
    worker = house.worker("-c", "2")
    code = "\n".join(f"{send}\nadd.delay({n}, 1)" for n, (send, _) in enumerate(BAD.values()))
    house.python(SEND + code)
    house.until(
        lambda: len(house.query("select 1 from buried where kind = 'quarantine'")) == len(BAD), 30, "quarantined"
    )
    house.until(lambda: list(house.states().values()).count("SUCCESS") == len(BAD), 30, "the neighbours ran")
    reasons = [row[0] for row in house.query("select reason from buried order by id")]
    for name, (_, word) in BAD.items():
        assert any(word in reason for reason in reasons), (name, word, reasons)
    assert all(reasons)
    assert worker.process.poll() is None
    assert house.waiting() == 0
    bodies = {bytes(row[0]) for row in house.query("select body from buried")}
    assert rb"\xff\xfe\x00garbage".decode("unicode_escape").encode("latin-1") in bodies
    assert worker.stop() == 0


def test_wrong_arity_is_the_tasks_own_failure(house: House) -> None:
    house.worker("-c", "1")
    house.python(SEND + 'put(b"[[1, 2, 3], {}, null]", id="arity"); add.delay(1, 1)')
    house.until(lambda: house.states().get("arity") == "FAILURE")
    text = house.python('r = app.AsyncResult("arity").get(propagate=False, timeout=30); print(type(r).__name__, r)')
    assert text.startswith("TypeError")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-A", "nowhere", "worker"], ["nowhere"]),
        (["-A", "house:nothing", "worker"], ["nothing"]),
        (["-A", "house", "-b", "sqllite:///x", "worker"], ["sqllite", "sqlite"]),
        (["-A", "house", "worker", "--", "worker.prefetch_multiplyer=3"], ["prefetch_multiplyer"]),
        (["-A", "house", "worker", "-P", "preforkk"], ["preforkk"]),
        (["-A", "house", "worker", "-c", "many"], ["many"]),
    ],
)
def test_a_bad_start_is_one_clear_line_and_exit_code_2(house: House, arguments: list[str], words: list[str]) -> None:
    done = house.celeriac(*arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
