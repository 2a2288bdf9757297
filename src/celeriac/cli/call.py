"""``celeriac call``: send a task by its name; its code need not be here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.invocation import Invocation, pass_invocation
from celeriac.cli.options import JSON_LIST, JSON_OBJECT, MOMENT, MOMENT_OR_SECONDS
from celeriac.cli.output import as_json, say

if TYPE_CHECKING:
    from datetime import datetime


@click.command()
@click.argument("name")
@click.option("-a", "--args", "arguments", type=JSON_LIST, default="[]", help="Positional arguments, a JSON list.")
@click.option("-k", "--kwargs", "keywords", type=JSON_OBJECT, default="{}", help="Keyword arguments, a JSON object.")
@click.option("--eta", type=MOMENT, help="Not before this time (ISO 8601).")
@click.option("--countdown", type=float, help="Not before this many seconds from now.")
@click.option("--expires", type=MOMENT_OR_SECONDS, help="Drop it when it has not started by then.")
@click.option("--serializer", default="json", show_default=True)
@click.option("--queue", help="The queue, instead of what the routes say.")
@click.option("--exchange")
@click.option("--routing-key")
@click.option("--priority", type=int)
@click.option("--task-id", help="Use this id instead of a random one.")
@click.option("--json", "wants_json", is_flag=True, help="Print an object with the id instead of the bare id.")
@pass_invocation
def call(
    invocation: Invocation, name: str, arguments: list[Any], keywords: dict[str, Any], eta: datetime | None,
    countdown: float | None, expires: datetime | float | None, serializer: str, queue: str | None,
    exchange: str | None, routing_key: str | None, priority: int | None, task_id: str | None, wants_json: bool,
) -> None:  # fmt: skip
    """Send the task NAME and print its id.

    Returns once the broker has stored the message.
    """
    if eta is not None and countdown is not None:
        raise click.UsageError("--eta and --countdown both say when; give one of them.")
    given = {
        "eta": eta,
        "countdown": countdown,
        "expires": expires,
        "queue": queue,
        "exchange": exchange,
        "routing_key": routing_key,
        "priority": priority,
        "task_id": task_id,
    }
    options = {option: value for option, value in given.items() if value is not None}
    sent = invocation.app().send_task(name, args=arguments, kwargs=keywords, serializer=serializer, **options)
    say(as_json({"id": sent.id, "task": name}) if wants_json else sent.id)
