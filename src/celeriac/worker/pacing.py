"""Rate limits of this worker: Celery's ``rate_limit``, per task and worker.

Decided before dispatch. A message whose turn comes later waits at the broker, or here if that is soon; it takes no
slot and no prefetch from others meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from celeriac.rules.limits import Pace, parse_rate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celeriac.worker.claims import Claim, TaskFacts

#: seconds; what may start sooner is kept here
SOON = 5.0
#: the longest, in seconds, that a message is away at the broker, so that a limit that is lifted is soon felt
AWAY = 60.0


class Pacing:
    """The limits in force. ``is_on`` False: nothing is limited, and nobody need ask."""

    def __init__(self, tasks: Mapping[str, TaskFacts], enabled: bool) -> None:
        self._paces: dict[str, Pace] = {}
        self._enabled = enabled
        for name, facts in tasks.items():
            if facts.options.rate_limit is not None:
                self.limit(name, facts.options.rate_limit)

    @property
    def is_on(self) -> bool:
        return bool(self._paces)

    def limit(self, name: str, rate: str | float | None) -> None:
        """Change a task's limit from now on; None or 0 lifts it. Raises ``ValueError`` for what is no rate."""
        per_second = parse_rate(rate)
        self._paces.pop(name, None)
        if per_second is not None and self._enabled:
            self._paces[name] = Pace(per_second)

    def start_of(self, claim: Claim, now: float) -> float:
        """When the claim may start; ``now``: at once."""
        pace = self._paces.get(claim.request.task)
        return now if pace is None else max(now, pace.slot(claim.id, now))
