"""Which pools a worker is to have, from what ``-P`` says; and which of them each task runs in.

Knows tasks by their options alone. No process is started here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from celeriac.errors import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celeriac.executors.base import Runnable

#: names of the same pool
_SAME = {"processes": "prefork"}
#: where coroutines run if nobody says otherwise
_OF_COROUTINES = "asyncio"
#: tasks that a warning names
_SHOWN = 10
#: characters of a name that somebody has sent
_SHOWN_NAME = 100


class Wanted(NamedTuple):
    """One pool that is asked for."""

    name: str
    number: int | None  #: tasks at one time; None: not said


def wanted_pools(text: str) -> list[Wanted]:
    """From ``prefork:4,asyncio:100``; from the name or dotted path of a single pool, that one.

    Raises ``ImproperlyConfigured`` for what does not go together.
    """
    wanted = [_wanted(part.strip(), text) for part in text.split(",")]
    if len(wanted) == 1:
        return wanted
    names = [_SAME.get(one.name, one.name) for one in wanted]
    for name in names:
        if names.count(name) > 1:
            raise ImproperlyConfigured(f"-P {text}: {name} is there twice; give it one number instead")
    if "solo" in names:
        raise ImproperlyConfigured(
            f"-P {text}: solo runs its tasks in the worker's own process, where no other pool can be started safely; "
            "use prefork:1 for one task at a time"
        )
    return wanted


def _wanted(part: str, text: str) -> Wanted:
    name, colon, number = part.rpartition(":")
    if not colon or not (number.isascii() and number.isdigit()):
        name, number = part, ""
    if not name:
        raise ImproperlyConfigured(f"-P {text}: the name of a pool is missing")
    if number and not 0 < int(number) <= 1_000_000:
        raise ImproperlyConfigured(f"-P {text}: {name} cannot run {number} tasks at one time")
    return Wanted(name, int(number) if number else None)


class Placement(NamedTuple):
    """Where tasks run."""

    places: dict[str, int]  #: by name; those of the first pool are left out
    strays: dict[str, list[str]]  #: pools that tasks ask for and that are not here → those tasks


def place_tasks(tasks: Mapping[str, Runnable], pools: Sequence[str]) -> Placement:
    """A task runs where its option ``pool`` says; without one, a coroutine in ``asyncio``; else in the first."""
    here = {_SAME.get(name, name): place for place, name in reversed(list(enumerate(pools)))}
    placement = Placement({}, {})
    for name, task in tasks.items():
        wanted = task.runnable_options.pool
        place = 0
        if wanted is not None:
            found = here.get(_SAME.get(wanted, wanted))
            if found is None:
                placement.strays.setdefault(wanted, []).append(name)
            place = found or 0
        elif len(pools) > 1 and task.is_coroutine:
            place = here.get(_OF_COROUTINES, 0)
        if place:
            placement.places[name] = place
    return placement


def place_of(name: str, pools: Sequence[str]) -> int:
    """Raises ``ValueError`` with the names there are."""
    canonical = [_SAME.get(one, one) for one in pools]
    wanted = _SAME.get(str(name), str(name))
    if wanted not in canonical:
        raise ValueError(f"there is no pool {str(name)[:_SHOWN_NAME]!r} here; there are: {', '.join(pools)}")
    return canonical.index(wanted)


def told_of_strays(placement: Placement, first: str) -> str:
    """What the log says about them; empty if there are none."""
    parts: list[str] = []
    for pool, names in sorted(placement.strays.items()):
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        parts.append(f"{', '.join(sorted(names)[:_SHOWN])}{more} (pool {pool!r})")
    return f"this worker lacks the pool of some tasks, which run in {first}: {'; '.join(parts)}" if parts else ""
