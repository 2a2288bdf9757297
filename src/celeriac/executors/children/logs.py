"""Log lines of a child: to stderr, in Celery's format, with the task's name and id where a task logs.

Used when the registry brings no set-up of its own and nobody has configured logging before.
"""

from __future__ import annotations

import logging

from celeriac import current

FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
TASK_FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"


class ProcessFormatter(logging.Formatter):
    """Shows the child's name as ``processName``."""

    def __init__(self, template: str, process: str) -> None:
        super().__init__(template)
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        record.processName = self._process
        return super().format(record)


class TaskFormatter(ProcessFormatter):
    """Adds ``task_name`` and ``task_id`` of the task that logs, ``???`` outside of tasks."""

    def format(self, record: logging.LogRecord) -> str:
        running = current.running()
        record.task_name = getattr(running.task, "name", "???") if running else "???"
        record.task_id = getattr(running.request, "id", "???") if running else "???"
        return super().format(record)


def set_up(
    process: str, level: int = logging.WARNING, template: str = FORMAT, task_template: str = TASK_FORMAT
) -> None:
    """Give the root logger and the loggers of tasks (``celery.task``, ``celeriac.task``) a handler on stderr.

    Leaves loggers alone that have handlers.
    """
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(ProcessFormatter(template, process))
        root.addHandler(handler)
        root.setLevel(level)
    for name in ("celery.task", "celeriac.task"):
        logger = logging.getLogger(name)
        if not logger.handlers:
            task_handler = logging.StreamHandler()
            task_handler.setFormatter(TaskFormatter(task_template, process))
            logger.addHandler(task_handler)
            logger.propagate = False
