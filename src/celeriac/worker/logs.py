"""What happens, as log lines in Celery's words, written by listening to telemetry. How lines look: executors/logs.py.

A line that nobody would see costs nothing: the sink subscribes only to what its level lets through. Text that comes
from messages is escaped, so that it can't forge lines or steer a terminal (semantics SR14).
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from celeriac import telemetry
from celeriac.executors.base import LogOptions
from celeriac.executors.logs import level_of, redirect_output, setup
from celeriac.telemetry import Event

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LogOptions", "escape", "escape_lines", "level_of", "listen", "logger", "redirect_output", "setup"]

logger = logging.getLogger("celeriac.worker")
task_logger = logging.getLogger("celeriac.task")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
#: a traceback keeps its lines
_CONTROL_BUT_NEWLINE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def escape(text: object) -> str:
    """Text without control characters: they become ``\\x1b`` and the like."""
    return _CONTROL.sub(_as_escape, str(text))


def escape_lines(text: object) -> str:
    """As :func:`escape`, keeping line ends."""
    return _CONTROL_BUT_NEWLINE.sub(_as_escape, str(text))


def _as_escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


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
        lambda event: (
            logger.warning("%s: restart, as soon as what runs has ended", event.hostname)
            if event.restart
            else logger.warning("%s: %s shutdown, %g s for what runs", event.hostname, event.how, event.grace)
        ),
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
    telemetry.TasksLimited: (
        logging.INFO,
        lambda event: logger.info(
            "limit %s is reached: %d times a task such as %s had to wait, the next one for about %.0f s",
            escape(event.key),
            event.count,
            escape(event.name),
            event.wait,
        ),
    ),
    telemetry.LimitsUnavailable: (
        logging.ERROR,
        lambda event: logger.error(
            "the store of the limits does not answer, so that no limited task starts: %s; again in %.1f s",
            escape(event.error),
            event.retry_in,
        ),
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
