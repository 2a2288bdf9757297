"""``celeriac dead``: the messages that were set aside, and what to do with them."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.failures import Failure
from celeriac.cli.invocation import Invocation, pass_invocation
from celeriac.cli.options import COMMA_LIST
from celeriac.cli.output import as_json, lines, one_line, say, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from celeriac.app.celery import Celeriac
    from celeriac.transports.base import Buried, Graveyard

#: how many are looked through when some of them are chosen
_ALL = 100_000


@click.group()
def dead() -> None:
    """Look at dead letters and quarantined messages, run them again, or throw them away.

    A dead letter is a task that was given up: it cost too many processes, or was rejected. A quarantined message
    could not be understood, or names a task that no worker here has.
    """


def _selecting(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that choose among the set-aside messages."""
    options = (
        click.option("-Q", "--queues", type=COMMA_LIST, help="Of these queues instead of all the app's."),
        click.option("-t", "--task", "task", metavar="NAME", help="Of this task only."),
        click.option("--only", type=click.Choice(["dead", "quarantined"]), help="Only the one kind."),
        click.option("--reason", metavar="TEXT", help="Only those whose reason contains this."),
    )
    for option in options:
        command = option(command)
    return command


def chosen(
    found: Sequence[Buried], ids: Sequence[str] = (), task: str | None = None, only: str | None = None,
    reason: str | None = None,
) -> list[Buried]:  # fmt: skip
    """Those that fit every condition. ``ids``: of the entry or of the task. Raises ``Failure`` for an id not there."""
    kept = [
        one
        for one in found
        if (task is None or task_of(one) == task)
        and (only is None or one.quarantined == (only == "quarantined"))
        and (reason is None or reason in one.reason)
    ]
    if not ids:
        return kept
    unknown = [wanted for wanted in ids if not any(wanted in (one.id, task_id_of(one)) for one in kept)]
    if unknown:
        raise Failure(f"Nothing was set aside under {', '.join(map(one_line, unknown))}.")
    return [one for one in kept if one.id in ids or task_id_of(one) in ids]


def task_of(one: Buried) -> str:
    return _header(one, "task")


def task_id_of(one: Buried) -> str:
    return _header(one, "id")


def _header(one: Buried, name: str) -> str:
    value = None if one.envelope is None else one.envelope.headers.get(name)
    return value if isinstance(value, str) else ""


@contextlib.contextmanager
def _graveyard(app: Celeriac) -> Iterator[Graveyard]:
    from celeriac.transports.base import Graveyard

    admin = app.transport.admin()
    try:
        if not isinstance(admin, Graveyard):
            raise Failure("This broker's driver can't look into what was set aside.")
        yield admin
    finally:
        admin.close()


def _queues(app: Celeriac, named: Sequence[str] | None, graveyard: Any) -> list[str]:
    return list(named) if named else sorted({*app.queues, *graveyard.queues()})


@dead.command("list")
@_selecting
@click.option("-n", "--limit", type=click.IntRange(1), default=50, show_default=True, help="The newest so many.")
@click.option("--json", "wants_json", is_flag=True)
@pass_invocation
def list_(
    invocation: Invocation, queues: list[str] | None, task: str | None, only: str | None, reason: str | None,
    limit: int, wants_json: bool,
) -> None:  # fmt: skip
    """Show what was set aside, newest first."""
    app = invocation.app()
    with _graveyard(app) as graveyard:
        is_filtered = any((task, only, reason))
        found = graveyard.buried(_queues(app, queues, graveyard), _ALL if is_filtered else limit)
    found = chosen(found, (), task, only, reason)[:limit]
    if wants_json:
        say(as_json([_plain(one) for one in found]))
        return
    if not found:
        say("Nothing was set aside.")
        return
    rows = [
        [one.id, one.queue, "quarantined" if one.quarantined else "dead", task_of(one) or "?", task_id_of(one) or "?",
         _when(one), one.reason]
        for one in found
    ]  # fmt: skip
    table(["entry", "queue", "kind", "task", "task id", "since", "reason"], rows, color=invocation.color)


@dead.command()
@click.argument("identifier", metavar="ENTRY")
@click.option("-Q", "--queues", type=COMMA_LIST, help="Look in these queues instead of all the app's.")
@click.option("--json", "wants_json", is_flag=True)
@pass_invocation
def show(invocation: Invocation, identifier: str, queues: list[str] | None, wants_json: bool) -> None:
    """Show one message that was set aside: why, its headers, and its body. ENTRY may be the task's id."""
    app = invocation.app()
    with _graveyard(app) as graveyard:
        found = chosen(graveyard.buried(_queues(app, queues, graveyard), _ALL), [identifier])
    for one in found:
        if wants_json:
            say(as_json(_plain(one)))
            continue
        facts: list[tuple[str, object]] = [
            ("entry", one.id), ("queue", one.queue), ("kind", "quarantined" if one.quarantined else "dead"),
            ("reason", one.reason), ("since", _when(one)), ("worker", one.worker or "-"),
            ("starts", "-" if one.attempts is None else one.attempts),
        ]  # fmt: skip
        if one.envelope is not None:
            facts += [(f"header {key}", value) for key, value in one.envelope.headers.items() if value is not None]
            facts += [(f"property {key}", value) for key, value in one.envelope.properties.items()]
        table(["", ""], facts, color=invocation.color)
        say("body:")
        body = one.raw if one.envelope is None else one.envelope.body
        say(lines(body[:4000].decode("utf-8", "backslashreplace")) + (" …" if len(body) > 4000 else ""))


@dead.command()
@click.argument("identifiers", nargs=-1, metavar="[ENTRY]...")
@_selecting
@click.option("--all", "wants_all", is_flag=True, help="Everything that the options choose.")
@pass_invocation
def replay(
    invocation: Invocation, identifiers: tuple[str, ...], queues: list[str] | None, task: str | None,
    only: str | None, reason: str | None, wants_all: bool,
) -> None:  # fmt: skip
    """Put messages back into their queues, to be run again. Their starts are counted anew."""
    _need_choice(identifiers, wants_all)
    app = invocation.app()
    with _graveyard(app) as graveyard:
        found = chosen(graveyard.buried(_queues(app, queues, graveyard), _ALL), identifiers, task, only, reason)
        count = graveyard.replay(found) if found else 0
    say(f"{count} message{'' if count == 1 else 's'} put back")


@dead.command()
@click.argument("identifiers", nargs=-1, metavar="[ENTRY]...")
@_selecting
@click.option("--all", "wants_all", is_flag=True, help="Everything that the options choose.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@pass_invocation
def discard(
    invocation: Invocation, identifiers: tuple[str, ...], queues: list[str] | None, task: str | None,
    only: str | None, reason: str | None, wants_all: bool, force: bool,
) -> None:  # fmt: skip
    """Throw messages away for good."""
    _need_choice(identifiers, wants_all)
    app = invocation.app()
    with _graveyard(app) as graveyard:
        found = chosen(graveyard.buried(_queues(app, queues, graveyard), _ALL), identifiers, task, only, reason)
        if found and not force:
            click.confirm(f"Throw away {len(found)} messages? This cannot be undone.", abort=True)
        count = graveyard.discard(found) if found else 0
    say(f"{count} message{'' if count == 1 else 's'} thrown away")


def _need_choice(identifiers: Sequence[str], wants_all: bool) -> None:
    if bool(identifiers) == wants_all:
        raise Failure("Name the entries (celeriac dead list shows them), or say --all; not both.")


def _when(one: Buried) -> str:
    return datetime.fromtimestamp(one.buried_at, UTC).isoformat(sep=" ", timespec="seconds") if one.buried_at else "-"


def _plain(one: Buried) -> dict[str, Any]:
    envelope = one.envelope
    return {
        "entry": one.id, "queue": one.queue, "kind": "quarantined" if one.quarantined else "dead",
        "task": task_of(one) or None, "task_id": task_id_of(one) or None, "reason": one.reason, "worker": one.worker,
        "since": _when(one), "starts": one.attempts,
        "headers": None if envelope is None else envelope.headers,
        "properties": None if envelope is None else envelope.properties,
        "body": (one.raw if envelope is None else envelope.body).decode("utf-8", "backslashreplace"),
    }  # fmt: skip
