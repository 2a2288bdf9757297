"""From the name of a pool to what runs it: an executor of its own, or the children executor with a crew of that name.

A name is one of ours, an entry point (``celeriac.executors``, ``celeriac.crews``) or a dotted path.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, NamedTuple

from celeriac import plugins
from celeriac.errors import ImproperlyConfigured, MissingExtra, UnknownDriver

_EXECUTOR_HAS = ("start", "room", "submit", "outcomes", "cancel", "stop")
_CREW_HAS = ("run", "accept", "take_back", "has_more", "interrupt")


class CrewTraits(NamedTuple):
    """What the executor must know of a crew. A crew class says so in attributes of these names."""

    #: one child runs many requests at a time
    shares: bool = False
    #: ``module:function``, called in every child's fresh interpreter before anything else is imported
    prelude: str = ""
    #: a hard end is first tried by raising in the task; only what does not heed it costs the process
    asks_first: bool = False


def executor_class(pool: str) -> Any:
    """The executor of this pool; called with ``(options, loader)``."""
    if pool in plugins.CATALOGUE["executor"]:
        return plugins.load("executor", pool)
    if _is_crew(pool):
        return plugins.load("executor", "prefork")  # the executor of all children; the crew goes by options.pool
    return plugins.load("executor", pool)


def crew_traits(pool: str) -> CrewTraits:
    """Raises ``MissingExtra`` where a package is missing that the crew needs. Does not import that package."""
    crew = plugins.load("crew", pool)
    package = getattr(crew, "package", None)
    if package is not None and find_spec(package) is None:
        raise MissingExtra(
            f"Pool {pool!r} needs a package that is not installed ({package}): pip install 'celeriac[{package}]'"
        )
    return CrewTraits(
        bool(getattr(crew, "shares", False)), getattr(crew, "prelude", ""), bool(getattr(crew, "asks_first", False))
    )


def shares(pool: str) -> bool:
    """Whether the children of this pool run many tasks at one time."""
    if pool in plugins.CATALOGUE["crew"] or _is_crew(pool):
        return crew_traits(pool).shares
    return False


def _is_crew(pool: str) -> bool:
    """Of names that are not ours."""
    try:
        found = plugins.load("executor", pool)
    except UnknownDriver:
        if pool in plugins.names("crew"):
            return True
        raise
    if all(hasattr(found, name) for name in _CREW_HAS):
        return True
    missing = [name for name in _EXECUTOR_HAS if not hasattr(found, name)]
    if missing:
        raise ImproperlyConfigured(
            f"Pool {pool!r} is neither an executor ({missing[0]}() is missing) nor a crew; "
            "see celeriac.executors.base.Executor and celeriac.executors.children.desk.Crew"
        )
    return False
