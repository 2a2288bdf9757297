"""``celeriac inspect`` and ``celeriac control``: commands to running workers, and what they answer.

Which commands there are is read from the workers' own panel, those that the app adds included.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.failures import EX_UNAVAILABLE, fail
from celeriac.cli.invocation import Invocation, pass_invocation
from celeriac.cli.options import COMMA_LIST
from celeriac.cli.output import as_json, lines, one_line, say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celeriac.app.celery import Celeriac
    from celeriac.worker.commands.panel import Entry, Kind

NOBODY = "No nodes replied within time constraint"


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.argument("arguments", nargs=-1),
        click.argument("command", required=False),
        click.option("--list", "lists", is_flag=True, help="List the commands."),
        click.option("-j", "--json", "wants_json", is_flag=True, help="The answers as JSON."),
        click.option("-d", "--destination", type=COMMA_LIST, metavar="NODES", help="Only these nodes."),
        click.option("-t", "--timeout", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
                     help="Seconds to wait for another answer."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command(context_settings={"ignore_unknown_options": True})
@_options
@pass_invocation
def inspect(invocation: Invocation, /, **options: Any) -> None:
    """Ask running workers something: celeriac -A proj inspect active. --list shows what."""
    _run(invocation, "inspect", **options)


@click.command(context_settings={"ignore_unknown_options": True})
@_options
@pass_invocation
def control(invocation: Invocation, /, **options: Any) -> None:
    """Tell running workers to do something: celeriac -A proj control revoke ID. --list shows what."""
    _run(invocation, "control", **options)


def _run(
    invocation: Invocation, kind: Kind, command: str | None, arguments: Sequence[str], timeout: float,
    destination: list[str] | None, wants_json: bool, lists: bool,
) -> None:  # fmt: skip
    from celeriac.worker.commands.panel import PANEL

    app = _app(invocation) if command or invocation.app_target else None
    entries = PANEL.visible(kind)
    if lists or command is None:
        _list(kind, entries)
        return
    assert app is not None
    entry = _chosen(kind, entries, command)
    given = arguments_of(entry, arguments)
    answers = app.control.broadcast(entry.name, given, destination, reply=True, timeout=timeout) or []
    by_node = {node: said for answer in answers for node, said in answer.items()}
    if wants_json:
        say(as_json(by_node if kind == "inspect" else answers))  # as Celery's two commands print it
    else:
        for node, said in by_node.items():
            show(node, said)
    if not by_node and entry.name != "shutdown":  # who leaves does not answer
        fail(NOBODY, EX_UNAVAILABLE)
    if not wants_json and by_node and not invocation.quiet:
        say(f"\n{len(by_node)} node{'s' if len(by_node) != 1 else ''} online.")


def _app(invocation: Invocation) -> Celeriac:
    app = invocation.app()
    if invocation.app_target:
        app.import_default_modules()  # commands of the user's own may be anywhere in there
    return app


def _list(kind: Kind, entries: Sequence[Entry]) -> None:
    width = max(len(entry.name) for entry in entries)
    for entry in entries:
        usage = f"{entry.name.ljust(width)}  {entry.help}"
        say(one_line(f"{usage}  ({entry.signature})" if entry.signature else usage))


def _chosen(kind: Kind, entries: Sequence[Entry], name: str) -> Entry:
    known = {entry.name: entry for entry in entries}
    known.update({entry.alias: entry for entry in entries if entry.alias})
    found = known.get(name)
    if found is None:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(sorted(known))}."
        raise click.UsageError(f"There is no {kind} command {name!r}. {hint}")
    return found


def arguments_of(entry: Entry, words: Sequence[str]) -> dict[str, Any]:
    """The words of the command line as the command's arguments. Raises ``UsageError``."""
    usage = f"{entry.name} {entry.signature or ' '.join(f'<{name}>' for name, _ in entry.args)}".rstrip()
    given: dict[str, Any] = {}
    rest = list(words)
    for name, kind in entry.args:
        if not rest:
            break
        word = rest.pop(0)
        try:
            given[name] = kind(word)
        except (ValueError, TypeError) as error:
            raise click.UsageError(f"{word!r} is no {name}: {error}. Usage: {usage}") from error
    if entry.variadic is not None:
        if rest or not entry.args:
            given[entry.variadic] = rest
    elif rest:
        raise click.UsageError(f"{entry.name} takes no {rest[0]!r}. Usage: {usage}")
    return given


# ── what people see ──────────────────────────────────────────────────────────────────────────────────────────────


def show(node: str, said: Any) -> None:
    """One node's answer."""
    failed = isinstance(said, dict) and set(said) == {"error"}
    word = click.style("ERROR", fg="red", bold=True) if failed else click.style("OK", fg="green", bold=True)
    say(f"->  {click.style(one_line(node), bold=True)}: {word}")
    value = said
    if isinstance(said, dict) and len(said) == 1 and next(iter(said)) in ("ok", "error"):
        [value] = said.values()
    for line in pretty(value):
        say(f"    {line}")


def pretty(value: Any) -> list[str]:
    """A reply as lines: texts as they are, lists with stars, mappings by key, everything escaped."""
    if value is None:
        return []
    if isinstance(value, str):
        return lines(value.strip("\n")).split("\n")
    if isinstance(value, list):
        if not value:
            return ["- empty -"]
        return [line for item in value for line in _starred(item)]
    if isinstance(value, dict):
        if not value:
            return ["- empty -"]
        return _mapping(value)
    return [one_line(value)]


def _starred(item: Any) -> list[str]:
    first, *more = pretty(item) or [""]
    return [f"* {first}", *(f"  {line}" for line in more)]


def _mapping(value: dict[str, Any]) -> list[str]:
    shown: list[str] = []
    for key, item in value.items():
        if isinstance(item, dict | list) and item:
            short = one_line(item if len(str(item)) <= 100 else "")
            if short:
                shown.append(f"{one_line(key)}: {short}")
                continue
            shown.append(f"{one_line(key)}:")
            shown.extend(f"  {line}" for line in pretty(item))
        else:
            shown.append(f"{one_line(key)}: {one_line(item)}")
    return shown
