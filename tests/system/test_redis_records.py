"""What the script that stores results does in a real server, to records of every kind."""

from __future__ import annotations

import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest
import redis
from tests.loop_store import LoopStore

from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import BackendStoreError, ResultTooLarge
from celeriac.results.redis import RedisStore
from celeriac.settings import Settings
from celeriac.testing.conformance.results import record
from celeriac.testing.servers import RedisServer
from celeriac.wire.result_record import ResultRecord, encode_record
from celeriac.wire.stored_status import packed, stored_status

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.system
SERIALIZERS = ["json", "pickle", "msgpack", "yaml"]


@pytest.fixture(scope="module")
def server(private_redis: RedisServer) -> RedisServer:
    return private_redis


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis(port=server.port) as client:
        client.flushall()
        yield client


@pytest.fixture(params=[RedisStore, LoopStore], ids=["from a thread", "from the loop"])
def store(server: RedisServer, request: pytest.FixtureRequest) -> Iterator[RedisStore]:
    store: RedisStore = request.param(server.url(), Settings(), SYSTEM_CLOCK)
    yield store
    store.close()


def stored(status: str) -> dict[str, bytes]:
    """A record of this status in every form that somebody may have stored it in."""
    meta = {"status": status, "result": "x" * 300, "traceback": None, "children": [], "task_id": "t"}
    forms = {f"pickle {protocol}": pickle.dumps(meta, protocol) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)}
    for serializer in SERIALIZERS:
        forms[serializer] = encode_record(
            task_id="t", status=status, result="x" * 300, date_done=None, serializer=serializer
        ).payload  # fmt: skip
        forms[f"{serializer} gzip"] = packed(forms[serializer], "gzip")
    forms["kombu"] = b'{"status": "%b", "result": 3, "task_id": "t"}' % status.encode()
    forms["another order"] = b'{"result": {"status": "FAILURE"}, "status": "%b"}' % status.encode()
    return forms


@pytest.mark.parametrize("form", stored("SUCCESS"))
def test_a_success_in_any_form_stays(client: redis.Redis, store: RedisStore, form: str):
    value = stored("SUCCESS")[form]
    client.set("celery-task-meta-t", value)
    store.write([record("t", "FAILURE"), record("beside", "FAILURE")])
    assert client.get("celery-task-meta-t") == value
    assert store.read(["t", "beside"])["beside"].status == "FAILURE"
    assert store.read(["t"])["t"].status == "SUCCESS"


@pytest.mark.parametrize("status", ["FAILURE", "STARTED", "SUCCESSFUL", "A"])
@pytest.mark.parametrize("form", stored("FAILURE"))
def test_another_state_in_any_form_is_replaced(client: redis.Redis, store: RedisStore, form: str, status: str):
    client.set("celery-task-meta-t", stored(status)[form])
    store.write([record("t", "SUCCESS", 7)])
    assert client.get("celery-task-meta-t") == record("t", "SUCCESS", 7).payload


@pytest.mark.parametrize(
    "value", [b"", b"garbage", b"\x80\x04\x95", b"\x86\xa6status\xbf", b"{", b"\x00celery-compressed\x00"]
)
def test_what_is_no_record_is_replaced(client: redis.Redis, store: RedisStore, value: bytes):
    client.set("celery-task-meta-t", value)
    assert store.read(["t"])["t"].status == "FAILURE"  # whoever waits gets to know
    store.write([record("t")])
    assert store.read(["t"])["t"].payload == record("t").payload


def test_a_key_of_another_type_is_replaced(client: redis.Redis, store: RedisStore):
    client.rpush("celery-task-meta-t", "x")
    assert not store.read(["t"])
    store.write([record("t")])
    assert store.read(["t"])["t"].status == "SUCCESS"


def test_only_what_was_stored_is_published(client: redis.Redis, store: RedisStore):
    heard = client.pubsub()
    heard.psubscribe("celery-task-meta-*")
    heard.get_message(timeout=5.0)
    store.write([record("a", "STARTED"), record("a"), record("a", "FAILURE"), record("b", expires_in=1000.0)])
    store.write([record("a"), record("end")])
    told: list[Any] = []
    while not told or told[-1][0] != b"celery-task-meta-end":
        message = heard.get_message(timeout=5.0)
        assert message is not None
        told.append((message["channel"], stored_status(message["data"]).status))
    assert told == [
        (b"celery-task-meta-a", "STARTED"), (b"celery-task-meta-a", "SUCCESS"), (b"celery-task-meta-b", "SUCCESS"),
        (b"celery-task-meta-end", "SUCCESS"),
    ]  # fmt: skip
    heard.close()


def test_how_long_records_are_kept(server: RedisServer, client: redis.Redis, store: RedisStore):
    store.write([record("day", expires_in=86400.0), record("ever"), record("zero", expires_in=0.0)])
    store.write([record("day", expires_in=50.0)])
    assert 86390 < client.ttl("celery-task-meta-day") <= 86400
    assert client.ttl("celery-task-meta-ever") == client.ttl("celery-task-meta-zero") == -1
    settings = Settings(result_expires=1000, result_failure_expires=60)
    differing = RedisStore(server.url(), settings, SYSTEM_CLOCK)
    differing.write([record("failed", "FAILURE", expires_in=1000.0), record("well", expires_in=1000.0)])
    assert 50 < client.ttl("celery-task-meta-failed") <= 60
    assert 990 < client.ttl("celery-task-meta-well") <= 1000
    differing.close()


def test_a_server_that_forgot_the_script_is_told_again(client: redis.Redis, store: RedisStore):
    store.write([record("a")])
    client.script_flush()
    store.write([record("b")])
    assert len(store.read(["a", "b"])) == 2


def test_writers_do_not_overtake_a_success_of_another(server: RedisServer, client: redis.Redis):
    """Compressed records are judged by their writers, one of which is late."""
    settings = Settings(result_compression="gzip")
    kinds = (RedisStore, LoopStore, RedisStore, LoopStore)
    stores = [kind(server.url(), settings, SYSTEM_CLOCK) for kind in kinds]
    names = [f"race-{number}" for number in range(50)]
    first: dict[str, bytes] = {}

    def write(store: RedisStore, number: int) -> None:
        for name in names:
            long = "y" * 500
            for status in ("STARTED", "FAILURE", "SUCCESS") if number == 0 else ("STARTED", "RETRY"):
                store.write([encode_record(task_id=name, status=status, result=long, date_done=None)])
            if number == 0:
                value = client.get(f"celery-task-meta-{name}")
                assert isinstance(value, bytes)
                first[name] = value

    threads = [threading.Thread(target=write, args=(store, number)) for number, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert len(first) == len(names)
    for name in names:
        assert client.get(f"celery-task-meta-{name}") == first[name]
        assert stored_status(first[name]).status == "SUCCESS"
    for store in stores:
        store.close()


def test_a_full_server_is_an_error_and_reads_go_on(client: redis.Redis, store: RedisStore):
    store.write([record("before")])
    client.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(BackendStoreError, match="no room left"):
            store.write([record("refused")])
        assert set(store.read(["before", "refused"])) == {"before"}
        store.forget(["before"])
    finally:
        client.config_set("maxmemory", "0")
    store.write([record("after")])
    assert store.read(["after"])


def test_odd_names(client: redis.Redis, store: RedisStore):
    names = ["a b", "ü\n\0", "*", "x" * 5000, "{b}", "\udcff"]
    store.write([ResultRecord(name, "SUCCESS", b'{"status": "SUCCESS"}') for name in names])
    assert set(store.read(names)) == set(names)
    assert set(store.watch(names, 5.0)) == set(names)
    store.forget(names)
    assert not client.dbsize()


def test_too_large(monkeypatch: pytest.MonkeyPatch, store: RedisStore):
    monkeypatch.setattr("celeriac.redis.records.MAX_RECORD_BYTES", 100)
    with pytest.raises(ResultTooLarge, match="task big"):
        store.write([record("big", value=10**200)])


def test_groups_are_compressed_too(server: RedisServer, client: redis.Redis):
    store = RedisStore(server.url(), Settings(result_compression="gzip"), SYSTEM_CLOCK)
    payload = b'{"result": [["g", null], [%b]]}' % (b'[["id", null], null],' * 100)
    store.save_group("g", payload, 100.0)
    value = client.get("celery-taskset-meta-g")
    assert isinstance(value, bytes)
    assert value.startswith(b"\x00celery-compressed\x00")
    assert store.restore_group("g") == payload
    store.close()
