"""``celeriac purge``: throw away what waits in queues."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from celeriac.cli.failures import Failure
from celeriac.cli.invocation import Invocation, pass_invocation
from celeriac.cli.options import COMMA_LIST
from celeriac.cli.output import as_json, one_line, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def chosen_queues(configured: Iterable[str], only: Sequence[str] | None, excluded: Sequence[str] | None) -> list[str]:
    """The queues to purge: those named, else the configured ones, less the excluded."""
    names = list(only) if only else list(configured)
    return [name for name in names if name not in set(excluded or ())]


@click.command()
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("-Q", "--queues", "only", type=COMMA_LIST, help="These queues instead of the configured ones.")
@click.option("-X", "--exclude-queues", "excluded", type=COMMA_LIST, help="Not these.")
@click.option("--json", "wants_json", is_flag=True, help="Print the counts as JSON; needs --force.")
@pass_invocation
def purge(
    invocation: Invocation, force: bool, only: list[str] | None, excluded: list[str] | None, wants_json: bool
) -> None:
    """Throw away every message that waits in the app's queues. There is no way back.

    Messages that a worker holds at the moment are not touched.
    """
    if wants_json and not force:
        raise Failure("--json asks nothing, so it needs --force.")
    app = invocation.app()
    names = chosen_queues(app.queues, only, excluded)
    if not names:
        raise Failure("No queue is left to purge.")
    admin = app.transport.admin()
    try:
        if not force:
            waiting = sum(admin.depth(name) for name in names)
            click.confirm(
                f"Throw away {waiting} messages in {', '.join(map(one_line, names))}? This cannot be undone.",
                abort=True,
            )
        removed = {name: admin.purge(name) for name in names}
    finally:
        admin.close()
    if wants_json:
        say(as_json(removed))
        return
    for name, count in removed.items():
        say(f"{one_line(name)}: {count} message{'' if count == 1 else 's'} removed")
