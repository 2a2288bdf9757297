"""The life of a held message, as one table.

Every claim is in exactly one state; nobody but this file sets it, and a step that the table does not know is a bug
that stops there and then instead of losing a task later. States are small integers because millions of steps are
taken; :data:`NAMES` spells them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

HELD: Final = 0  #: received, nothing decided
PARKED: Final = 1  #: kept here until its time, or until whoever has its id is done
READY: Final = 2  #: to be run as soon as there is room
RUNNING: Final = 3  #: given to the executor
FINISHED: Final = 4  #: its outcome is known and being written
SETTLED: Final = 5  #: written, and the broker told
RELEASED: Final = 6  #: given back unstarted
DROPPED: Final = 7  #: decided without running: expired, revoked, quarantined, parked at the broker
LOST: Final = 8  #: the message is no longer ours; if it runs, it runs on

NAMES: Final = ("HELD", "PARKED", "READY", "RUNNING", "FINISHED", "SETTLED", "RELEASED", "DROPPED", "LOST")

TRANSITIONS: Final[dict[int, frozenset[int]]] = {
    HELD: frozenset({PARKED, READY, DROPPED, RELEASED, LOST}),
    # PARKED again: its time has come, and now it waits for something else: another of its id, its rate, the clock
    PARKED: frozenset({PARKED, READY, DROPPED, RELEASED, LOST}),
    READY: frozenset({RUNNING, DROPPED, RELEASED, LOST}),
    # READY again: the executor gave it back unstarted
    RUNNING: frozenset({FINISHED, READY, RELEASED, LOST}),
    FINISHED: frozenset({SETTLED}),
    SETTLED: frozenset(),
    RELEASED: frozenset(),
    DROPPED: frozenset(),
    # RUNNING again: the broker delivered the message anew and the running task adopted it
    LOST: frozenset({RUNNING, FINISHED}),
}

ENDS: Final = frozenset({SETTLED, RELEASED, DROPPED})

_SOURCES: Final = tuple(
    frozenset(source for source, targets in TRANSITIONS.items() if target in targets) for target in range(len(NAMES))
)


class HasState(Protocol):
    """What a claim looks like from here."""

    state: int


class IllegalTransition(AssertionError):
    """A step that the table of claims does not know: a bug in the engine."""


def advance(claim: HasState, to: int) -> None:
    """Take one step. Raises :class:`IllegalTransition`, with the claim as it was."""
    if claim.state not in _SOURCES[to]:
        raise IllegalTransition(f"a claim that is {NAMES[claim.state]} cannot become {NAMES[to]}: {claim!r:.300}")
    claim.state = to


def advance_all(claims: Iterable[HasState], to: int) -> None:
    """Take the same step with every claim; stops at the first that can't, those before it have moved."""
    sources = _SOURCES[to]
    for claim in claims:
        if claim.state not in sources:
            advance(claim, to)
        claim.state = to
