"""Gives back what has waited here behind tasks that turned out to be long: others may be idle.

How many messages to hold ahead follows from how short tasks have been, so the first long ones find too many here.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from celeriac.executors.base import Spares
from celeriac.rules.claim import RUNNING
from celeriac.transports.base import RELEASE

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.clock import Clock
    from celeriac.executors.base import Executor, Request
    from celeriac.worker.claims import Claim, Claims
    from celeriac.worker.dispatch import Dispatch
    from celeriac.worker.intake import Intake
    from celeriac.worker.settle import Settle

logger = logging.getLogger("celeriac.worker")

#: seconds in which nothing has started or ended here: then what waits may as well wait at the broker
_STILL = 1.0


class Hoard:
    """Looks once in a while."""

    name = "hoard"

    def __init__(
        self, intake: Intake, dispatch: Dispatch, settle: Settle, claims: Claims, executor: Executor, clock: Clock
    ) -> None:  # fmt: skip
        self._intake = intake
        self._dispatch = dispatch
        self._settle = settle
        self._claims = claims
        self._executor = executor
        self._clock = clock
        self._seen = (-1, -1)

    async def run(self, started: Callable[[], None]) -> None:
        started()
        while True:
            await self._clock.sleep(_STILL)
            self.look()

    def look(self) -> None:
        """Look once."""
        seen = (self._dispatch.handed, self._settle.settled + self._settle.backlog)
        is_still = seen == self._seen
        self._seen = seen
        if not is_still or self._dispatch.paused or self._intake.is_stopping or not self._claims.running_ids():
            return
        claims = self._spared(self._may_go_back)
        surplus = self._claims.ready_count - self._intake.ahead()
        if surplus > 0:
            claims = self._claims.take_newest(surplus) + claims
        if not claims:
            return
        for claim in claims:
            claim.verdict = RELEASE
        logger.info("gave back %d messages that waited for %.0f s behind long tasks", len(claims), _STILL)
        self._settle.add_released(claims)
        self._seen = (-1, -1)

    def _spared(self, is_wanted: Callable[[Request], bool]) -> list[Claim]:
        """Of what the executor has taken and not given to a child. What is acknowledged, or has failed before it
        started, stays: its end comes from the executor."""
        if not isinstance(self._executor, Spares):
            return []
        held = self._claims.held
        return [self._claims.put_back(held[request.id]) for request in self._executor.spare(is_wanted)]

    def _may_go_back(self, request: Request) -> bool:
        claim = self._claims.held.get(request.id)
        return claim is not None and claim.state == RUNNING and claim.receipt is not None and request.failure is None
