"""The simulated limiter: counts for all workers, over a line that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celeriac.errors import OperationalError
from celeriac.rules.counting import Granted, Lease, decide
from scorecard.simulation.world import Trouble

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celeriac.rules.counting import Answer, Demand, Permit, Tables
    from scorecard.simulation.ledger import Ledger
    from scorecard.simulation.world import Host


class SimulatedLimiter:
    """One host's way to what counts for all of them."""

    def __init__(self, tables: Tables, ledger: Ledger, host: Host) -> None:
        self._tables, self._ledger, self._host, self._world = tables, ledger, host, host.world

    def _call(self, name: str, effect: Any) -> Any:
        try:
            return self._world.call_now(self._host, name, effect)
        except Trouble as error:
            raise OperationalError(str(error)) from None

    def take(self, demands: Sequence[Demand], quota: int, lease: float) -> Sequence[Answer]:
        def effect() -> Sequence[Answer]:
            answers = decide(demands, quota, self._world.loop.time(), lease, self._tables)
            for demand, answer in zip(demands, answers, strict=True):
                if isinstance(answer, Granted):
                    task_id = demand.holder.partition("/")[0]
                    self._ledger.grants[self._ledger.jobs[task_id].task] += 1
            return answers

        answers: Sequence[Answer] = self._call("take", effect)
        return answers

    def renew(self, permits: Sequence[Permit], lease: float) -> Sequence[Permit]:
        def effect() -> list[Permit]:
            now, lapsed = self._world.loop.time(), []
            for permit in permits:
                held = self._tables.permits.setdefault(permit.key, {})
                if permit.holder not in held or not held[permit.holder].is_good(now):
                    lapsed.append(permit)
                held[permit.holder] = Lease(now, now + lease)
            return lapsed

        lapsed: Sequence[Permit] = self._call("renew permits", effect)
        return lapsed

    def release(self, permits: Sequence[Permit]) -> None:
        def effect() -> None:
            for permit in permits:
                self._tables.permits.get(permit.key, {}).pop(permit.holder, None)

        self._call("release", effect)

    def change(self, counter: str, change: bytes | None) -> None:
        """Nobody changes limits here."""
        raise NotImplementedError

    def changes(self) -> Mapping[str, bytes]:
        return {}

    def close(self) -> None:
        pass
