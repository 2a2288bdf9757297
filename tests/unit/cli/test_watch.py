"""The screen of ``celeriac events``: keys, filters, rates, and that nothing a stranger sent drives the terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from celeriac.app.cluster import State
from celeriac.cli.watch.model import Model
from celeriac.cli.watch.view import draw


class Scene:
    def __init__(self) -> None:
        self.time = 100.0
        self.orders: list[tuple[str, dict[str, Any]]] = []
        self.model = Model(State(), lambda: self.time, self.act)

    def act(self, command: str, arguments: dict[str, Any]) -> str:
        self.orders.append((command, arguments))
        return f"{command}: sent"

    def tell(self, kind: str, uuid: str, clock: int, **fields: Any) -> None:
        event = {"type": kind, "hostname": "w1@h", "timestamp": 1000.0 + clock, "clock": clock, "uuid": uuid, **fields}
        self.model.hear(event)

    def shown(self, width: int = 120, height: int = 40) -> str:
        console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
        console.print(draw(self.model, "sqlite:///x", width, height))
        file: Any = console.file
        return str(file.getvalue())


@pytest.fixture
def scene() -> Scene:
    made = Scene()
    made.model.hear({
        "type": "worker-online", "hostname": "w1@h", "timestamp": 1.0, "freq": 1e5, "active": 2, "processed": 1234,
        "loadavg": [0.5, 0.25, 0.1], "sw_ident": "py-celeriac", "sw_ver": "1", "sw_sys": "Linux",
    })  # fmt: skip
    for number in range(5):
        made.tell("task-received", f"t{number}", number, name=f"app.add{number}", args="(1,)")
    made.tell("task-failed", "t2", 10, exception="ValueError('x')", traceback="Traceback\n  here")
    made.tell("task-succeeded", "t1", 11, result="3", runtime=0.25)
    return made


def test_what_is_shown(scene: Scene) -> None:
    shown = scene.shown()
    for words in ("w1@h", "1,234", "0.50 0.25 0.10", "py-celeriac", "app.add1", "SUCCESS", "0.250 s", "FAILURE"):
        assert words in shown
    assert shown.index("app.add1") < shown.index("app.add2") < shown.index("app.add4") < shown.index("app.add0")


def test_selecting_and_looking(scene: Scene) -> None:
    scene.shown()
    for key in ("down", "j"):
        scene.model.press(key)
    assert scene.model.selected == "t2"
    scene.model.press("i")
    shown = scene.shown()
    assert "ValueError('x')" in shown
    assert "  here" in shown
    scene.model.press("escape")
    assert "ValueError('x')" not in scene.shown()
    scene.model.press("end")
    assert scene.model.selected == "t0"
    scene.model.press("home")
    assert scene.model.selected == "t1"


def test_revoking_asks_first(scene: Scene) -> None:
    scene.shown()
    scene.model.press("c")
    assert scene.model.question is None  # nothing is selected
    scene.model.press("down")
    scene.model.press("c")
    assert "y/n" in scene.shown()
    scene.model.press("n")
    assert scene.orders == []
    scene.model.press("c")
    scene.model.press("y")
    assert scene.orders == [("revoke", {"task_id": "t1", "terminate": True, "signal": "SIGTERM"})]
    assert "revoke: sent" in scene.shown(200)


def test_filter_pause_events_quit(scene: Scene) -> None:
    for expected in (set(), {"t0", "t3", "t4"}, {"t2"}, set(), {"t0", "t1", "t2", "t3", "t4"}):
        scene.model.press("f")
        assert {task.uuid for task in scene.model.tasks()} == expected
    scene.model.press("p")
    scene.tell("task-received", "late", 99, name="late")
    assert "late" not in {task.uuid for task in scene.model.tasks()}
    scene.model.press("p")
    assert "late" in {task.uuid for task in scene.model.tasks()}
    scene.model.press("e")
    scene.model.press("e")
    assert [command for command, _ in scene.orders] == ["enable_events", "disable_events"]
    scene.model.press("unknown")
    assert not scene.model.is_over
    scene.model.press("q")
    assert scene.model.is_over


def test_rates() -> None:
    scene = Scene()
    for second in range(10):
        scene.time = 200.0 + second
        for number in range(second):
            scene.tell("task-received", f"{second}.{number}", 1)
    assert scene.model.rates.of("task-received") == (4 + 5 + 6 + 7 + 8) / 5
    assert scene.model.rates.of("task-failed") == 0
    scene.time = 300.0
    assert scene.model.rates.of() == 0


def test_strangers_do_not_drive_the_terminal() -> None:
    scene = Scene()
    evil = "\x1b]0;x\x07\x1b[2J[red]\n"
    scene.model.hear({"type": "worker-online", "hostname": evil, "timestamp": 1.0, "sw_ident": evil})
    scene.tell("task-failed", evil, 1, name=evil, exception=evil, traceback=evil)
    scene.shown()
    scene.model.press("down")
    scene.model.press("i")
    shown = scene.shown()
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "[red]" in shown


@pytest.mark.parametrize(("width", "height"), [(20, 5), (40, 10), (80, 24), (300, 100)])
def test_any_size_of_screen(scene: Scene, width: int, height: int) -> None:
    scene.shown(width, height)
    scene.model.press("down")
    scene.model.press("i")
    scene.shown(width, height)
    assert "No worker" in Scene().shown(width=80, height=24)
