from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING

import pytest

from celeriac import telemetry
from celeriac.worker import logs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = ("", "celeriac", "celeriac.worker", "celeriac.task", "celery", "celery.task")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    before = {name: _state(logging.getLogger(name)) for name in NAMES}
    yield
    for name, (handlers, level, propagate) in before.items():
        logger = logging.getLogger(name)
        for handler in logger.handlers:
            if handler not in handlers:
                handler.close()
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def _state(logger: logging.Logger) -> tuple[list[logging.Handler], int, bool]:
    return logger.handlers[:], logger.level, logger.propagate


def lines(level: str, *events: telemetry.Event) -> str:
    out = io.StringIO()
    logs.setup(logs.LogOptions(level=level, format="%(levelname)s %(message)s"), out)
    end = logs.listen()
    for event in events:
        telemetry.emit(event)
    end()
    return out.getvalue()


def test_lines_read_as_celerys_do() -> None:
    text = lines(
        "INFO",
        telemetry.TaskReceived(id="1", name="app.add", queue="celery"),
        telemetry.TaskSucceeded(id="1", name="app.add", runtime=0.25, result="4"),
        telemetry.TaskFailed(id="2", name="app.add", runtime=1, error="ValueError('x')", traceback="Trace\n  line"),
        telemetry.TaskRetried(id="3", name="app.add", error="OSError()", when="in 5s"),
        telemetry.TaskRevoked(id="4", name="app.add", expired=True),
    )
    assert text.splitlines() == [
        "INFO Task app.add[1] received",
        "INFO Task app.add[1] succeeded in 0.25s: 4",
        "ERROR Task app.add[2] raised unexpected: ValueError('x')",
        "Trace",
        "  line",
        "INFO Task app.add[3] retry: Retry in 5s: OSError()",
        "INFO Discarding expired task: app.add[4]",
    ]


def test_a_level_that_hides_a_line_leaves_the_event_unwanted() -> None:
    logs.setup(logs.LogOptions(level="WARNING"), io.StringIO())
    end = logs.listen()
    assert not telemetry.wanted(telemetry.TaskSucceeded)
    assert telemetry.wanted(telemetry.TaskLost)
    end()
    assert not telemetry.wanted(telemetry.TaskLost)


def test_expected_failures_come_without_traceback() -> None:
    event = telemetry.TaskFailed(
        id="2", name="app.add", runtime=1, error="KeyError('x')", traceback="Trace", expected=True
    )
    assert lines("INFO", event) == "INFO Task app.add[2] raised expected: KeyError('x')\n"
    assert lines("WARNING", event) == ""


def test_text_from_messages_cannot_forge_lines_or_steer_terminals() -> None:
    text = lines(
        "INFO",
        telemetry.TaskSucceeded(id="1", name="app.add", runtime=0.1, result="\x1b[31mred\nERROR forged\r\u2028"),
        telemetry.MessageQuarantined(queue="q\n", id="i\x00", reason="\x9b2J"),
    )
    assert len(text.splitlines()) == 2
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in text.replace("\n", ""))
    assert r"\x1b[31mred\nERROR forged\r\u2028" in text


def test_a_file_gets_lines_without_colour(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    logs.setup(logs.LogOptions(level="INFO", file=str(path), format="%(message)s"))
    logs.logger.error("one")
    logs.task_logger.info("two")
    assert path.read_text().startswith("one\n")
    assert "???[???]: two" in path.read_text()


def test_colour_follows_the_option() -> None:
    out = io.StringIO()
    logs.setup(logs.LogOptions(level="INFO", format="%(message)s", color=True), out)
    logs.logger.error("one")
    assert out.getvalue() == "\x1b[31mone\x1b[0m\n"


def test_a_root_logger_that_is_not_to_be_touched_is_not() -> None:
    mine = logging.NullHandler()
    root = logging.getLogger()
    root.addHandler(mine)
    logs.setup(logs.LogOptions(level="INFO", hijack_root=False), io.StringIO())
    assert mine in root.handlers


def test_levels_go_by_celerys_names() -> None:
    assert [logs.level_of(name) for name in ("debug", "FATAL", 15)] == [10, 50, 15]
    with pytest.raises(ValueError, match="LOUD"):
        logs.level_of("LOUD")
