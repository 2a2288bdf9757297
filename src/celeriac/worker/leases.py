"""Keeps held messages ours: renews everything unsettled every third of a lease, in batches.

Runs on the worker's own loop, where no user code can hold it up (semantics D2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from celeriac import telemetry
from celeriac.errors import OperationalError
from celeriac.rules.claim import ENDS, FINISHED

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.clock import Clock
    from celeriac.transports.base import Receipt
    from celeriac.worker.claims import Claim, Claims
    from celeriac.worker.session import Session

#: the most receipts one renewal carries
_BATCH = 1000
#: what becomes of their messages is told by the settlement, which may have been quicker than this renewal
_BEING_SETTLED = ENDS | {FINISHED}


class Leases:
    """Renews."""

    name = "leases"

    def __init__(self, session: Session, claims: Claims, lease: float, clock: Clock) -> None:
        self._session = session
        self._claims = claims
        self._lease = lease
        self._clock = clock
        self.lost = 0

    async def run(self, started: Callable[[], None]) -> None:
        started()
        while True:
            await self._clock.sleep(self._lease / 3)
            await self.renew()

    async def renew(self) -> None:
        """Renew everything once."""
        consumer = await self._session.consumer()
        epoch = self._session.epoch
        by_receipt: dict[Receipt, Claim] = {claim.receipt: claim for claim in self._claims.unsettled()}
        receipts = list(by_receipt)
        for start in range(0, len(receipts), _BATCH):
            try:
                lost = await consumer.renew(receipts[start : start + _BATCH])
            except OperationalError as error:
                self._session.fail(epoch, error)
                return
            for receipt in lost:
                self._lose(by_receipt[receipt], receipt)

    def _lose(self, claim: Claim, receipt: Receipt) -> None:
        if claim.receipt != receipt or claim.state in _BEING_SETTLED:
            return  # settled or adopted while the renewal was under way
        self._claims.mark_lost(claim)
        self.lost += 1
        telemetry.emit(telemetry.LeaseWasLost(id=claim.id, name=claim.request.task))
