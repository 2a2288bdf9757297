"""The permits that this worker holds: taken for what runs, renewed while it does, given back as soon as it has ended.

No I/O: says what is to be told to the limiter, and remembers it until that has been told.
"""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import TYPE_CHECKING

import msgspec

from celeriac.rules.claim import LOST, READY, RUNNING
from celeriac.rules.counting import Need, Permit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.worker.claims import Claim, Claims

#: seconds until the next try when a renewal has failed
_AGAIN = 1.0
#: permits that are remembered to be given back while the limiter is away; leases end the rest
_MOST_RELEASED = 10_000


class _Holding(msgspec.Struct, gc=False):
    claim: Claim
    permits: list[Permit]


class HeldPermits:
    """By task. Truth value: whether there are any."""

    def __init__(self, claims: Claims, lease: float, now: float) -> None:
        self._claims = claims
        self._lease = lease
        self._renewed_at = now
        self._holdings: dict[str, _Holding] = {}
        #: how many are held here, by counter
        self.counts: Counter[str] = Counter()
        #: to be given back
        self.released: list[Permit] = []

    def __bool__(self) -> bool:
        return bool(self._holdings)

    def add(self, claim: Claim, permits: list[Permit]) -> None:
        """It may start."""
        before = self._holdings.get(claim.id)
        if before is not None:  # it was given back unstarted, and has come again
            self._free(before)
        if permits:
            self._holdings[claim.id] = _Holding(claim, permits)
            self.counts.update(permit.key for permit in permits)

    def ended(self, claims: Sequence[Claim]) -> Sequence[Permit]:
        """These do not run any more; the permits that are free by that."""
        holdings = self._holdings
        if not holdings:
            return ()
        freed: list[Permit] = []
        for claim in claims:
            holding = holdings.get(claim.id)
            if holding is not None and holding.claim is claim:
                freed += self._free(holding)
        return freed

    def sweep(self) -> Sequence[Permit]:
        """Find those of whose end nobody told: given back unstarted, revoked, or gone with their consumer."""
        held = self._claims.held
        freed: list[Permit] = []
        for holding in list(self._holdings.values()):
            claim = holding.claim
            if held.get(claim.id) is not claim or claim.state not in (READY, RUNNING, LOST):
                freed += self._free(holding)
        return freed

    def _free(self, holding: _Holding) -> list[Permit]:
        del self._holdings[holding.claim.id]
        self.released += holding.permits
        for permit in holding.permits:
            self.counts[permit.key] -= 1
            if not self.counts[permit.key]:
                del self.counts[permit.key]
        return holding.permits

    def take_released(self) -> list[Permit]:
        """What is to be given back now."""
        released, self.released = self.released, []
        return released

    def are_due(self, now: float) -> bool:
        """Whether it is time to renew."""
        return now >= self.due_at

    @property
    def due_at(self) -> float:
        """When it is time to renew."""
        return self._renewed_at + self._lease / 3 if self._holdings else inf

    def take_due(self, now: float) -> list[Permit]:
        """What is to be renewed now: everything, or nothing."""
        if not self.are_due(now):
            return []
        self._renewed_at = now
        return self._all()

    def put_back(self, released: list[Permit], renewed: list[Permit], now: float) -> None:
        """The limiter could not be told; perhaps it was, which does no harm."""
        self.released = list(dict.fromkeys([*released, *self.released]))[-_MOST_RELEASED:]
        if renewed:
            self._renewed_at = now + _AGAIN - self._lease / 3

    def take_all(self) -> list[Permit]:
        """Nothing runs here any more."""
        permits = self.released + self._all()
        self.released, self._holdings = [], {}
        self.counts.clear()
        return permits

    def _all(self) -> list[Permit]:
        return [one for holding in self._holdings.values() for one in holding.permits]


def permits_of(needs: Sequence[Need], holder: str) -> list[Permit]:
    """The permits among what a task needs."""
    return [Permit(need.key, holder) for need in needs if need.most]
