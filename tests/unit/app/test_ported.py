"""Code as it stands in Celery projects, and what it relies on: each of these once behaved differently here."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from celeriac import Celeriac, Task
from celeriac.app.registry import AppRegistry
from celeriac.errors import EncodeError, MaxRetriesExceededError
from celeriac.wire.task_message import read_body


class Report(Task[Any, Any]):
    name = "proj.Report"

    def run(self, month: str, year: int = 2000) -> tuple[str, int]:
        return month, year


def test_the_arguments_of_a_task_class_are_those_of_its_run(app: Celeriac, sent: Any):
    report = app.register_task(Report())
    report.delay("may", year=2020)
    assert sent.body.args == ["may"]
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'month'"):
        report.delay()
    with pytest.raises(TypeError, match="takes from 1 to 2 positional arguments but 3 were given"):
        report.delay("may", 2020, 3)


def test_a_bound_error_callback_is_sent_with_the_id(app: Celeriac, running: Any):
    @app.task
    def fails() -> None:
        """Nothing."""

    @app.task(bind=True)
    def bound(self: Any, *args: Any) -> None:
        raise AssertionError("it is to be sent, not called")

    message, _ = fails.prepare((), {}, {"link_error": bound.s()})
    with running(fails, message) as context:
        (outgoing,) = AppRegistry(app).errbacks(context, ValueError("boom"))
    assert read_body(outgoing.envelope, None).args == [context.id]


def test_an_error_callback_that_brings_arguments_is_judged_by_those_it_still_takes(app: Celeriac, running: Any):
    @app.task
    def fails() -> None:
        """Nothing."""

    @app.task
    def takes_id_and_more(task_id: str, customer: int) -> None:
        raise AssertionError("it is to be sent, not called")

    errbacks = [takes_id_and_more.s(5), takes_id_and_more.s(customer=6)]
    message, _ = fails.prepare((), {}, {"link_error": errbacks})
    with running(fails, message) as context:
        first, second = AppRegistry(app).errbacks(context, ValueError("boom"))
    assert read_body(first.envelope, None).args == [context.id, 5]
    assert read_body(second.envelope, None)[:2] == ([context.id], {"customer": 6})


def test_a_task_class_as_error_callback_is_sent(app: Celeriac, running: Any):
    report = app.register_task(Report())
    message, _ = report.prepare(("may",), {}, {"link_error": report.s()})
    with running(report, message) as context:
        (outgoing,) = AppRegistry(app).errbacks(context, ValueError("boom"))
    assert read_body(outgoing.envelope, None).args == [context.id]


def test_nobody_waits_for_a_result_that_is_not_stored(app: Celeriac):
    @app.task(ignore_result=True)
    def quiet() -> int:
        return 1

    @app.task
    def loud() -> int:
        return 1

    assert quiet.delay().get() is None
    ignored = loud.apply_async(ignore_result=True)
    assert (ignored.ignored, ignored.get()) == (True, None)
    assert not quiet.apply_async(ignore_result=False).ignored
    assert app.send_task("elsewhere", ignore_result=True).get() is None
    assert not loud.delay().ignored


@pytest.mark.parametrize("given", [uuid.UUID(int=7), 5])
def test_ids_that_are_no_text_become_text(app: Celeriac, sent: Any, given: Any):
    @app.task
    def noop() -> None:
        """Nothing."""

    assert noop.apply_async(task_id=given).id == str(given)
    assert sent.headers["id"] == str(given)


def test_wrong_use_is_told_with_the_name_of_the_task(app: Celeriac):
    @app.task(name="proj.add")
    def add(x: Any, y: Any = 1) -> Any:
        return x

    with pytest.raises(TypeError, match=r"args of proj\.add must be a list or tuple of arguments, such as \(1,\)"):
        add.apply_async(1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"proj\.add.* must be a mapping"):
        add.apply_async((1,), ["y"])  # type: ignore[arg-type]
    with pytest.raises(EncodeError, match=r"The arguments of task 'proj\.add' cannot be sent.*builtins\.object"):
        add.delay(object())
    with pytest.raises(TypeError, match="takes the name of a task, not 5"):
        app.send_task(5)  # type: ignore[arg-type]


def test_what_is_left_after_the_last_retry_reads_as_celerys_text(app: Celeriac, running: Any):
    @app.task(name="proj.never", bind=True, max_retries=0)
    def never(self: Any, x: int) -> None:
        raise self.retry()

    message, _ = never.prepare((1,), {}, {"task_id": "t1"})
    with running(never, message), pytest.raises(MaxRetriesExceededError) as caught:
        never.retry()
    assert str(caught.value) == "Can't retry proj.never[t1] args:(1,) kwargs:{}"


class Exchange:
    """As kombu's."""

    def __init__(self, name: str, type: str = "direct") -> None:
        self.name = name
        self.type = type


class Queue:
    """As kombu's: what is not given is ``None``."""

    def __init__(self, name: str, exchange: Exchange | None = None, routing_key: str = "", **more: Any) -> None:
        self.name = name
        self.exchange = exchange or Exchange("")
        self.routing_key = routing_key
        self.durable, self.auto_delete, self.exclusive = True, False, False
        self.expires = self.message_ttl = self.max_length = self.max_priority = None
        self.queue_arguments = self.binding_arguments = None
        vars(self).update(more)


def test_queues_of_kombus_kind_keep_all_they_say():
    given = Queue(
        "hi", Exchange("e", "topic"), "a.#", max_priority=9, message_ttl=60.0, auto_delete=True, durable=False,
        queue_arguments={"x-overflow": "reject-publish"},
    )  # fmt: skip
    app = Celeriac("q", broker="recording://", task_queues=(Queue("celery"), given))
    plain, rich = app.queues["celery"], app.queues["hi"]
    assert (plain.durable, plain.arguments, plain.routing_key) == (True, {}, "celery")
    assert (rich.exchange, rich.exchange_type, rich.routing_key) == ("e", "topic", "a.#")
    assert (rich.max_priority, rich.message_ttl, rich.auto_delete, rich.durable) == (9, 60.0, True, False)
    assert rich.arguments == {"x-overflow": "reject-publish"}
