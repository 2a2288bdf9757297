"""The modules that ported code imports from: same names as Celery's, same objects as ours."""

from __future__ import annotations

import importlib
import logging

import pytest

import celeriac
from celeriac import errors
from celeriac.events import Event, EventDispatcher, EventReceiver, group_from
from celeriac.utils.log import get_task_logger


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("celeriac.exceptions", "Ignore Reject Retry MaxRetriesExceededError SoftTimeLimitExceeded TimeoutError"),
        ("celeriac.events", "Event EventDispatcher EventReceiver group_from"),
        ("celeriac.events.dispatcher", "EventDispatcher"),
        ("celeriac.events.event", "Event group_from"),
        ("celeriac.events.receiver", "EventReceiver"),
        ("celeriac.events.snapshot", "Polaroid evcam"),
        ("celeriac.events.state", "State Task Worker"),
        ("celeriac.result", "AsyncResult EagerResult GroupResult ResultSet allow_join_result result_from_tuple"),
        ("celeriac.states", "PENDING SUCCESS FAILURE READY_STATES state precedence"),
        ("celeriac.utils", "uuid"),
        ("celeriac.utils.log", "get_task_logger get_logger"),
    ],
)
def test_what_ported_code_imports_is_there(module: str, names: str):
    found = importlib.import_module(module)
    missing = [name for name in names.split() if not hasattr(found, name)]
    assert not missing
    assert all(hasattr(found, name) for name in found.__all__)


def test_they_are_the_same_objects():
    assert importlib.import_module("celeriac.exceptions").Retry is errors.Retry
    assert importlib.import_module("celeriac.result").AsyncResult is celeriac.AsyncResult
    assert (
        importlib.import_module("celeriac.events").EventReceiver
        is importlib.import_module("celeriac.app.events").Receiver
    )
    state = importlib.import_module("celeriac.states").state
    assert state("PENDING") < state("SUCCESS")


def test_an_event_is_a_mapping():
    made = Event("task-custom", {"uuid": "a"}, uuid="b")
    assert {**made, "timestamp": 0} == {"type": "task-custom", "uuid": "b", "timestamp": 0}
    assert Event("x", timestamp=5.0)["timestamp"] == 5.0
    assert group_from("task-custom") == "task"
    assert group_from("odd") == "odd"


def test_a_receiver_that_ported_code_makes_belongs_to_the_current_app():
    app = celeriac.Celeriac("heard", broker="memory://heard")
    try:
        assert EventReceiver(None, {"*": print}).app is app
        assert EventDispatcher(None, "me@here").app is app
    finally:
        app.close()


def test_a_task_logger_hangs_below_that_of_the_tasks():
    logger = get_task_logger("proj.somewhere.tasks")
    assert logger is get_task_logger("proj.somewhere.tasks") is logging.getLogger("proj.somewhere.tasks")
    assert logger.parent is logging.getLogger("celeriac.task")
    below = get_task_logger("proj.somewhere.tasks.more")
    assert below.parent is logger


@pytest.mark.parametrize("name", ["celery", "celery.task", "celeriac.task"])
def test_reserved_logger_names_are_refused(name: str):
    with pytest.raises(RuntimeError, match="get_task_logger\\(__name__\\)"):
        get_task_logger(name)
