"""``celery.events.event`` under our name: an event is a mapping."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from celeriac.clock import SYSTEM_CLOCK


def Event(  # noqa: N802 - Celery's name
    type: str,  # noqa: A002
    _fields: Mapping[str, Any] | None = None,
    __dict__: Callable[..., dict[str, Any]] = dict,
    __now__: Callable[[], float] = SYSTEM_CLOCK.time,
    **fields: Any,
) -> dict[str, Any]:
    """A mapping with ``type`` and ``timestamp`` (now, unless the fields have one)."""
    made = __dict__(_fields or {}, **fields, type=type)
    if "timestamp" not in made:
        made["timestamp"] = __now__()
    return made


def group_from(type: str) -> str:  # noqa: A002
    """``task-sent`` → ``task``."""
    return type.partition("-")[0]


__all__ = ["Event", "group_from"]
