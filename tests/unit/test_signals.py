"""Signals: who is connected is told, in order, and its failure is nobody else's."""

from __future__ import annotations

import gc
import logging
from typing import TYPE_CHECKING, Any

import pytest

from celeriac import Celeriac, signals
from celeriac.signals import Signal

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def moment() -> Signal:
    return Signal("moment", frozenset({"fact"}))


def test_receivers_get_the_facts(moment: Signal) -> None:
    heard: list[Any] = []

    @moment.connect
    def first(sender: Any, fact: int, **kwargs: Any) -> str:
        heard.append((sender, fact, set(kwargs)))
        return "answer"

    @moment.connect(sender="wanted", dispatch_uid="x")
    def second(**kwargs: Any) -> None:
        heard.append(kwargs["fact"])

    assert moment.send(sender="other", fact=1) == [(first, "answer")]
    assert moment.send("wan" + "ted", fact=2) == [(first, "answer"), (second, None)]
    assert heard == [("other", 1, {"signal"}), ("wanted", 2, {"signal"}), 2]
    assert moment.has_listeners("other")
    assert moment.disconnect(first)
    assert not moment.disconnect(first)
    assert not moment.has_listeners("other")
    assert moment.disconnect(sender="wanted", dispatch_uid="x")
    assert not moment.receivers


def test_a_receiver_that_fails_stops_nobody(moment: Signal, caplog: pytest.LogCaptureFixture) -> None:
    def bad(**kwargs: Any) -> None:
        raise ValueError("mine")

    def good(**kwargs: Any) -> int:
        return 1

    moment.connect(bad)
    moment.connect(good)
    with caplog.at_level(logging.ERROR):
        (_, failure), (_, answer) = moment.send(sender=None)
    assert isinstance(failure, ValueError)
    assert answer == 1
    assert "bad" in caplog.text


def test_connecting_twice_is_connecting_once_and_the_gone_are_forgotten(moment: Signal) -> None:
    class Owner:
        def receive(self, **kwargs: Any) -> None: ...

    owner = Owner()
    moment.connect(owner.receive)
    moment.connect(owner.receive)
    assert len(moment.receivers) == 1
    moment.connect(lambda **kwargs: None)  # nobody else holds it
    del owner
    gc.collect()
    assert moment.send(sender=None) == []
    assert not moment.receivers
    moment.connect(lambda **kwargs: 5, weak=False)
    assert [answer for _, answer in moment.send(sender=None)] == [5]


def test_what_cannot_receive_is_refused(moment: Signal) -> None:
    with pytest.raises(ValueError, match=r"must take \*\*kwargs"):
        moment.connect(lambda sender: None)
    refused: Any = 5
    with pytest.raises(TypeError, match="must be callable"):
        moment.connect(refused)


@pytest.fixture
def app() -> Iterator[Celeriac]:
    app = Celeriac("signalled", broker="memory://signals", backend="memory://signals")
    yield app
    app.close()


def test_publishing_is_told_before_and_after(app: Celeriac) -> None:
    @app.task(name="signalled.add")
    def add(x: int, y: int) -> int:
        return x + y

    told: list[Any] = []

    def before(sender: Any, body: Any, headers: Any, properties: Any, routing_key: str, **kwargs: Any) -> None:
        told.append(("before", sender, body[0], routing_key))
        headers["trace"] = "abc"
        properties["priority"] = 7
        if len(body[0]) == 1:
            body[1]["y"] = 40

    def after(sender: Any, body: Any, headers: Any, **kwargs: Any) -> None:
        told.append(("after", sender, body[1], headers.get("trace")))

    signals.before_task_publish.connect(before, sender="signalled.add")
    signals.after_task_publish.connect(after)
    try:
        add.apply_async((2,), {"y": 3})
        app.send_task("signalled.other", (1,))
        add.delay_many([(1, 1)])
    finally:
        assert signals.before_task_publish.disconnect(before, sender="signalled.add")
        assert signals.after_task_publish.disconnect(after)
    assert told[:2] == [("before", "signalled.add", (2,), "celery"), ("after", "signalled.add", {"y": 40}, "abc")]
    assert [entry[:2] for entry in told[2:]] == [
        ("after", "signalled.other"), ("before", "signalled.add"), ("after", "signalled.add")
    ]  # fmt: skip
    assert app.transport.admin().depth("celery") == 3
