"""The app: configuration, broker and store by default, queues, moments, closing, starting."""

from __future__ import annotations

import os
import signal
import sys
import types
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac, Celery
from celeriac.errors import ImproperlyConfigured, UnknownDriver
from celeriac.transports.base import QueueSpec


def test_one_class_two_names():
    assert Celery is Celeriac


def test_keywords_are_settings():
    app = Celeriac("kw", broker="recording://", backend="disabled", include="a.b", task_track_started=True)
    assert app.conf.broker_url == "recording://"
    assert app.settings.result_backend == "disabled"
    assert list(app.settings.include) == ["a.b"]
    assert app.settings.task_track_started is True


@pytest.mark.parametrize("name", ["amqp", "events", "log", "control", "fixups"])
def test_parts_that_cannot_be_replaced(name: str):
    with pytest.raises(ImproperlyConfigured, match=f"{name}= is not supported"):
        Celeriac("x", **{name: "some.Class"})


def test_without_a_broker_the_file_of_the_app_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CELERIAC_HOME", str(tmp_path / "my home"))
    app = Celeriac("shop")
    assert app.broker_url == f"sqlite:///{tmp_path}/my%20home/shop.sqlite3"
    assert not (tmp_path / "my home").exists()


def test_the_environment_names_the_broker(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CELERY_BROKER_URL", "recording://env")
    app = Celeriac("env", broker="recording://keyword")
    assert app.broker_url == "recording://env"


def test_results_are_kept_only_where_it_is_said(app: Celeriac):
    assert app.store is None
    assert app.backend.is_disabled
    result = app.AsyncResult("x")
    for ask in (lambda: result.get(timeout=1), lambda: result.state, result.ready, result.exists, result.forget):
        with pytest.raises(NotImplementedError, match="No result backend is configured"):
            ask()
    assert Celeriac("off", broker="sqlite:///x.sqlite3", backend="disabled").store is None


@pytest.mark.parametrize("url", ["nope://", "rediss-typo://host"])
def test_unknown_brokers_are_told(url: str):
    with pytest.raises(UnknownDriver, match="does not exist"):
        _ = Celeriac("x", broker=url).transport


def test_a_broker_that_is_no_url():
    with pytest.raises(ImproperlyConfigured, match="is not a URL"):
        _ = Celeriac("x", broker="localhost").transport


def test_the_default_queue(app: Celeriac):
    assert app.queues == {
        "celery": QueueSpec(name="celery", exchange="celery", exchange_type="direct", routing_key="celery")
    }


def test_queues_in_every_form():
    class Exchange:
        name, type = "media", "topic"

    class Queue:
        name, exchange, routing_key = "video", Exchange, "video.#"

    app = Celeriac("queues", broker="recording://")
    app.conf.task_queues = {"a": {"exchange": "ex", "exchange_type": "topic", "routing_key": "a.#"}, "b": None}
    assert app.queues["a"] == QueueSpec(name="a", exchange="ex", exchange_type="topic", routing_key="a.#")
    assert app.queues["b"].routing_key == "b"
    app.conf.task_queues = ["plain", Queue(), {"name": "named", "max_priority": 5}]
    assert list(app.queues) == ["plain", "video", "named"]
    assert (app.queues["video"].exchange, app.queues["video"].exchange_type) == ("media", "topic")
    assert app.queues["named"].max_priority == 5
    for wrong in ("text", {"a": {"nonsense": 1}}, [{"exchange": "no name"}], [5]):
        app.conf.task_queues = wrong
        with pytest.raises(ImproperlyConfigured, match="task_queues"):
            _ = app.queues


def test_the_moments_of_an_app(app: Celeriac):
    seen: list[str] = []

    @app.on_configure.connect
    def configuring(sender, **_):
        seen.append(f"configure {sender.main}")

    @app.on_after_configure.connect
    def configured(sender, source, **_):
        seen.append(f"configured {source is app.conf}")

    @app.on_after_finalize.connect(weak=False)
    def finalized(sender, **_):
        seen.append("finalized")

    assert seen == []
    assert app.tasks is app.tasks
    assert seen == ["configure proj", "configured True", "finalized"]
    assert app.on_after_finalize.disconnect(finalized)
    assert not app.on_after_finalize.disconnect(finalized)


def test_receivers_are_held_weakly_unless_told_otherwise(app: Celeriac):
    seen: list[str] = []

    class Owner:
        def hear(self, **_):
            seen.append("method")

    owner = Owner()
    app.on_configure.connect(owner.hear)
    app.on_configure.connect(owner.hear)
    app.on_configure.connect(lambda **_: seen.append("gone"))
    app.on_configure.send(app)
    assert seen == ["method"]
    del owner
    app.on_configure.send(app)
    assert seen == ["method"]


def test_finalizing_by_hand(app: Celeriac):
    strict = Celeriac("strict", broker="recording://", autofinalize=False)
    with pytest.raises(RuntimeError, match="not finalized"):
        _ = strict.tasks
    strict.finalize()
    assert "nope" not in strict.tasks


def test_configuration_from_objects(monkeypatch: pytest.MonkeyPatch):
    class Config:
        task_default_queue = "from-class"

    app = Celeriac("obj", broker="recording://")
    app.config_from_object(Config)
    assert app.conf.task_default_queue == "from-class"
    other = Celeriac("other", broker="recording://", config_source={"task_default_queue": "from-dict"})
    assert other.settings.task_default_queue == "from-dict"
    app.config_from_object(other)
    assert app.settings.task_default_queue == "from-dict"
    module = types.ModuleType("my_config")
    module.task_default_queue = "from-module"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_config", module)
    monkeypatch.setenv("MY_CONFIG", "my_config")
    app.config_from_envvar("MY_CONFIG")
    assert app.settings.task_default_queue == "from-module"
    with pytest.raises(ImproperlyConfigured, match="NOT_SET"):
        app.config_from_envvar("NOT_SET")
    monkeypatch.setenv("CELERIAC_CONFIG_MODULE", "my_config")
    assert Celeriac("env", broker="recording://").settings.task_default_queue == "from-module"


def test_defaults_lose_against_everything_else():
    app = Celeriac("defaults", broker="recording://", task_default_queue="keyword")
    app.add_defaults(lambda: {"task_default_queue": "added", "task_serializer": "msgpack"})
    assert app.settings.task_default_queue == "keyword"
    assert app.settings.task_serializer == "msgpack"


def test_time(app: Celeriac):
    assert app.timezone is UTC
    assert app.uses_utc_timezone()
    assert app.now().tzinfo is UTC
    app.conf.timezone = "Europe/Berlin"
    assert str(app.timezone) == "Europe/Berlin"
    assert str(app.now().tzinfo) == "Europe/Berlin"
    assert app.either("task_default_queue", None, "mine") == "mine"
    assert app.either("task_default_queue", None) == "celery"


def test_closing(app: Celeriac):
    with app:
        app.send_task("x")
        first: Any = app.transport
    assert first.closed
    app.send_task("y")
    assert app.transport is not first


def test_taking_back_is_told_to_the_workers():
    from celeriac.transports.base import QueueSpec
    from celeriac.wire.control_message import decode_request

    app = Celeriac("taking-back", broker="memory://taking-back", set_as_current=False)
    inbox = QueueSpec(name="w1", exchange="celery.pidbox", exchange_type="fanout")
    heard = app.transport.broadcast().subscribe(inbox)
    app.AsyncResult("x").revoke()
    app.revoke(["x", "y"], terminate=True)
    app.control.terminate("z", ["w1@h"], signal.SIGKILL)
    found = [decode_request(one.envelope) for one in heard.receive(10, 1)]
    assert [request.method for request in found] == ["revoke"] * 3
    assert [request.arguments for request in found] == [
        {"task_id": "x", "terminate": False, "signal": None},
        {"task_id": ["x", "y"], "terminate": True, "signal": "SIGTERM"},
        {"task_id": "z", "terminate": True, "signal": "SIGKILL"},
    ]
    assert [request.destination for request in found] == [None, None, ["w1@h"]]
    assert [request.reply_to for request in found] == [None, None, None]
    heard.close()
    app.close()


def test_replies_of_strangers_are_not_taken():
    """Only what bears the ticket counts; what is no reply is counted and nothing else."""
    import threading
    import time

    from celeriac.transports.base import QueueSpec
    from celeriac.wire.control_message import decode_request, encode_reply
    from celeriac.wire.envelope import Envelope, Outgoing

    app = Celeriac("replies", broker="memory://replies", set_as_current=False)
    broadcast = app.transport.broadcast()
    heard = broadcast.subscribe(QueueSpec(name="w1", exchange="celery.pidbox", exchange_type="fanout"))

    def answer() -> None:
        (asked,) = heard.receive(1, 60)
        request = decode_request(asked.envelope)
        assert request.reply_to is not None
        assert request.ticket is not None
        said = [
            encode_reply("stranger", "x", ticket="other", clock=1), Envelope(b"[", {"ticket": request.ticket}, {}),
            Envelope(b"7", {"ticket": request.ticket}, {"content_type": "application/json"}),
            encode_reply("w1", {"ok": "pong"}, ticket=request.ticket, clock=50),
        ]  # fmt: skip
        broadcast.publish([Outgoing(one, request.reply_to.route) for one in said], time.monotonic() + 60)

    thread = threading.Thread(target=answer)
    thread.start()
    assert app.control.ping(timeout=60.0, limit=1) == [{"w1": {"ok": "pong"}}]
    thread.join(60)
    assert app.remote.refused == 2
    assert app.clock.value > 50
    heard.close()
    app.close()


def test_worker_main_wants_the_word_worker(app: Celeriac):
    with pytest.raises(ValueError, match="worker sub-command"):
        app.worker_main(["status"])


def test_the_process_signs_its_messages(app: Celeriac, sent: Any):
    app.send_task("x")
    assert sent.headers["origin"].startswith(f"gen{os.getpid()}@")
    assert app.oid == app.oid
