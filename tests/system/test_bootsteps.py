"""An app's own steps, options and loader in a real worker."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.conftest import House

pytestmark = pytest.mark.system

STEPS = """
import click
from celeriac import bootsteps

app.user_options["worker"].add(click.Option(["--flavour"], default="plain"))
app.user_options["preload"].add(click.Option(["--tenant"], default="nobody"))

from celeriac import signals
@signals.user_preload_options.connect
def preloaded(options, sender, **_):
    note("preload", sender, options["tenant"])

class Base(bootsteps.StartStopStep):
    requires = {"celery.worker.components:Pool"}
    def __init__(self, parent, flavour="none", **options):
        note("step", "init", type(self).__name__, flavour, parent.hostname, parent.app is app)
    def create(self, parent):
        note("step", "create", type(self).__name__)
    def start(self, parent):
        note("step", "start", type(self).__name__, parent.pool.num_processes)
        parent.timer.call_repeatedly(0.05, self.beat, (parent,), priority=10)
    def beat(self, parent):
        note("beat", type(self).__name__)
    def stop(self, parent):
        note("step", "stop", type(self).__name__)
    def terminate(self, parent):
        note("step", "terminate", type(self).__name__)

class After(Base):
    requires = (Base,)
    def start(self, parent):
        note("step", "start", "After")

class Off(bootsteps.StartStopStep):
    enabled = False
    def start(self, parent):
        note("step", "start", "Off")

app.steps["worker"].update({After, Base, Off})

class Letters(bootsteps.ConsumerStep):
    def get_consumers(self, channel):
        self.seen = 0
        return [bootsteps.Consumer(channel, queues=["letters"], callbacks=[self.read], accept=["json"])]
    def read(self, body, message):
        note("letter", body["n"], message.delivery_info["queue"], message.headers.get("kind"))
        if body["n"] == 3:
            raise RuntimeError("no threes")
        if body["n"] == 4 and not message.delivery_info["redelivered"]:
            message.requeue()
        else:
            message.ack()

class Restless(bootsteps.StartStopStep):
    requires = ("celeriac.worker.consumer:Connection",)
    def start(self, c):
        note("step", "start", "Restless", c.restart_count, c.connection.as_uri().partition(":")[0])
        c.event_dispatcher.send("worker-custom", n=1)
    def stop(self, c):
        note("step", "stop", "Restless")
    def shutdown(self, c):
        note("step", "shutdown", "Restless")

app.steps["consumer"].update({Letters, Restless})
"""

LETTERS = """
import json
from celeriac.transports.base import Envelope, Outgoing, QueueSpec, Route
transport = app.transport
admin = transport.admin()
admin.declare([app.router.queue("letters")])
properties = {"content_type": "application/json", "content_encoding": "utf-8"}
batch = [
    Outgoing(Envelope(json.dumps({"n": n}).encode(), {"kind": "post"}, properties), Route("", "letters"))
    for n in range(1, 6)
]
batch.append(Outgoing(Envelope(b"no json", {}, properties), Route("", "letters")))
transport.publisher().publish(batch, time.monotonic() + 10)
"""


@pytest.fixture
def rich(house: House) -> House:
    path = house.folder / "house.py"
    path.write_text(path.read_text() + STEPS)
    return house


def steps(house: House) -> list[str]:
    return [" ".join(words[1:]) for words in house.notes("step")]


def test_steps_start_in_order_and_stop_in_reverse(rich: House) -> None:
    worker = rich.worker("-c", "2", "--flavour", "vanilla", "--tenant", "acme")
    rich.until(lambda: "start Restless 0 sqlite" in steps(rich) and len(rich.notes("beat")) > 2)
    assert rich.python("print(add.delay(1, 2).get(timeout=60))").strip() == "3"
    assert worker.stop() == 0
    assert rich.notes("preload")[0] == ["preload", "worker", "acme"]
    told = steps(rich)
    host = worker.lines[0].split()[0]
    assert told == [
        f"init Base vanilla {host} True", "create Base", f"init After vanilla {host} True", "create After",
        "start Base 2", "start After", "start Restless 0 sqlite", "stop Restless", "shutdown Restless", "stop After",
        "stop Base",
    ]  # fmt: skip


def test_a_consumer_step_receives_what_is_no_task(rich: House) -> None:
    rich.python(LETTERS)
    worker = rich.worker("-c", "1")
    rich.until(lambda: len(rich.notes("letter")) >= 6)
    rich.until(lambda: rich.waiting() == 0, what="all are settled")
    seen = sorted(words[1] for words in rich.notes("letter"))
    assert seen == ["1", "2", "3", "4", "4", "5"], "the one that was given back came again"
    assert {(words[2], words[3]) for words in rich.notes("letter")} == {("letters", "post")}
    assert worker.stop() == 0
    dead = rich.celeriac("-A", "house", "dead", "list")
    assert "no threes" in dead.stdout
    buried = rich.query("select count(*) from buried")
    assert buried == [(2,)]


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_a_consumer_step_receives_from_every_broker(rich: House, kind: str, request: pytest.FixtureRequest) -> None:
    if kind == "redis":
        rich.extra["HOUSE_BROKER"] = request.getfixturevalue("private_redis").url(0)
    else:
        server = request.getfixturevalue("rabbit_server")
        server.add_vhost("steps")
        rich.extra["HOUSE_BROKER"] = server.url("steps")
    rich.python(LETTERS)
    worker = rich.worker("-c", "1")
    rich.until(lambda: len(rich.notes("letter")) >= 6)
    assert worker.stop() == 0
    assert {int(words[1]) for words in rich.notes("letter")} == {1, 2, 3, 4, 5}
    before = len(rich.notes("letter"))
    rich.python(LETTERS.replace("range(1, 6)", "range(7, 8)").replace("batch.append(", "("))
    worker = rich.worker("-c", "1")
    rich.until(lambda: len(rich.notes("letter")) > before)
    assert worker.stop() == 0
    assert [words[1] for words in rich.notes("letter")[before:]] == ["7"], "what was settled does not come again"


def test_a_cold_stop_terminates_steps(rich: House) -> None:
    worker = rich.worker("-c", "1")
    rich.python("mark.delay(1, seconds=120)")
    rich.until(lambda: rich.notes("start"))
    assert worker.stop(signal.SIGQUIT) == 1
    assert "terminate Base" in steps(rich)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("class Bad(bootsteps.Step):\n    requires = ('celery.worker.autoscale:Nothing',)\n", "requires celery.worker"),
        ("class Bad(bootsteps.Step):\n    def create(self, p): p.hub.poller\n", "has no attribute 'hub'"),
        ("class Bad(bootsteps.StartStopStep):\n    def start(self, p): 1 / 0\n", "ZeroDivisionError"),
    ],
)
def test_what_cannot_work_ends_the_worker_with_a_reason(house: House, more: str, words: str) -> None:
    path = house.folder / "house.py"
    path.write_text(path.read_text() + f"\nfrom celeriac import bootsteps\n\n{more}\napp.steps['worker'].add(Bad)\n")
    done = house.celeriac("-A", "house", "worker", "-c", "1")
    assert done.returncode == 2
    assert words in done.stderr


def test_a_channel_says_what_it_cannot_do(house: House) -> None:
    path = house.folder / "house.py"
    path.write_text(
        path.read_text()
        + """
from celeriac import bootsteps
class Bad(bootsteps.ConsumerStep):
    def get_consumers(self, channel):
        channel.basic_qos(0, 1, False)
app.steps['consumer'].add(Bad)
"""
    )
    done = house.celeriac("-A", "house", "worker", "-c", "1")
    assert done.returncode == 2
    assert "receive with celeriac.bootsteps.Consumer" in done.stderr


def test_a_loader_reads_settings_and_is_told_of_the_workers_moments(house: House) -> None:
    path = house.folder / "house.py"
    path.write_text(
        path.read_text()
        + """
from celeriac.loaders.base import BaseLoader
class Mine(BaseLoader):
    def read_configuration(self, env="X"):
        return {"task_default_queue": "mine"}
    def on_worker_init(self):
        note("loader", "worker_init")
    def on_worker_process_init(self):
        note("loader", "process_init")
    def on_worker_shutdown(self):
        note("loader", "shutdown")
    def on_task_init(self, task_id, task):
        note("loader", "task", task.name)
    def on_process_cleanup(self):
        note("loader", "cleanup")
"""
    )
    house.extra["CELERIAC_LOADER"] = "house:Mine"
    worker = house.worker("-c", "1")
    worker.wait_for("key=mine")
    assert house.python("print(add.delay(1, 2).get(timeout=60))").strip() == "3"
    assert worker.stop() == 0
    told = [" ".join(words[1:]) for words in house.notes("loader")]
    assert told == ["worker_init", "process_init", "task house.add", "cleanup", "shutdown"]
