"""``celeriac status``: the workers that answer, the queues and what is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.failures import EX_UNAVAILABLE, fail
from celeriac.cli.invocation import Invocation, pass_invocation
from celeriac.cli.options import COMMA_LIST
from celeriac.cli.output import as_json, one_line, say, table
from celeriac.cli.remote import NOBODY
from celeriac.errors import ImproperlyConfigured
from celeriac.settings.censor import censored_url

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celeriac.app.celery import Celeriac
    from celeriac.transports.base import QueueAdmin

_COUNTS = ("waiting", "delayed", "held", "dead", "quarantined")
_WORKER_COLUMNS = ("worker", "pid", "pool", "slots", "processed", "uptime")


def queue_rows(admin: QueueAdmin, configured: Iterable[str]) -> list[dict[str, Any]]:
    """A row for every queue that is configured or there; ``None`` where the broker does not tell."""
    from celeriac.transports.base import Counts

    names = sorted({*configured, *admin.queues()})
    rows: list[dict[str, Any]] = []
    for name in names:
        if isinstance(admin, Counts):
            counted = admin.counts(name)
            rows.append({"queue": name, **{count: getattr(counted, count) for count in _COUNTS}})
        else:
            rows.append({"queue": name, **dict.fromkeys(_COUNTS), "waiting": admin.depth(name)})
    return rows


def worker_rows(app: Celeriac, timeout: float, destination: list[str] | None) -> list[dict[str, Any]] | None:
    """A row for every worker that answers in time; None where the broker has no way to ask."""
    try:
        stats = app.control.inspect(destination, timeout).stats() or {}
    except ImproperlyConfigured:
        return None
    return [_worker(node, said if isinstance(said, dict) else {}) for node, said in sorted(stats.items())]


def _worker(node: str, said: dict[str, Any]) -> dict[str, Any]:
    pool, total = said.get("pool"), said.get("total")
    pool = pool if isinstance(pool, dict) else {}
    counts = [count for count in total.values() if isinstance(count, int)] if isinstance(total, dict) else []
    return {
        "worker": node,
        "pid": said.get("pid"),
        "pool": str(pool.get("implementation", "")).rpartition(":")[2],
        "slots": pool.get("max-concurrency"),
        "processed": sum(counts),
        "uptime": said.get("uptime"),
    }


def duration(seconds: Any) -> str:
    """``3d 04:05:06``."""
    if not isinstance(seconds, int | float):
        return "-"
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{f'{days}d ' if days else ''}{hour:02}:{minute:02}:{second:02}"


@click.command()
@click.option("-t", "--timeout", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
              help="Seconds to wait for another worker's answer.")  # fmt: skip
@click.option("-d", "--destination", type=COMMA_LIST, metavar="NODES", help="Only these nodes.")
@click.option("-j", "--json", "wants_json", is_flag=True)
@pass_invocation
def status(invocation: Invocation, timeout: float, destination: list[str] | None, wants_json: bool) -> None:
    """Show which workers answer, and what is in the queues. The exit status is 69 when no worker answers.

    waiting: due now; delayed: not before their time; held: claimed by a worker; dead: given up;
    quarantined: could not be understood.
    """
    app = invocation.app()
    broker = censored_url(app.broker_url)
    admin = app.transport.admin()
    try:
        rows = queue_rows(admin, app.queues)
    finally:
        admin.close()
    workers = worker_rows(app, timeout, destination)
    if wants_json:
        say(as_json({"broker": broker, "workers": workers, "queues": rows}))
    else:
        _show(broker, workers, rows, invocation.color)
    if workers is not None and not workers:
        fail(NOBODY, EX_UNAVAILABLE)


def _show(broker: str, workers: list[dict[str, Any]] | None, rows: list[dict[str, Any]], color: bool) -> None:
    say(f"broker: {one_line(broker)}\n")
    if workers is None:
        say("This broker has no fan-out, so workers cannot be asked.")
    elif workers:
        cells = [[*list(row.values())[:-1], duration(row["uptime"])] for row in workers]
        table(_WORKER_COLUMNS, [["-" if value is None else value for value in row] for row in cells], color=color)
        say(f"{len(workers)} node{'s' if len(workers) != 1 else ''} online.\n")
    if not rows:
        say("There is no queue yet.")
        return
    table(
        ["queue", *_COUNTS],
        [["-" if value is None else value for value in row.values()] for row in rows],
        color=color,
    )
