"""The states of a task: their names, which of them end it, and which of two is the newer one.

Names and order are Celery's (``celery.states``); they travel in stored results and events.
"""

from __future__ import annotations

from typing import Final

PENDING: Final = "PENDING"  #: unknown id, or not run yet
RECEIVED: Final = "RECEIVED"  #: only in events, never stored
STARTED: Final = "STARTED"
SUCCESS: Final = "SUCCESS"
FAILURE: Final = "FAILURE"
REVOKED: Final = "REVOKED"
REJECTED: Final = "REJECTED"
RETRY: Final = "RETRY"
IGNORED: Final = "IGNORED"

READY_STATES = frozenset({SUCCESS, FAILURE, REVOKED})
UNREADY_STATES = frozenset({PENDING, RECEIVED, STARTED, REJECTED, RETRY})
EXCEPTION_STATES = frozenset({RETRY, FAILURE, REVOKED})
PROPAGATE_STATES = frozenset({FAILURE, REVOKED})
ALL_STATES = frozenset({PENDING, RECEIVED, STARTED, SUCCESS, FAILURE, RETRY, REVOKED})

#: from the one that wins to the one that loses; ``None`` stands for every state of the user's own
PRECEDENCE: tuple[str | None, ...] = (
    SUCCESS, FAILURE, None, REVOKED, STARTED, RECEIVED, REJECTED, RETRY, PENDING,
)  # fmt: skip

_RANK: dict[str | None, int] = {name: index for index, name in enumerate(PRECEDENCE)}
_RANK_OF_CUSTOM = _RANK[None]


def precedence(state: str | None) -> int:
    """The rank of ``state``; a lower number wins."""
    return _RANK.get(state, _RANK_OF_CUSTOM)


class State(str):
    """A state that compares by precedence: ``State('PENDING') < State('SUCCESS')``."""

    __slots__ = ()

    def __gt__(self, other: str) -> bool:
        return precedence(self) < precedence(other)

    def __ge__(self, other: str) -> bool:
        return precedence(self) <= precedence(other)

    def __lt__(self, other: str) -> bool:
        return precedence(self) > precedence(other)

    def __le__(self, other: str) -> bool:
        return precedence(self) >= precedence(other)
