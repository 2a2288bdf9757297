"""Results as messages: they reach the process that asked, once, whatever it does meanwhile."""

from __future__ import annotations

import os
import threading
import time
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import ImproperlyConfigured
from celeriac.results.rpc import RpcStore
from celeriac.results.waiting import Waiter
from celeriac.transports.base import Route
from celeriac.wire.result_record import ResultRecord, encode_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_numbers = count(1)


class Settings:
    broker_write_url = None
    broker_publish_timeout = 5.0
    broker_max_message_bytes = 1 << 20
    broker_lease = 30.0
    task_dead_letter_expires = 86400.0
    result_persistent = None
    result_expires = 3600

    def __init__(self, broker_url: str | None) -> None:
        self.broker_url = broker_url


@pytest.fixture
def open_store() -> Iterator[Callable[[], RpcStore]]:
    settings = Settings(f"memory://rpc-{next(_numbers)}")
    stores: list[RpcStore] = []

    def make() -> RpcStore:
        stores.append(RpcStore("rpc://", settings, SYSTEM_CLOCK))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def record(task_id: str, address: str | None, status: str = "SUCCESS", serializer: str = "json") -> ResultRecord:
    return encode_record(
        task_id=task_id, status=status, result=ValueError("no") if status == "FAILURE" else 3, date_done=None,
        serializer=serializer, reply_to=address,
    )  # fmt: skip


def test_results_come_back_to_who_asked(open_store: Callable[[], RpcStore]) -> None:
    one, other, worker = open_store(), open_store(), open_store()
    worker.write([record("a", one.reply_address()), record("b", other.reply_address()), record("c", None)])
    assert set(one.read(["a", "b", "c"])) == {"a"}
    assert set(other.read(["a", "b", "c"])) == {"b"}
    assert one.read(["a"])["a"].payload == record("a", None).payload


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml", "pickle"])
def test_a_wait_ends_with_the_last_state(open_store: Callable[[], RpcStore], serializer: str) -> None:
    client, worker = open_store(), open_store()
    address = client.reply_address()
    worker.write([record("t", address, "STARTED", serializer)])
    assert client.watch(["t"], 0.0) == {}
    assert client.read(["t"])["t"].status == "STARTED"
    waiting = threading.Thread(target=lambda: found.update(client.watch(["t"], 10.0)))
    found: dict[str, ResultRecord] = {}
    waiting.start()
    worker.write([record("t", address, "FAILURE", serializer)])
    waiting.join(60.0)
    assert found["t"].status == "FAILURE"


def test_one_listener_serves_all_threads(open_store: Callable[[], RpcStore]) -> None:
    client, worker = open_store(), open_store()
    address, waiter = client.reply_address(), Waiter(client, SYSTEM_CLOCK)
    ids = [f"t{number}" for number in range(40)]
    found: list[Any] = []
    threads = [threading.Thread(target=lambda one=one: found.append(waiter.wait([one], 10.0))) for one in ids]
    for thread in threads:
        thread.start()
    for one in reversed(ids):
        worker.write([record(one, address)])
    for thread in threads:
        thread.join(60.0)
    assert sorted(key for each in found for key in each) == sorted(ids)


def test_a_late_unready_state_does_not_undo_the_end(open_store: Callable[[], RpcStore]) -> None:
    client, worker = open_store(), open_store()
    address = client.reply_address()
    worker.write([record("t", address), record("t", address, "STARTED")])
    assert client.read(["t"])["t"].status == "SUCCESS"


def test_messages_that_are_no_results_are_passed_over(open_store: Callable[[], RpcStore]) -> None:
    client, worker = open_store(), open_store()
    good = worker._message(record("t", client.reply_address()))
    bad = worker._message(record("x", client.reply_address()))
    bad.envelope.properties["correlation_id"] = {"not": "an id"}
    worker._channel().publish([bad, good], time.monotonic() + 5)
    assert bad.route == Route("", client.reply_address())
    assert set(client.read(["t", "x"])) == {"t"}


def test_a_forked_process_listens_for_itself(open_store: Callable[[], RpcStore]) -> None:
    client = open_store()
    address = client.reply_address()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, client.reply_address().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100).decode() not in ("", address)
    assert client.reply_address() == address
    os.close(read)
    os.close(write)


def test_interrupting_ends_a_wait(open_store: Callable[[], RpcStore]) -> None:
    client = open_store()
    client.reply_address()
    done = threading.Event()
    waiting = threading.Thread(target=lambda: (client.watch(["never"], 30.0), done.set()))
    waiting.start()
    ends = time.monotonic() + 10
    while not done.wait(0.01) and time.monotonic() < ends:
        client.interrupt()
    assert done.is_set()


def test_there_must_be_a_broker_to_send_through() -> None:
    with pytest.raises(ImproperlyConfigured, match="broker_url is not set"):
        RpcStore("rpc://", Settings(None), SYSTEM_CLOCK)
