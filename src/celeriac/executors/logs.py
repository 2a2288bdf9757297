"""Where log lines go and how they look, in the worker's parent and in its children alike.

Celery's settings and formats: a format for everything, another for the loggers of tasks, which know the task that is
running; and ``print`` in a task becomes a log line. The levels and files arrive as one value, since children are
fresh processes. Loggers named ``celery`` are taken for ours, because logging set-ups of ported projects name them.
"""

from __future__ import annotations

import logging
import logging.handlers
import re
import sys
import threading
from typing import TYPE_CHECKING, Any, TextIO

from celeriac import current, signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from celeriac.executors.base import LogOptions

#: the parents of all loggers that ``get_task_logger`` gives, ours and the one of ported set-ups
TASK_LOGGERS = ("celeriac.task", "celery.task")
_OURS = ("celeriac", "celeriac.worker", "celery")

_COLOURS = {
    logging.DEBUG: "\x1b[34m",
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[35m",
}
_PLAIN = "\x1b[0m"


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
    """Adds ``task_name`` and ``task_id`` of the task that logs; ``???`` outside of tasks."""

    def format(self, record: logging.LogRecord) -> str:
        if "task_name" not in record.__dict__:
            running = current.running()
            name, task_id = (running.task.name, running.request.id) if running else ("???", "???")
            record.__dict__.update(task_name=name, task_id=task_id)
        return super().format(record)


def level_of(level: str | int) -> int:
    """``info`` → 20; Celery also knows FATAL. Raises ``ValueError``."""
    if isinstance(level, int):
        return level
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"{level!r} is no log level; known: DEBUG, INFO, WARNING, ERROR, CRITICAL, FATAL")
    return number


def setup(options: LogOptions, stream: TextIO | None = None, place: int = 0) -> None:
    """Send log lines where the options say. Replaces the root logger's handlers unless told not to.

    ``place``: of a child among the children, from 1; a file's name may have it (``%i``, ``%I``).
    Does nothing where a receiver of ``setup_logging`` sees to it.
    """
    level = level_of(options.level)
    file = None if options.file is None else file_of(options.file, place)
    facts = {
        "loglevel": level, "logfile": file, "format": options.format, "colorize": options.color,
    }  # fmt: skip
    if signals.setup_logging.has_listeners():
        signals.setup_logging.send(sender=None, **facts)
        return
    # the process's own stderr: sys.stderr may lead back into the log
    out = stream or sys.__stderr__ or sys.stderr
    color = bool(options.color) if file is not None or options.color is not None else out.isatty()
    handler, task_handler = _handler(file, out), _handler(file, out)
    handler.setFormatter(ColorFormatter(options.format, options.date_format, color))
    task_handler.setFormatter(TaskFormatter(options.task_format, options.task_date_format, color))
    root = logging.getLogger()
    if options.hijack_root:
        _replace_handlers(root, ())
    if not root.handlers:
        root.addHandler(handler)
        root.setLevel(level)
    for name in _OURS:
        logging.getLogger(name).setLevel(level)
    for name in TASK_LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(level)
        if options.hijack_root or not logger.handlers:
            logger.propagate = False
            _replace_handlers(logger, (task_handler,))
    signals.after_setup_logger.send(sender=None, logger=root, **facts)
    facts["format"] = options.task_format
    signals.after_setup_task_logger.send(sender=None, logger=logging.getLogger(TASK_LOGGERS[0]), **facts)


def file_of(template: str, place: int) -> str:
    """The file of one process: ``%i`` is its place, 0 for the parent; ``%I`` is ``-1`` and so on, or nothing."""
    table = {"%i": str(place), "%I": f"-{place}" if place else "", "%%": "%"}
    return re.sub("%[iI%]", lambda found: table[found[0]], template)


def _handler(file: str | None, out: TextIO) -> logging.Handler:
    """``WatchedFileHandler``: a file that logrotate has moved away is opened anew."""
    if file is not None:
        return logging.handlers.WatchedFileHandler(file, encoding="utf-8", delay=True)
    return logging.StreamHandler(out)


def _replace_handlers(target: logging.Logger, handlers: Iterable[logging.Handler]) -> None:
    for old in target.handlers[:]:
        target.removeHandler(old)
    for handler in handlers:
        target.addHandler(handler)


def name_process(name: str) -> None:
    """Have ``%(processName)s`` say ``name``, in whatever handlers there are."""
    import multiprocessing  # logging asks this module, and only if it is loaded

    multiprocessing.current_process().name = name


# ── what tasks print ─────────────────────────────────────────────────────────────────────────────────────────────


#: where this thread is logging what was printed: a handler may write to what it took for the terminal
_under_way = threading.local()


class LoggedOutput:
    """Stands in for ``sys.stdout`` or ``sys.stderr``: every line written becomes a log line.

    A line is gathered per thread until it ends. Whatever else is asked of it, the stream behind answers.
    """

    def __init__(self, logger: logging.Logger, level: int, behind: Any) -> None:
        self._logger = logger
        self._level = level
        self._behind = behind
        self._local = threading.local()

    def write(self, text: str) -> int:
        local = self._local
        if getattr(_under_way, "is_logging", False):
            return len(text)
        *lines, rest = f"{getattr(local, 'rest', '')}{text}".split("\n")
        local.rest = rest
        self._log(lines)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Log what has been written of an unfinished line."""
        rest, self._local.rest = getattr(self._local, "rest", ""), ""
        self._log([rest])

    def _log(self, lines: Iterable[str]) -> None:
        _under_way.is_logging = True
        try:
            for line in lines:
                if line.strip():
                    self._logger.log(self._level, "%s", line.rstrip())
        finally:
            _under_way.is_logging = False

    def isatty(self) -> bool:
        return False

    def close(self) -> None:
        """The stream belongs to the process; it stays open."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)


def redirect_output(options: LogOptions) -> Callable[[], None]:
    """Make log lines of what is printed from now on, if the options say so. Returns what ends that."""
    if not options.redirect:
        return lambda: None
    before = sys.stdout, sys.stderr
    logger = logging.getLogger("celeriac.redirected")
    level = level_of(options.redirect_level)
    stand_ins: Any = LoggedOutput(logger, level, sys.stdout), LoggedOutput(logger, level, sys.stderr)
    sys.stdout, sys.stderr = stand_ins

    def end() -> None:
        for stream in stand_ins:
            stream.flush()
        sys.stdout, sys.stderr = before

    return end
