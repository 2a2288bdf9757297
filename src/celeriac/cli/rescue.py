"""``celeriac rescue``: give back the messages that workers of Celery took and never settled."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from celeriac.cli.failures import Failure
from celeriac.cli.invocation import Invocation, pass_invocation
from celeriac.cli.output import as_json, one_line, say, table

#: Celery's own, in seconds
_VISIBILITY_TIMEOUT = 3600.0
#: rows that are shown
_SHOWN = 50


@click.command()
@click.option(
    "--older-than", type=click.FloatRange(min=0), metavar="SECONDS",
    help="Only messages that were taken longer ago.  [default: the option visibility_timeout, or 3600]",
)  # fmt: skip
@click.option(
    "--delayed", is_flag=True,
    help="Also what waits for its time: workers of Celery, if they are to take over again, hold it themselves.",
)  # fmt: skip
@click.option("-n", "--dry-run", is_flag=True, help="Only show them.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--json", "wants_json", is_flag=True, help="Print them as JSON; needs --force or --dry-run.")
@pass_invocation
def rescue(
    invocation: Invocation, older_than: float | None, delayed: bool, dry_run: bool, force: bool, wants_json: bool
) -> None:  # fmt: skip
    """Give back the messages that workers of Celery took and never settled.

    On Redis, Celery keeps them in the hash "unacked", and only its own workers give them back. A message that one of
    these still runs would run twice: stop them first, or leave them the visibility timeout.
    """
    from celeriac.transports.base import Rescues

    if wants_json and not (force or dry_run):
        raise Failure("--json asks nothing, so it needs --force or --dry-run.")
    app = invocation.app()
    age = _visibility_timeout(app.conf.broker_transport_options) if older_than is None else older_than
    admin = app.transport.admin()
    try:
        if not isinstance(admin, Rescues):
            raise Failure("Only a Redis broker keeps such messages; this one gives them back by itself.")
        found = admin.stranded(age)
        if not wants_json:
            _show(found, invocation.color)
        rescued = 0
        if found and not dry_run:
            if not force:
                click.confirm(f"Give {len(found)} messages back to their queues?", abort=True)
            rescued = admin.rescue(age)
        undelayed = {name: admin.undelay(name) for name in app.queues} if delayed and not dry_run else {}
    finally:
        admin.close()
    if wants_json:
        shown = [msgspec.to_builtins(one) for one in found]
        say(as_json({"stranded": shown, "rescued": rescued, "undelayed": undelayed}))
        return
    if found and not dry_run:
        say(f"{rescued} message{'' if rescued == 1 else 's'} given back")
    for name, count in undelayed.items():
        say(f"{one_line(name)}: {count} delayed message{'' if count == 1 else 's'} handed over")


def _visibility_timeout(options: Any) -> float:
    given = options.get("visibility_timeout")
    return float(given) if given else _VISIBILITY_TIMEOUT


def _show(found: Any, color: bool) -> None:
    from datetime import UTC, datetime

    if not found:
        say("Nothing was left behind.")
        return
    rows = [
        [
            "-" if one.taken_at is None else f"{datetime.fromtimestamp(one.taken_at, UTC):%Y-%m-%d %H:%M:%S}",
            one.queue, one.task or "-", one.id,
        ]
        for one in found[:_SHOWN]
    ]  # fmt: skip
    table(["taken (UTC)", "queue", "task", "delivery tag"], rows, color=color)
    if len(found) > _SHOWN:
        say(one_line(f"… and {len(found) - _SHOWN} more"))
