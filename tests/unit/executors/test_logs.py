"""Where log lines of worker and children go, and what becomes of what tasks print."""

from __future__ import annotations

import io
import logging
import multiprocessing
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import current
from celeriac.executors import logs
from celeriac.executors.base import LogOptions
from celeriac.executors.context import Context

NAMES = ("", "celeriac", "celeriac.worker", "celeriac.task", "celery", "celery.task")


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    streams = sys.stdout, sys.stderr
    process = multiprocessing.current_process().name
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    sys.stdout, sys.stderr = streams
    multiprocessing.current_process().name = process
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        for handler in logger.handlers:
            if handler not in handlers:
                handler.close()
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


class Named:
    name = "proj.add"


@pytest.mark.parametrize("logger", ["celeriac.task", "celery.task", "celeriac.task.mine"])
def test_lines_of_tasks_know_their_task(logger: str):
    out = io.StringIO()
    logs.setup(LogOptions(level="INFO"), out)
    logs.name_process("ChildProcess-7")
    current.push(Named(), Context(id="t1"))
    try:
        logging.getLogger(logger).info("hello")
    finally:
        current.pop()
    assert out.getvalue().endswith(": INFO/ChildProcess-7] proj.add[t1]: hello\n")


def test_what_is_printed_becomes_one_line_each():
    out = io.StringIO()
    logs.setup(LogOptions(level="INFO", format="%(levelname)s %(message)s"), out)
    end = logs.redirect_output(LogOptions())
    print("one", 1)
    print("two\n\nthree")
    print("to stderr", file=sys.stderr)
    print("unfinished", end="")
    assert not sys.stdout.isatty()
    end()
    assert out.getvalue().splitlines() == [
        "WARNING one 1", "WARNING two", "WARNING three", "WARNING to stderr", "WARNING unfinished",
    ]  # fmt: skip


def test_output_stays_as_it_is_where_that_is_set():
    before = sys.stdout
    logs.redirect_output(LogOptions(redirect=False))
    assert sys.stdout is before


def test_a_handler_on_the_redirected_stream_does_not_run_in_circles():
    out = io.StringIO()
    logs.setup(LogOptions(level="INFO", format="%(message)s"), out)
    end = logs.redirect_output(LogOptions())
    mine = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(mine)
    print("once")
    end()
    assert out.getvalue().splitlines() == ["once"]


def test_a_rotated_file_is_opened_anew(tmp_path: Path):
    path = tmp_path / "worker.log"
    logs.setup(LogOptions(level="INFO", file=str(path), format="%(message)s"))
    logging.getLogger("celeriac.worker").info("first")
    path.rename(tmp_path / "worker.log.1")
    logging.getLogger("celeriac.worker").info("second")
    assert path.read_text() == "second\n"


def test_a_set_up_of_the_users_own_gets_every_line_once():
    mine: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            mine.append(record.getMessage())

    collect: Any = Collect()
    logging.getLogger().addHandler(collect)
    out = io.StringIO()
    logs.setup(LogOptions(level="INFO", hijack_root=False), out)
    logging.getLogger("celeriac.worker").warning("from the worker")
    logging.getLogger().removeHandler(collect)
    assert mine == ["from the worker"]
    assert out.getvalue() == ""
