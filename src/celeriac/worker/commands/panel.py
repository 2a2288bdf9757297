"""The list of remote control commands: what they are called, what they take, which function they are.

Users add their own with :func:`inspect_command` and :func:`control_command`, as with Celery. Functions get the
worker's :class:`~celeriac.worker.commands.state.WorkerState` first, then the request's arguments by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import msgspec

Command = TypeVar("Command", bound=Callable[..., Any])
Kind = Literal["inspect", "control"]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One command."""

    name: str
    kind: Kind
    function: Callable[..., Any]
    alias: str | None = None
    visible: bool = True
    default_timeout: float = 1.0
    help: str = ""
    signature: str | None = None  #: how its arguments are shown on the command line
    args: tuple[tuple[str, Callable[[Any], Any]], ...] = ()  #: positional arguments on the command line, with types
    variadic: str | None = None  #: the argument that takes the rest of the command line
    is_ours: bool = False  #: it may run on the worker's own loop
    sees_request: bool = False  #: it gets the request itself as ``request``


class Panel:
    """All commands by name and alias."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def add(self, entry: Entry) -> None:
        self._entries[entry.name] = entry
        if entry.alias:
            self._entries[entry.alias] = entry

    def find(self, name: str) -> Entry | None:
        load_builtin()
        return self._entries.get(name)

    def visible(self, kind: Kind) -> list[Entry]:
        """Those that the command line shows, by name."""
        load_builtin()
        found = {entry.name: entry for entry in self._entries.values() if entry.kind == kind and entry.visible}
        return [found[name] for name in sorted(found)]


PANEL = Panel()


def load_builtin() -> None:
    """Our own commands are imported when the first is asked for."""
    importlib.import_module("celeriac.worker.commands.inspect")
    importlib.import_module("celeriac.worker.commands.change")


def inspect_command(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Register a function that looks: ``@inspect_command()`` or with ``name``, ``alias``, ``visible``,
    ``default_timeout``, ``help``, ``signature``, ``args=[("name", type), …]`` and ``variadic``."""
    return _register("inspect", function, options)


def control_command(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Register a function that changes something; options as for :func:`inspect_command`."""
    return _register("control", function, options)


def _register(kind: Kind, function: Any, options: dict[str, Any]) -> Any:
    def register(chosen: Command) -> Command:
        given = dict(options)
        name = given.pop("name", None) or chosen.__name__
        text = given.pop("help", None) or (chosen.__doc__ or "").strip().partition("\n")[0]
        args: Sequence[tuple[str, Callable[[Any], Any]]] = given.pop("args", None) or ()
        PANEL.add(Entry(name=name, kind=kind, function=chosen, help=text, args=tuple(map(tuple, args)), **given))  # type: ignore[arg-type]
        return chosen

    return register if function is None else register(function)
