"""Celery's Redis backend and ours on one server: each reads, keeps, and waits for what the other wrote."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

from celeriac import Celeriac, states
from celeriac.errors import TaskRevokedError
from celeriac.testing.servers import RedisServer
from celeriac.wire.serializers import loads

if TYPE_CHECKING:
    from collections.abc import Iterator

PYTHON = os.environ.get("CELERIAC_INTEROP_PYTHON")
pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not PYTHON, reason="CELERIAC_INTEROP_PYTHON is not set: Celery's results are NOT read"),
]
SCRIPT = Path(__file__).parent / "celery_redis_results.py"
SERIALIZERS = ["json", "pickle", "yaml", "msgpack"]
STATES = ["SUCCESS", "FAILURE", "RETRY", "REVOKED", "STARTED", "PROGRESS"]
VALUES: dict[str, Any] = {
    "SUCCESS": {"a": [1, 2.5, None, "ü"]}, "FAILURE": ValueError("boom", 9), "RETRY": KeyError("k"),
    "REVOKED": TaskRevokedError("revoked"), "STARTED": {"hostname": "h", "pid": 1}, "PROGRESS": {"done": 3},
}  # fmt: skip


@pytest.fixture(scope="module")
def server(private_redis: RedisServer) -> RedisServer:
    return private_redis


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis(port=server.port) as client:
        client.flushall()
        yield client


def ours(server: RedisServer, serializer: str = "json", compression: str | None = None, prefix: str = "") -> Celeriac:
    app = Celeriac("interop", broker="memory://interop", backend=server.url(), set_as_current=False)
    app.conf.update(
        result_serializer=serializer, accept_content=SERIALIZERS, result_compression=compression, result_expires=3600,
        result_failure_expires=60, result_backend_transport_options={"global_keyprefix": prefix},
    )  # fmt: skip
    return app


def celery(
    server: RedisServer, *steps: tuple[str, Any], serializer: str = "json", compression: str | None = None,
    prefix: str = "",
) -> Any:  # fmt: skip
    started = start(server, *steps, serializer=serializer, compression=compression, prefix=prefix)
    said, complaint = started.communicate(timeout=150)
    assert started.returncode == 0, complaint
    return json.loads(said)


def start(server: RedisServer, *steps: tuple[str, Any], serializer: str, compression: str | None, prefix: str) -> Any:
    options = {
        "url": server.url(), "serializer": serializer, "compression": compression, "prefix": prefix, "steps": steps,
    }  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.Popen(
        [str(PYTHON), str(SCRIPT), json.dumps(options)], env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("serializer", "compression", "prefix"),
    [
        *[(name, None, "") for name in SERIALIZERS], *[(name, "gzip", "shop") for name in SERIALIZERS],
        ("json", "bzip2", "shop:"), ("json", "zstd", ""), ("json", None, "{tag}"),
    ],
)  # fmt: skip
def test_each_reads_the_others(
    server: RedisServer, client: redis.Redis, serializer: str, compression: str | None, prefix: str
):
    how: dict[str, Any] = {"serializer": serializer, "compression": compression, "prefix": prefix}
    app = ours(server, **how)
    for state, value in VALUES.items():
        app.backend.store_result(f"o-{state}", value, state, traceback="where" if state == "FAILURE" else None)
    our_keys = {key.replace(b"-o-", b"-x-"): client.pttl(key) // 1000 for key in client.scan_iter()}

    read = celery(server, ("write", "c"), ("read", [f"o-{state}" for state in STATES]), **how)["read"]
    for state, value in VALUES.items():
        theirs, mine = read[f"o-{state}"], app.backend.get_task_meta(f"c-{state}")
        assert theirs["status"] == mine["status"] == state
        assert theirs["result"] == repr(value) == repr(mine["result"])
        assert theirs["traceback"] == mine["traceback"] == ("where" if state == "FAILURE" else None)
        assert theirs["task_id"] == f"o-{state}"
        assert (theirs["date_done"] is not None) is (mine["date_done"] is not None) is (state in states.READY_STATES)
    # the same names, kept for the same time
    their_keys = {
        key.replace(b"-c-", b"-x-"): client.pttl(key) // 1000 for key in client.scan_iter() if b"-task-meta-c" in key
    }
    assert their_keys.keys() == our_keys.keys()
    assert all(abs(their_keys[key] - our_keys[key]) < 20 for key in our_keys)
    app.close()


@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_success_of_the_other_stays(
    server: RedisServer, client: redis.Redis, serializer: str, compression: str | None
):
    how: dict[str, Any] = {"serializer": serializer, "compression": compression}
    app = ours(server, **how)
    long = "x" * 200  # worth compressing
    app.backend.store_result("o-SUCCESS", long, "SUCCESS")
    celery(server, ("write", "c"), ("overwrite", ["o-SUCCESS"]), **how)
    app.backend.store_result("c-FAILURE", long, "STARTED")
    app.backend.store_result("c-SUCCESS", long, "STARTED")
    metas = app.backend.get_task_metas(["o-SUCCESS", "c-SUCCESS", "c-FAILURE"])
    assert {name: meta["status"] for name, meta in metas.items()} == {
        "o-SUCCESS": "SUCCESS", "c-SUCCESS": "SUCCESS", "c-FAILURE": "STARTED",
    }  # fmt: skip
    assert metas["c-SUCCESS"]["result"] == VALUES["SUCCESS"]
    # and a record over one of another serializer
    other = ours(server, "yaml" if serializer == "json" else "json")
    other.backend.store_result("c-SUCCESS", 1, "FAILURE")
    other.backend.store_result("c-PROGRESS", 1, "SUCCESS")
    assert app.backend.get_task_meta("c-SUCCESS")["result"] == VALUES["SUCCESS"]
    assert app.backend.get_task_meta("c-PROGRESS")["status"] == "SUCCESS"
    other.close()
    app.close()


def test_celery_is_told_of_our_results(server: RedisServer, client: redis.Redis):
    app = ours(server)
    names = [f"told-{number}" for number in range(3)]
    started = start(server, ("wait", names), serializer="json", compression=None, prefix="")
    assert started.stderr.readline() == "waiting\n"
    app.backend.store_result(names[0], 1, "PROGRESS")
    for name in names:
        app.backend.store_result(name, {"n": name}, "SUCCESS")
    said, complaint = started.communicate(timeout=150)
    assert started.returncode == 0, complaint
    assert json.loads(said)["wait"] == [repr({"n": name}) for name in names]
    app.close()


def test_we_are_told_of_celerys_results(server: RedisServer, client: redis.Redis):
    app = ours(server)
    started = start(server, ("write", "t"), serializer="json", compression=None, prefix="")
    assert app.AsyncResult("t-SUCCESS").get(timeout=60) == VALUES["SUCCESS"]
    with pytest.raises(ValueError, match="boom"):
        app.AsyncResult("t-FAILURE").get(timeout=60)
    started.communicate(timeout=150)
    app.close()


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_saved_groups(server: RedisServer, client: redis.Redis, serializer: str):
    celery(server, ("write", "g"), serializer=serializer)
    app = ours(server, serializer)
    saved = app.backend.store.restore_group("g-group")
    types = {"json": "application/json", "pickle": "application/x-python-serialize", "yaml": "application/x-yaml",
             "msgpack": "application/x-msgpack"}  # fmt: skip
    encoding = "utf-8" if serializer in ("json", "yaml") else "binary"
    meta = loads(saved, types[serializer], encoding, frozenset(types.values()))
    assert [child[0][0] for child in meta["result"][1]] == ["g-SUCCESS", "g-FAILURE"]
    app.backend.store.save_group("ours", saved, 60.0)
    assert celery(server, ("restore", "ours"), serializer=serializer)["restore"] == ["g-SUCCESS", "g-FAILURE"]
    app.close()
