"""``celeriac status``: the queues and what is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.invocation import Invocation, pass_invocation
from celeriac.cli.output import as_json, one_line, say, table
from celeriac.settings.censor import censored_url

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celeriac.transports.base import QueueAdmin

_COUNTS = ("waiting", "delayed", "held", "dead", "quarantined")


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


@click.command()
@click.option("--json", "wants_json", is_flag=True)
@pass_invocation
def status(invocation: Invocation, wants_json: bool) -> None:
    """Show what is in the queues.

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
    if wants_json:
        say(as_json({"broker": broker, "queues": rows}))
        return
    say(f"broker: {one_line(broker)}")
    if not rows:
        say("There is no queue yet.")
        return
    table(
        ["queue", *_COUNTS],
        [["-" if value is None else value for value in row.values()] for row in rows],
        color=invocation.color,
    )
