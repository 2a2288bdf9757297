"""``task_annotations``: changing attributes of tasks from the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from celeriac import plugins

if TYPE_CHECKING:
    from celeriac.app.task import Task


def annotate(task: Task[Any, Any], annotations: Any) -> None:
    """Apply what the configuration says of this task; ``@method`` keys wrap the method."""
    for changes in _changes_for(task, annotations):
        for key, value in changes.items():
            if key.startswith("@"):
                _wrap_method(task, key[1:], value)
            else:
                setattr(task, key, value)


def _changes_for(task: Task[Any, Any], annotations: Any) -> Iterator[Mapping[str, Any]]:
    """The mappings that apply, general ones first so that the task's own win."""
    entries = [_resolved(entry) for entry in (annotations if isinstance(annotations, list | tuple) else [annotations])]
    for entry in entries:
        found = entry.get("*") if isinstance(entry, Mapping) else _ask(entry, "annotate_any")
        if found:
            yield found
    for entry in entries:
        found = entry.get(task.name) if isinstance(entry, Mapping) else _ask(entry, "annotate", task)
        if found:
            yield found


def _resolved(entry: Any) -> Any:
    if isinstance(entry, str):
        entry = plugins.resolve(entry)
    return entry() if isinstance(entry, type) else entry


def _ask(entry: Any, method: str, *args: Any) -> Any:
    found = getattr(entry, method, None)
    return found(*args) if found is not None else None


def _wrap_method(task: Task[Any, Any], name: str, around: Any) -> None:
    """``around(method)`` takes the method's place, on the class: ``__call__`` is only looked for there."""
    kind = type(task)
    original = getattr(kind, name)
    wrapped = around(getattr(original, "__wrapped__", original))
    wrapped.__wrapped__ = original
    setattr(kind, name, wrapped)
