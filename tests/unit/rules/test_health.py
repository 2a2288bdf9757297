"""What makes a worker wedged, and what only keeps it from taking work."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.rules.health import Patience, Vitals, not_ready, wedged

PATIENCE = Patience(usual=30.0, start=30.0)
NOW = 1000.0


def vitals(**facts: Any) -> Vitals:
    return Vitals(**{"at": NOW, "is_connected": True, "processes": 2, **facts})


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"at": NOW - 31}, "event loop has stood still for 31 s"),
        ({"no_process_since": NOW - 61, "processes": 0}, "no process for 61 s"),
        ({"stalled": 1, "stalled_since": NOW - 31}, "1 processes have begun none of their work for 31 s"),
        ({"cut_off_since": NOW - 121, "is_connected": False}, "reach the broker has not ended for 121 s"),
        ({"unwritten_since": NOW - 121}, "write outcomes has not ended for 121 s"),
        ({"starved": 2, "waiting": 7}, "7 messages wait"),
    ],
)
def test_only_a_restart_helps(facts: dict[str, Any], reason: str):
    [found] = wedged(vitals(**facts), NOW, PATIENCE)
    assert reason in found
    assert found in not_ready(vitals(**facts), NOW, PATIENCE)


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"at": NOW - 29},
        {"no_process_since": NOW - 59, "processes": 0},
        {"stalled": 2, "stalled_since": NOW - 29},
        {"is_connected": False},  # a broker that is away
        {"cut_off_since": NOW - 119, "is_connected": False},
        {"unwritten_since": NOW - 119},
        {"starved": 1, "waiting": 7},
        {"has_queues": False},
        {"processes": None},
        {"is_stopping": True, "starved": 2, "stalled": 1, "stalled_since": NOW - 500},
    ],
)
def test_a_restart_would_not_help(facts: dict[str, Any]):
    assert wedged(vitals(**facts), NOW, PATIENCE) == []


def test_a_loop_that_stands_still_while_the_worker_stops_is_wedged():
    assert wedged(vitals(at=NOW - 31, is_stopping=True), NOW, PATIENCE)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"is_stopping": True}, "stopping"),
        ({"is_connected": False}, "no connection to the broker"),
        ({"has_queues": False, "is_connected": False}, "no queue to consume from"),
        ({"processes": 0}, "no process that takes work"),
    ],
)
def test_no_messages_are_taken(facts: dict[str, Any], reason: str):
    [found] = not_ready(vitals(**facts), NOW, PATIENCE)
    assert reason in found


def test_who_works_and_who_begins():
    assert not_ready(vitals(), NOW, PATIENCE) == not_ready(vitals(processes=None), NOW, PATIENCE) == []
    assert wedged(None, NOW, PATIENCE) == []
    assert not_ready(None, NOW, PATIENCE) == ["the worker is starting"]
