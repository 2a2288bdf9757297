"""Sizes the pool between two limits: grows at once when more tasks want to run than can, shrinks after a quiet time.

It counts what this worker holds and nothing else. Limits and counts are tasks at one time, as with ``-c``; pools whose
processes run many of them change by whole processes.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

from celeriac.executors.base import Resizable

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.clock import Clock
    from celeriac.executors.base import Executor

logger = logging.getLogger("celeriac.worker")

#: seconds between two looks
_LOOK = 0.25


class Load(Protocol):
    """What there is to do; ``Claims`` knows, where there is one pool."""

    def running_ids(self) -> list[str]: ...
    @property
    def ready_count(self) -> int: ...


class Autoscaler:
    """A service; also what the remote command ``autoscale`` talks to."""

    name = "autoscale"

    def __init__(
        self, executor: Executor, claims: Load, per_child: int, most: int, least: int, clock: Clock,
        quiet: float,
    ) -> None:  # fmt: skip
        self._executor = executor
        self._claims = claims
        self._per_child = per_child
        self._clock = clock
        self._quiet = quiet
        self._quiet_since = clock.monotonic()
        #: the most children that were wanted since then
        self._peak = 0
        self.most, self.least = most, least

    async def run(self, started: Callable[[], None]) -> None:
        started()
        self._quiet_since = self._clock.monotonic()
        while True:
            self.look()
            await self._clock.sleep(_LOOK)

    def look(self) -> None:
        """Grow if there is need; shrink if there has been none for long enough."""
        now, children = self._clock.monotonic(), self._children
        wanted = self._wanted(children)
        if wanted > children:
            self._resize(wanted)
            return
        self._peak = max(self._peak, wanted)
        if wanted >= children:
            self._peak = 0
            self._quiet_since = now
        elif now - self._quiet_since >= self._quiet:
            self._resize(self._peak)

    def _wanted(self, children: int) -> int:
        """Children for what is held; one more when all are busy, since the broker may have more than we may hold."""
        running = len(self._claims.running_ids())
        tasks = running + self._claims.ready_count
        wanted = -(-tasks // self._per_child)
        if running >= children * self._per_child:
            wanted = max(wanted, children + 1)
        return min(max(wanted, self._in_children(self.least)), self._in_children(self.most))

    @property
    def _children(self) -> int:
        return self._executor.slots // self._per_child

    def _in_children(self, tasks: int) -> int:
        return max(-(-tasks // self._per_child), 1)

    def _resize(self, children: int) -> None:
        assert isinstance(self._executor, Resizable)
        logger.info("the pool changes from %d to %d processes (autoscale)", self._children, children)
        self._executor.resize(children)
        self._peak = 0
        self._quiet_since = self._clock.monotonic()

    # ── remote control ───────────────────────────────────────────────────────────────────────────────────────

    def update(self, most: int | None, least: int | None) -> tuple[int, int]:
        """New limits, in force at once; what they are now. Raises ``ValueError``."""
        new_most = self.most if most is None else most
        new_least = min(self.least, new_most) if least is None else least
        if not 0 <= new_least <= new_most or new_most < 1:
            raise ValueError("max is at least 1, and min is from 0 to max")
        self.most, self.least = new_most, new_least
        children = self._children
        bounded = min(max(children, self._in_children(new_least)), self._in_children(new_most))
        if bounded != children:
            self._resize(bounded)
        return self.most, self.least

    def change(self, by: int) -> None:
        """The pool is to have so many processes more, or fewer: the limits move out of the way."""
        children = max(self._children + by, 1)
        if by > 0:
            self.most = max(self.most, children * self._per_child)
        else:
            self.least = min(self.least, children * self._per_child)
        self._resize(children)

    def info(self) -> dict[str, Any]:
        """As Celery's ``stats`` show it."""
        return {
            "max": self.most, "min": self.least, "current": self._executor.slots,
            "qty": len(self._claims.running_ids()) + self._claims.ready_count,
        }  # fmt: skip
