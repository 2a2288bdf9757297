"""The seam of the limiters: what a store must do to count for all workers of a cluster.

Blocking, thread-safe, batches. Nothing is promised to survive a restart of the store: a worker enters the permits of
what runs anew with its next renewal, and a forgotten rate costs one burst. Drivers raise only ``OperationalError`` and
its kin, or ``ImproperlyConfigured``. What was changed while workers run is kept as well as the store keeps things.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from celeriac.rules.counting import GRANTED, UNASKED, Answer, Demand, Granted, Need, Permit, Refused, Unasked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "GRANTED", "UNASKED", "Answer", "Demand", "Granted", "Limiter", "Need", "Permit", "Refused", "Unasked",
]  # fmt: skip


class Limiter(Protocol):
    """Counts. Construct with ``(url, settings, clock, origin)``, ``origin``: the setting that the URL comes from;
    construction does no I/O. The time is that of the store, one for all workers."""

    def take(self, demands: Sequence[Demand], quota: int, lease: float) -> Sequence[Answer]:
        """One answer for each demand, in order; at most ``quota`` are granted.

        Each is granted whole or not at all. Its permits are good for ``lease`` seconds. Asking again for a holder
        that has its permit, after an answer was lost, takes no second one.
        """
        ...

    def renew(self, permits: Sequence[Permit], lease: float) -> Sequence[Permit]:
        """Good for ``lease`` seconds from now. Returns those that had lapsed, which are entered anew: whoever renews
        is at work, and the count has to say so."""
        ...

    def release(self, permits: Sequence[Permit]) -> None:
        """Give them back; what is not there is passed over."""
        ...

    def change(self, counter: str, change: bytes | None) -> None:
        """Keep what the limit with these counters is to be instead of what the code says; None: nothing any more."""
        ...

    def changes(self) -> Mapping[str, bytes]:
        """All that is kept."""
        ...

    def close(self) -> None: ...
