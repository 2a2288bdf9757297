"""Workers on RabbitMQ: what runs, and what happens when workers, connections, queues and the broker itself go away.

Results are kept in the embedded file, so that only the broker is under test.
"""

from __future__ import annotations

import signal
import time
import urllib.error
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.conftest import House

    from celeriac.testing.servers import RabbitServer

pytestmark = pytest.mark.system

_numbers = count(1)


@pytest.fixture
def server(rabbit_server: RabbitServer) -> RabbitServer:
    return rabbit_server


class Warren:
    """A virtual host of the server, and the house whose workers consume from it."""

    def __init__(self, server: RabbitServer, house: House, vhost: str) -> None:
        self.server = server
        self.house = house
        self.vhost = vhost
        self.url = server.add_vhost(vhost)
        house.extra["HOUSE_BROKER"] = self.url
        house.extra["HOUSE_RESULTS"] = f"sqlite:///{house.file}"

    def send(self, code: str) -> list[str]:
        """Ids of the results that ``code``, a list of them, evaluates to."""
        return self.house.python(f"print(*[result.id for result in {code}])").split()

    def succeeded(self, ids: list[str], timeout: float = 30.0) -> None:
        def all_of_them() -> bool:
            states = self.house.states()
            return all(states.get(one) == "SUCCESS" for one in ids)

        self.house.until(all_of_them, timeout, "every task has succeeded")

    def depth(self, queue: str = "celery") -> int:
        from celeriac.amqp.blocking import BlockingConnection
        from celeriac.amqp.parameters import parameters_of
        from celeriac.transports.url import BrokerUrl

        deadline = time.monotonic() + 10
        with closing(_Closing(BlockingConnection.open(parameters_of(BrokerUrl.parse(self.url)), deadline))) as opened:
            found = opened.connection.channel(deadline).declare_queue(queue, passive=True, deadline=deadline)
            return int(found.messages)

    def holds(self, count: int) -> bool:
        """Whether the queue comes to hold ``count`` messages: RabbitMQ answers for a queue before it has stored what
        lies in the queue's mailbox."""
        self.house.until(lambda: self.depth() >= count, what=f"the queue holds {count:,} messages")
        return self.depth() == count

    def queues(self) -> dict[str, Any]:
        return {queue["name"]: queue for queue in self.server.api("GET", f"/queues/{self.vhost}")}


class _Closing:
    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def close(self) -> None:
        self.connection.close(time.monotonic() + 5)


@pytest.fixture
def warren(server: RabbitServer, house: House) -> Iterator[Warren]:
    vhost = f"system-{next(_numbers)}"
    yield Warren(server, house, vhost)
    house.end()
    server.remove_vhost(vhost)


def test_tasks_run_with_their_retries_delays_and_times(warren: Warren) -> None:
    house = warren.house
    worker = house.worker("-c", "2")
    plain = warren.send("[add.delay(n, n) for n in range(50)]")
    retried = warren.send("[flaky.delay(2), flaky.delay(1, countdown=2)]")
    began = time.time()
    later = warren.send("[mark.apply_async((1,), countdown=4), mark.apply_async((2,), countdown=0.5)]")
    warren.succeeded(plain + retried + later)
    starts = {words[1]: float(words[3]) for words in house.notes("start")}
    assert starts[later[0]] - began >= 4, "not before its time"
    assert starts[later[1]] - began >= 0.5
    assert warren.depth() == 0
    # the delay of four seconds was the broker's, that of half a second the worker's
    assert "celery_delayed_27" in warren.queues()
    assert worker.stop() == 0


def test_a_process_that_sends_without_confirms_and_ends_has_sent_everything(warren: Warren) -> None:
    """RabbitMQ drops what it has read and not yet queued when a connection breaks off: good-bye has to be said."""
    unconfirmed = 'app.conf.broker_transport_options = {"confirm_publish": False}\n'
    warren.house.python(f"{unconfirmed}add.delay_many((n, n) for n in range(5_000))")
    assert warren.holds(5_000)


def test_work_of_a_killed_worker_runs_elsewhere(warren: Warren) -> None:
    house = warren.house
    first = house.worker("-c", "2")
    ids = warren.send("[mark.delay(n, seconds=1.0) for n in range(8)]")
    house.until(lambda: len(house.notes("start")) >= 2, what="two tasks run")
    first.kill()
    house.worker("-c", "4")
    warren.succeeded(ids)
    house.until(lambda: warren.depth() == 0)


def test_a_stopped_worker_gives_back_what_it_has_not_started(warren: Warren) -> None:
    house = warren.house
    worker = house.worker("-c", "1")
    ids = warren.send("[mark.delay(n, seconds=0.5) for n in range(20)]")
    house.until(lambda: house.notes("start"), what="a task runs")
    assert worker.stop() == 0
    done = len(house.notes("end"))
    assert done == len(house.notes("start")), "what was started was finished"
    assert warren.holds(len(ids) - done)


def test_a_task_that_always_kills_its_process_is_set_aside(warren: Warren) -> None:
    house = warren.house
    worker = house.worker("-c", "2")
    task, *others = warren.send("[die.delay(), *[add.delay(n, n) for n in range(20)]]")
    house.until(lambda: house.states().get(task) == "FAILURE", 40)
    warren.succeeded(others)
    assert len(house.notes("start")) == 3
    assert worker.process.poll() is None
    house.until(lambda: warren.depth("celery.dead") == 1)
    assert warren.depth() == 0


PRODUCER = """
from celeriac.errors import OperationalError
n = 0
while True:
    n += 1
    try:
        result = mark.delay(n)
    except OperationalError:
        time.sleep(0.02)
        continue
    note("ok", result.id)
    time.sleep(0.003)
"""


def test_nothing_accepted_is_lost_when_the_broker_is_killed(warren: Warren) -> None:
    house, server = warren.house, warren.server
    worker = house.worker("-c", "2")
    client = house.start("-c", "from house import *\n" + PRODUCER)
    for _ in range(2):
        before = len(house.notes("ok"))
        house.until(lambda before=before: len(house.notes("ok")) > before + 100, 60, "the producer publishes")
        server.kill()
        server.start()
    before = len(house.notes("ok"))
    house.until(lambda: len(house.notes("ok")) > before + 100, 60, "the producer publishes again")
    client.kill()
    accepted = {words[1] for words in house.notes("ok")}
    house.until(lambda: accepted <= {one for one, state in house.states().items() if state == "SUCCESS"}, 60)
    assert worker.process.poll() is None, worker.log
    assert worker.stop() == 0


def test_connections_that_an_operator_closes_are_opened_again(warren: Warren) -> None:
    house = warren.house
    worker = house.worker("-c", "2")
    running = warren.send("[mark.delay(0, seconds=4.0)]")
    house.until(lambda: house.notes("start"), what="a task runs")
    house.until(lambda: warren.server.close_connections() > 0, what="the management pages know the connection")
    ids = warren.send("[add.delay(n, n) for n in range(20)]")
    warren.succeeded(ids + running)
    assert len(house.notes("start")) == 1, "the running task was adopted, not started a second time"
    house.until(lambda: warren.depth() == 0)
    assert worker.stop() == 0


def test_a_queue_deleted_under_the_worker_is_declared_again(warren: Warren) -> None:
    house = warren.house
    worker = house.worker("-c", "2", "-Q", "celery,other")
    warren.succeeded(warren.send("[add.delay(1, 1), add.apply_async((1, 1), queue='other')]"))
    for _ in range(2):
        warren.server.api("DELETE", f"/queues/{warren.vhost}/celery")
        worker.wait_for("queue 'celery' is consumed again")
        worker.lines.clear()
    ids = warren.send("[add.delay(n, n) for n in range(10)] + [add.apply_async((1, 1), queue='other')]")
    warren.succeeded(ids)
    assert worker.stop() == 0


def test_a_permission_taken_away_stops_nothing_else(warren: Warren) -> None:
    house, server = warren.house, warren.server
    server.api("PUT", f"/users/{warren.vhost}", {"password": "secret", "tags": ""})
    rights = {"configure": ".*", "write": ".*", "read": ".*"}
    server.api("PUT", f"/permissions/{warren.vhost}/{warren.vhost}", rights)
    house.extra["HOUSE_BROKER"] = server.url(warren.vhost, warren.vhost, "secret")
    # its own queue is there, and the user may not read it
    server.api("PUT", f"/queues/{warren.vhost}/forbidden", {"durable": True})
    server.api("PUT", f"/permissions/{warren.vhost}/{warren.vhost}", {**rights, "read": "^celery.*"})
    worker = house.worker("-c", "2", "-Q", "celery,forbidden")
    warren.succeeded(warren.send("[add.delay(n, n) for n in range(5)]"))
    house.until(lambda: "'forbidden' cannot be consumed" in worker.log)
    server.api("PUT", f"/permissions/{warren.vhost}/{warren.vhost}", rights)
    warren.succeeded(warren.send("[add.apply_async((1, 1), queue='forbidden')]"), 40)
    assert worker.stop() == 0


def test_a_queue_declared_otherwise_is_used_as_it_is(warren: Warren) -> None:
    house = warren.house
    warren.server.api(
        "PUT", f"/queues/{warren.vhost}/celery", {"durable": True, "arguments": {"x-max-priority": 7}}
    )  # fmt: skip
    worker = house.worker("-c", "1")
    line = worker.wait_for("exists with other properties")
    assert "'celery'" in line
    assert "x-max-priority" in line
    warren.succeeded(warren.send("[add.delay(1, 1)]"))
    assert worker.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda warren: warren.server.url(warren.vhost, password="mistaken"), ["user", "password", "**"]),
        (lambda warren: warren.server.url("nowhere"), ["virtual host", "'nowhere'"]),
        (lambda warren: warren.url.replace("amqp://", "amqps://"), ["TLS", "scheme"]),
    ],
    ids=["password", "vhost", "tls"],
)
def test_wrong_settings_are_told_in_one_error(warren: Warren, spoil: Any, words: list[str]) -> None:
    warren.house.extra["HOUSE_BROKER"] = spoil(warren)
    worker = warren.house.worker("-c", "1", wait=0)
    assert worker.process.wait(60) not in (0, None)
    worker.wait_for("<end of output>")
    assert "Traceback" not in worker.log
    told = [line for line in worker.lines if "broker_url" in line]
    assert len(told) == 1, worker.log
    for word in words:
        assert word in told[0]
    assert "guest:guest" not in worker.log
    assert "mistaken" not in worker.log


def test_a_closed_port_is_tried_again(warren: Warren) -> None:
    warren.house.extra["HOUSE_BROKER"] = "amqp://guest:secret@127.0.0.1:1//"
    worker = warren.house.worker("-c", "1", wait=0)
    line = worker.wait_for("broker lost")
    assert "broker_url amqp://guest:**@127.0.0.1:1//" in line
    assert "refused" in line
    assert worker.stop() == 2
    with pytest.raises(urllib.error.HTTPError):
        warren.server.api("GET", "/queues/nowhere")
