"""Log lines: Celery's formats and settings, written by listening to telemetry.

A line that nobody would see costs nothing: the sink subscribes only to what its level lets through. Text that comes
from messages is escaped, so that it can't forge lines or steer a terminal (semantics SR14).
"""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from celeriac import telemetry
from celeriac.telemetry import Event

if TYPE_CHECKING:
    from collections.abc import Callable

WORKER_FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
TASK_FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"

logger = logging.getLogger("celeriac.worker")
task_logger = logging.getLogger("celeriac.task")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
#: a traceback keeps its lines
_CONTROL_BUT_NEWLINE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")

_COLOURS = {
    logging.DEBUG: "\x1b[34m",
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[35m",
}
_PLAIN = "\x1b[0m"


class LogOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``worker_log_*`` and the options of the command line."""

    level: str | int = "WARNING"
    file: str | None = None
    format: str = WORKER_FORMAT
    task_format: str = TASK_FORMAT
    date_format: str | None = None
    task_date_format: str | None = None
    color: bool | None = None  #: None: on a terminal
    hijack_root: bool = True


def escape(text: object) -> str:
    """Text without control characters: they become ``\\x1b`` and the like."""
    return _CONTROL.sub(_as_escape, str(text))


def escape_lines(text: object) -> str:
    """As :func:`escape`, keeping line ends."""
    return _CONTROL_BUT_NEWLINE.sub(_as_escape, str(text))


def _as_escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


class ColorFormatter(logging.Formatter):
    """Colours a line by its level."""

    def __init__(self, pattern: str, date_format: str | None, color: bool) -> None:
        super().__init__(pattern, date_format)
        self._color = color

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        begin = _COLOURS.get(record.levelno) if self._color else None
        return text if begin is None else f"{begin}{text}{_PLAIN}"


class TaskFormatter(ColorFormatter):
    """Knows which task runs where the line was written."""

    def format(self, record: logging.LogRecord) -> str:
        if not hasattr(record, "task_name"):
            record.__dict__.update(task_name="???", task_id="???")
        return super().format(record)


def level_of(level: str | int) -> int:
    """``info`` → 20; Celery also knows FATAL. Raises ``ValueError``."""
    if isinstance(level, int):
        return level
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"{level!r} is no log level; known: DEBUG, INFO, WARNING, ERROR, CRITICAL, FATAL")
    return number


def setup(options: LogOptions, stream: TextIO | None = None) -> None:
    """Send log lines where the options say. Replaces the root logger's handlers unless told not to."""
    level = level_of(options.level)
    handler: logging.Handler
    if options.file is not None:
        handler = logging.FileHandler(options.file, encoding="utf-8", delay=True)
        color = bool(options.color)
    else:
        out = stream or sys.stderr
        handler = logging.StreamHandler(out)
        color = out.isatty() if options.color is None else options.color
    task_handler = _like(handler)
    handler.setFormatter(ColorFormatter(options.format, options.date_format, color))
    task_handler.setFormatter(TaskFormatter(options.task_format, options.task_date_format, color))
    root = logging.getLogger()
    if options.hijack_root:
        for old in root.handlers[:]:
            root.removeHandler(old)
    if options.hijack_root or not root.handlers:
        root.addHandler(handler)
        root.setLevel(level)
    else:
        _replace_handlers(logger, handler)
    for name in ("celeriac", "celeriac.worker", "celery"):
        logging.getLogger(name).setLevel(level)
    for tasks in (task_logger, logging.getLogger("celery.task")):
        tasks.setLevel(level)
        tasks.propagate = False
        _replace_handlers(tasks, task_handler)


def _like(handler: logging.Handler) -> logging.Handler:
    if isinstance(handler, logging.FileHandler):
        return logging.FileHandler(handler.baseFilename, encoding="utf-8", delay=True)
    assert isinstance(handler, logging.StreamHandler)
    return logging.StreamHandler(handler.stream)


def _replace_handlers(target: logging.Logger, handler: logging.Handler) -> None:
    for old in target.handlers[:]:
        target.removeHandler(old)
    target.addHandler(handler)


# ── events → lines ───────────────────────────────────────────────────────────────────────────────────────────────


def _task(event: Any) -> str:
    return f"Task {escape(event.name)}[{escape(event.id)}]"


def _failed(event: telemetry.TaskFailed) -> None:
    if event.expected:
        logger.info("%s raised expected: %s", _task(event), escape(event.error))
        return
    logger.error("%s raised unexpected: %s\n%s", _task(event), escape(event.error), escape_lines(event.traceback))


def _lost(event: telemetry.TaskLost) -> None:
    what = {
        "retried": "it will be run again",
        "dead": "it is in the dead letters now",
        "failed": "it has failed",
    }.get(event.outcome, event.outcome)
    logger.error("%s: the process running it was lost (%s); %s", _task(event), escape(event.detail), what)


#: event → (level, how it is written)
_LINES: dict[type[Event], tuple[int, Callable[[Any], None]]] = {
    telemetry.TaskReceived: (logging.INFO, lambda event: logger.info("%s received", _task(event))),
    telemetry.TaskSucceeded: (
        logging.INFO,
        lambda event: logger.info("%s succeeded in %ss: %s", _task(event), event.runtime, escape(event.result)),
    ),
    telemetry.TaskFailed: (logging.INFO, _failed),
    telemetry.TaskRetried: (
        logging.INFO,
        lambda event: logger.info("%s retry: Retry %s: %s", _task(event), escape(event.when), escape(event.error)),
    ),
    telemetry.TaskIgnored: (logging.INFO, lambda event: logger.info("%s ignored", _task(event))),
    telemetry.TaskRejected: (
        logging.WARNING,
        lambda event: logger.warning(
            "%s rejected%s: %s", _task(event), " (requeued)" if event.requeue else "", escape(event.reason)
        ),
    ),
    telemetry.TaskRevoked: (
        logging.INFO,
        lambda event: logger.info(
            "Discarding %s task: %s", "expired" if event.expired else "revoked", _task(event).removeprefix("Task ")
        ),
    ),
    telemetry.TaskLost: (logging.ERROR, _lost),
    telemetry.MessageQuarantined: (
        logging.ERROR,
        lambda event: logger.error(
            "Message %s from queue %s is in quarantine: %s", escape(event.id), escape(event.queue), escape(event.reason)
        ),
    ),
    telemetry.MessageDead: (
        logging.ERROR,
        lambda event: logger.error(
            "%s from queue %s is in the dead letters: %s", _task(event), escape(event.queue), escape(event.reason)
        ),
    ),
    telemetry.LeaseWasLost: (
        logging.WARNING,
        lambda event: logger.warning("%s: its message is no longer held here; it may run twice", _task(event)),
    ),
    telemetry.WorkerReady: (logging.INFO, lambda event: logger.info("%s ready.", escape(event.hostname))),
    telemetry.WorkerStopping: (
        logging.WARNING,
        lambda event: logger.warning("%s: %s shutdown, %g s for what runs", event.hostname, event.how, event.grace),
    ),
    telemetry.WorkerStopped: (
        logging.INFO,
        lambda event: logger.info("%s stopped, %d messages handed back", event.hostname, event.handed_back),
    ),
    telemetry.ChildExited: (
        logging.INFO,
        lambda event: (logger.info if event.expected else logger.error)(
            "pool process %d ended: %s", event.pid, escape(event.reason)
        ),
    ),
    telemetry.ServiceFailed: (
        logging.ERROR,
        lambda event: logger.error(
            "service %s failed: %s; again in %.1f s", event.service, escape(event.error), event.retry_in
        ),
    ),
    telemetry.BrokerLost: (
        logging.ERROR,
        lambda event: logger.error("broker lost: %s; trying again in %.1f s", escape(event.error), event.retry_in),
    ),
    telemetry.BrokerBack: (
        logging.WARNING,
        lambda event: logger.warning("broker is back after %.1f s", event.after),
    ),
    telemetry.SettleDelayed: (
        logging.ERROR,
        lambda event: logger.error(
            "%d outcomes not written yet: %s; again in %.1f s", event.count, escape(event.error), event.retry_in
        ),
    ),
}


def listen() -> Callable[[], None]:
    """Write a line for every event that the worker's logger lets through. Returns what ends that."""
    ends = [telemetry.subscribe(kind, write) for kind, (level, write) in _LINES.items() if logger.isEnabledFor(level)]

    def end() -> None:
        for each in ends:
            each()

    return end
