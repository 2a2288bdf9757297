"""Several pools as one executor: every request goes to the pool of its task.

Whoever fills it must ask for the room of each pool (:meth:`rooms`): what is submitted beyond that waits in a pool, with
nothing to take its place. Each pool keeps its own processes, limits and losses; nothing of one reaches another.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from celeriac.executors.base import Condition, Examinable, Inspectable, Recalls, Renewable, Spares

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from celeriac.executors.base import Cancel, Executor, InWork, Outcome, Request


class SeveralPools:
    """An executor. ``places``: the pool of each task that does not run in the first, by name."""

    def __init__(self, names: Sequence[str], pools: Sequence[Executor], places: Mapping[str, int]) -> None:
        self.names = tuple(names)
        self.pools = tuple(pools)
        self._places = places
        self._ended: list[Outcome] = []
        self._collecting: list[asyncio.Task[None]] = []
        self._failure: BaseException | None = None
        self._wake: asyncio.Event

    # ── the seam ─────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """All at one time: what forks does so before the others have anything that could be inherited."""
        self._wake = asyncio.Event()
        starting = [asyncio.ensure_future(pool.start()) for pool in self.pools]
        try:
            await asyncio.gather(*starting)
        except BaseException:
            await self._give_up(starting)
            raise
        self._collecting = [asyncio.ensure_future(self._collect(pool)) for pool in self.pools]

    async def _give_up(self, starting: Sequence[asyncio.Task[None]]) -> None:
        """One cannot start, so none is to stay."""
        for task in starting:
            task.cancel()
        await asyncio.wait(starting)
        started = [
            pool
            for pool, task in zip(self.pools, starting, strict=True)
            if not task.cancelled() and task.exception() is None
        ]
        await asyncio.gather(*(pool.stop(0.0) for pool in started), return_exceptions=True)

    @property
    def slots(self) -> int:
        return sum(pool.slots for pool in self.pools)

    def place(self, task: str) -> int:
        return self._places.get(task, 0)

    def rooms(self) -> list[int]:
        return [pool.room() for pool in self.pools]

    def room(self) -> int:
        return sum(max(room, 0) for room in self.rooms())

    def submit(self, batch: Sequence[Request]) -> None:
        batches: list[list[Request]] = [[] for _ in self.pools]
        for request in batch:
            batches[self.place(request.task)].append(request)
        for pool, part in zip(self.pools, batches, strict=True):
            if part:
                pool.submit(part)

    async def outcomes(self) -> Sequence[Outcome]:
        while not self._ended:
            if self._failure is not None:
                raise self._failure
            if all(task.done() for task in self._collecting):
                return ()
            self._wake.clear()
            await self._wake.wait()
        ended, self._ended = self._ended, []
        return ended

    async def _collect(self, pool: Executor) -> None:
        """Until it has stopped and told everything."""
        try:
            while outcomes := await pool.outcomes():
                self._ended.extend(outcomes)
                self._wake.set()
        except Exception as error:  # it cannot go on: whoever waits for outcomes is told
            self._failure = error
        finally:
            # not before this task counts as done
            asyncio.get_running_loop().call_soon(self._wake.set)

    def cancel(self, task_id: str, how: Cancel) -> bool:
        return any(pool.cancel(task_id, how) for pool in self.pools)

    async def stop(self, grace: float) -> Sequence[Request]:
        return _joined(await asyncio.gather(*(pool.stop(grace) for pool in self.pools)))

    # ── what pools may have besides; one that lacks it is passed over ────────────────────────────────────────────

    async def recall(self) -> Sequence[Request]:
        return _joined(await asyncio.gather(*(pool.recall() for pool in self.pools if isinstance(pool, Recalls))))

    def spare(self, is_wanted: Callable[[Request], bool]) -> Sequence[Request]:
        return _joined([pool.spare(is_wanted) for pool in self.pools if isinstance(pool, Spares)])

    def in_work(self) -> Sequence[InWork]:
        return [work for pool in self.pools if isinstance(pool, Inspectable) for work in pool.in_work()]

    def processes(self) -> Sequence[int]:
        return [pid for pool in self.pools if isinstance(pool, Inspectable) for pid in pool.processes()]

    def condition(self) -> Condition:
        """A pool without a process is not made up for by the processes of another."""
        conditions = [pool.condition() for pool in self.pools if isinstance(pool, Examinable)]
        if not conditions:
            return Condition(1, 0)  # the worker's own, since nobody says
        lacks = any(one.processes == 0 for one in conditions)
        return Condition(
            0 if lacks else sum(one.processes for one in conditions), sum(one.stalled for one in conditions)
        )

    def renew(self, reload: bool) -> None:
        for pool in self.pools:
            if isinstance(pool, Renewable):
                pool.renew(reload)


def _joined(parts: Sequence[Sequence[Request]]) -> list[Request]:
    return [request for part in parts for request in part]
