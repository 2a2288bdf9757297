"""``celeriac worker``: runs tasks. Turns options into what ``worker/assembly.py`` builds a worker from."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.failures import Failure
from celeriac.cli.invocation import Invocation, pass_invocation
from celeriac.cli.options import COMMA_LIST, CONCURRENCY, LOG_LEVEL, later_release
from celeriac.cli.output import note
from celeriac.ids import node_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celeriac.app.celery import Celeriac
    from celeriac.transports.base import QueueSpec


def expand_path(template: str, node: str) -> str:
    """A log or pid file's name with ``%h %n %d %p %i %I %%`` filled in for the worker's own process."""
    name, _, host = node.partition("@")
    table = {"%h": host, "%n": name, "%d": host.partition(".")[2], "%p": node, "%i": "0", "%I": "", "%%": "%"}
    return re.sub(r"%[hndpiI%]", lambda found: table[found[0]], template)


def parse_setting(text: str) -> tuple[str, str]:
    """``worker.prefetch_multiplier=1`` → name and text of a setting; Celery's ``(int)60`` may carry a type."""
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"{text!r} is not a setting; after -- come settings like worker.prefetch_multiplier=1.")
    return name.strip().replace(".", "_", 1), re.sub(r"^\((?:int|float|str|bool|tuple|list)\)", "", value.strip())


def select_queues(
    known: Mapping[str, QueueSpec], only: Sequence[str] | None, excluded: Sequence[str] | None, *, may_create: bool
) -> tuple[QueueSpec, ...]:
    """The queues a worker reads: those named with -Q, else all configured ones, less those of -X."""
    from celeriac.transports.base import QueueSpec

    chosen: list[QueueSpec] = []
    for name in dict.fromkeys(only or known):
        if name in set(excluded or ()):
            continue
        if name in known:
            chosen.append(known[name])
        elif may_create:
            chosen.append(QueueSpec(name=name, exchange=name, routing_key=name))
        else:
            raise Failure(
                f"The queue {name!r} is not in task_queues, and task_create_missing_queues is off. "
                f"Configured: {', '.join(known) or 'none'}."
            )
    if not chosen:
        raise Failure("No queue is left to read from.")
    return tuple(chosen)
