"""Words of the command line become arguments of commands; answers become lines."""

from __future__ import annotations

from typing import Any

import click
import pytest

from celeriac.cli.events import line_of
from celeriac.cli.remote import arguments_of, pretty
from celeriac.cli.status import duration
from celeriac.worker.commands.panel import PANEL, Entry, control_command, inspect_command

#: Celery 5.7's, with those it hides
INSPECT = {
    "active", "active_queues", "clock", "conf", "hello", "memdump", "memsample", "objgraph", "ping", "query_task",
    "registered", "report", "reserved", "revoked", "scheduled", "stats", "dump_active", "dump_conf", "dump_reserved",
    "dump_revoked", "dump_schedule", "dump_tasks",
}  # fmt: skip
CONTROL = {
    "add_consumer", "autoscale", "cancel_consumer", "disable_events", "election", "enable_events", "heartbeat",
    "pool_grow", "pool_restart", "pool_shrink", "rate_limit", "revoke", "revoke_by_stamped_headers", "shutdown",
    "terminate", "time_limit",
}  # fmt: skip


def entry(name: str) -> Entry:
    found = PANEL.find(name)
    assert found is not None
    return found


OURS = {"unrevoke", "unrevoke_by_stamped_headers", "limit", "reset_limit"}


def test_every_command_of_celery_is_there() -> None:
    assert {name: entry(name).kind for name in INSPECT} == dict.fromkeys(INSPECT, "inspect")
    assert {name: entry(name).kind for name in CONTROL} == dict.fromkeys(CONTROL, "control")
    assert {shown.name for shown in PANEL.visible("control")} == CONTROL | OURS
    assert "hello" not in {shown.name for shown in PANEL.visible("inspect")}
    assert all(shown.help for kind in ("inspect", "control") for shown in PANEL.visible(kind))


@pytest.mark.parametrize(
    ("name", "words", "arguments"),
    [
        ("ping", [], {}),
        ("revoke", ["a", "b"], {"task_id": ["a", "b"]}),
        ("terminate", ["SIGKILL", "a"], {"signal": "SIGKILL", "task_id": ["a"]}),
        ("rate_limit", ["t", "10/m"], {"task_name": "t", "rate_limit": "10/m"}),
        ("time_limit", ["t", "1", "2.5"], {"task_name": "t", "soft": 1.0, "hard": 2.5}),
        ("time_limit", ["t", "1"], {"task_name": "t", "soft": 1.0}),
        ("pool_grow", [], {}),
        ("pool_grow", ["3"], {"n": 3}),
        ("pool_grow", ["3", "asyncio"], {"n": 3, "pool": "asyncio"}),
        ("add_consumer", ["q", "e"], {"queue": "q", "exchange": "e"}),
        ("query_task", ["a"], {"ids": ["a"]}),
        ("registered", [], {"taskinfoitems": []}),
        ("conf", ["true"], {"with_defaults": True}),
        ("revoke_by_stamped_headers", ["a=1", "b=2"], {"headers": ["a=1", "b=2"]}),
        ("unrevoke", ["a", "b"], {"task_id": ["a", "b"]}),
        ("limit", ["t", "rate=1/s", "burst=2"], {"limit": "t", "values": ["rate=1/s", "burst=2"]}),
        ("reset_limit", ["queue/q#0"], {"limit": "queue/q#0"}),
    ],
)
def test_words(name: str, words: list[str], arguments: dict[str, Any]) -> None:
    assert arguments_of(entry(name), words) == arguments


@pytest.mark.parametrize(("name", "words"), [("pool_grow", ["many"]), ("ping", ["x"]), ("rate_limit", ["a", "b", "c"])])
def test_wrong_words(name: str, words: list[str]) -> None:
    with pytest.raises(click.UsageError, match=name):
        arguments_of(entry(name), words)


def test_users_add_their_own() -> None:
    @inspect_command
    def my_look(state: Any) -> str:
        """Look.

        Closely."""
        return "seen"

    @control_command(name="my_order", alias="mine", args=[("n", int)], variadic="rest", visible=False)
    def order(state: Any, n: int, rest: list[str]) -> None: ...

    try:
        assert (entry("my_look").help, entry("my_look").function(None)) == ("Look.", "seen")
        assert entry("mine") is entry("my_order")
        assert arguments_of(entry("mine"), ["4", "a", "b"]) == {"n": 4, "rest": ["a", "b"]}
        assert not entry("mine").is_ours
    finally:
        for name in ("my_look", "my_order", "mine"):
            del PANEL._entries[name]  # pyright: ignore[reportPrivateUsage]


def test_answers_as_lines() -> None:
    assert pretty(None) == []
    assert pretty([]) == ["- empty -"]
    assert pretty("a\nb\x1b[2J") == ["a", "b\\x1b[2J"]
    assert pretty(["x", {"a": 1, "b": {"c": "\x07"}}]) == ["* x", "* a: 1", "  b: {'c': '\\x07'}"]
    assert pretty({"list": [{"k": "v" * 120}]}) == ["list:", f"  * k: {'v' * 120}"]
    assert (duration(3661), duration(90_000), duration(None)) == ("01:01:01", "1d 01:00:00", "-")


def test_an_event_as_a_line() -> None:
    line = line_of(
        {"type": "task-succeeded", "hostname": "w@h", "timestamp": 1.5, "uuid": "u\x1b", "result": "'4'\n", "pid": 3}
    )
    assert line.endswith("w@h task-succeeded [u\\x1b] result=\"'4'\\n\"")
