"""``celery.utils.log`` under our name: loggers whose lines know the task that writes them."""

from __future__ import annotations

import logging

_TASKS = logging.getLogger("celeriac.task")
_ROOTS = frozenset({"celery", "celery.task", "celeriac", "celeriac.task"})


def get_logger(name: str) -> logging.Logger:
    """A logger whose lines go where the worker's go."""
    return logging.getLogger(name)


def get_task_logger(name: str) -> logging.Logger:
    """A logger for tasks: in a worker its lines carry the task's name and id (``worker_task_log_format``)."""
    if name in _ROOTS:
        raise RuntimeError(f"the logger name {name!r} is taken: use your module's, get_task_logger(__name__)")
    logger = logging.getLogger(name)
    above: logging.Logger | None = logger
    while above is not None and above is not _TASKS:
        above = above.parent
    if above is None:
        logger.parent = _TASKS
    return logger


__all__ = ["get_logger", "get_task_logger"]
