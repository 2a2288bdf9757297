"""``self.request``: names and defaults of Celery."""

from __future__ import annotations

import pytest

from celeriac.executors.context import Context
from celeriac.testing.conformance.executor import request_for
from celeriac.wire.task_message import TaskBody


def context_of(**fields: object) -> Context:
    request = request_for("task", 1, id="T", **fields)
    return Context.from_request(request, TaskBody([1], {"k": 2}, None, None, None, None), "w@h")


def test_a_bare_context_has_celerys_defaults() -> None:
    context = Context()
    assert context.called_directly is True
    assert (context.id, context.args, context.retries, context.headers, context.timelimit) == (
        None,
        None,
        0,
        None,
        None,
    )
    assert (context.is_eager, context.ignore_result, context.delivery_info, context.children) == (False, False, {}, [])
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = context.nonsense  # type: ignore[attr-defined]
    assert context.get("nonsense", 7) == 7


def test_values_come_from_the_message() -> None:
    context = context_of(
        retries=2, root_id="R", parent_id="P", group_id="G", headers={"tenant": "t"}, reply_to="q", hard_limit=9.0,
        time_limit=30, soft_time_limit=20, shadow="other", priority=4,
    )  # fmt: skip
    assert (context.retries, context.root_id, context.parent_id, context.group) == (2, "R", "P", "G")
    assert (context.shadow, context.reply_to, context.correlation_id) == ("other", "q", "T")
    assert context.headers == {"tenant": "t"}
    assert context.tenant == "t"  # type: ignore[attr-defined]
    assert context.get("_request_") is None
    assert context.timelimit == [30, 20]
    assert (context.time_limit, context.soft_time_limit) == (9.0, None)
    assert context.delivery_info == {"exchange": "", "routing_key": "celery", "priority": 4, "redelivered": False}
    assert context.called_directly is False


def test_computed_values_are_kept_and_may_be_set() -> None:
    context = context_of()
    context.children.append("child")
    assert context.children == ["child"]
    context.retries = 5
    context.update(args=(9,), own="value")
    assert (context.retries, context.args, context.get("own")) == (5, (9,), "value")
    context.clear()
    assert context.args is None


def test_execution_options_send_the_attempt_again() -> None:
    options = context_of(retries=1, group_id="G", headers={"h": 1}, time_limit=30).as_execution_options()
    assert options["task_id"] == "T"
    assert options["group_id"] == "G"
    assert (options["time_limit"], options["soft_time_limit"]) == (30, None)
    assert options["headers"] == {"h": 1}


def test_stamps_are_no_custom_headers() -> None:
    context = context_of(stamped_headers=["s"], stamps={"s": "v"}, headers={"h": 1})
    assert context.headers == {"h": 1}
    assert context.as_execution_options()["s"] == "v"
