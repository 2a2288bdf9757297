"""The worker's side of the registry of revocations: reads it before it takes messages and whenever there may be
something new, and writes down what the worker hears from elsewhere.

Remote control is the quick way, the registry is the truth: it reaches workers that were down, or out of touch, when a
task was revoked. One short look every few seconds; a registry that is away stops nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING

from celeriac.errors import CeleriacError
from celeriac.worker.lane import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celeriac.clock import Clock
    from celeriac.results.base import Revocation, Revocations
    from celeriac.worker.cancelling import Cancelling

logger = logging.getLogger("celeriac.worker")

#: seconds between two looks
_INTERVAL = 5.0
#: seconds that a worker waits for the registry before it takes messages without having read it
_PATIENCE = 10.0
#: entries read at one time
_PAGE = 5000
#: entries that wait to be written; beyond that the oldest are given up
_MOST_UNWRITTEN = 100_000


class RevocationWatch:
    """The service. :meth:`look` and :meth:`before_work` may be awaited by others too."""

    name = "revocations"

    def __init__(self, registry: Revocations, cancelling: Cancelling, clock: Clock) -> None:
        self._registry = registry
        self._cancelling = cancelling
        self._clock = clock
        self._lane = Lane("celeriac-revocations")
        self._turn = asyncio.Lock()
        self._mark = 0
        #: what is to be written → (seconds it is kept, whether it was said long ago: somebody remembers it)
        self._unwritten: dict[Revocation, tuple[float, bool]] = {}
        self._wake = asyncio.Event()
        self._is_failing = False
        #: when the registry was read to its end for the first time
        self.was_read = asyncio.Event()

    async def run(self, started: Callable[[], None]) -> None:
        started()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_INTERVAL):
                    await self._wake.wait()
            self._wake.clear()
            self._cancelling.revoked.tidy()
            # until somebody has had contact, there is no use in asking and nothing to say about it
            if self.was_read.is_set() or self._unwritten:
                await self._try()

    async def before_work(self) -> None:
        """Read it; a while at most."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._try()
        except TimeoutError:
            logger.warning("what is revoked could not be read within %g s; it is read as soon as it can be", _PATIENCE)
        self.was_read.set()

    async def _try(self) -> None:
        try:
            await self.look()
            await self._write()
        except CeleriacError as error:
            log = logger.debug if self._is_failing else logger.warning
            self._is_failing = True
            log("the registry of revoked tasks does not answer: %s", error)
        else:
            self._is_failing = False

    async def look(self) -> None:
        """Read what is new. Raises what the driver raises."""
        async with self._turn:
            more = True
            while more:
                news = await self._lane.run(partial(self._registry.read_revocations, self._mark, _PAGE))
                self._mark, more = news.mark, news.more
                # an order that this worker has heard and not written down yet is the later word
                standing = [one for one in news.standing if not self._is_outdone(one.entry)]
                if standing:
                    self._cancelling.obey(standing)

    def _is_outdone(self, entry: Revocation) -> bool:
        return bool(self._unwritten) and any(
            not self._unwritten.get(other, (0.0, True))[1] for other in entry.replaced
        )  # fmt: skip

    def look_soon(self) -> None:
        """There may be something new."""
        self._wake.set()

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────

    def record(self, entries: Sequence[Revocation], kept: float | None = None, *, remembered: bool = False) -> None:
        """Write them down soon; again and again while the registry is away.

        ``remembered``: nobody says so now, but somebody did; what was taken back since stays so.
        """
        seconds = self._cancelling.revoked.kept if kept is None else kept
        for entry in entries:
            for other in entry.replaced:
                self._unwritten.pop(other, None)
            self._unwritten[entry] = (seconds, remembered)
        while len(self._unwritten) > _MOST_UNWRITTEN:
            del self._unwritten[next(iter(self._unwritten))]
        self._wake.set()

    async def _write(self) -> None:
        is_pardoned = self._cancelling.revoked.is_pardoned
        while self._unwritten:
            part = dict(list(self._unwritten.items())[:_PAGE])
            entries = [
                entry for entry, (_, remembered) in part.items()
                if not (remembered and is_pardoned(entry.header, entry.value))
            ]  # fmt: skip
            if entries:
                kept = max(seconds for seconds, _ in part.values())
                await self._lane.run(partial(self._registry.add_revocations, entries, kept))
            for entry, said in part.items():
                if self._unwritten.get(entry) is said:
                    del self._unwritten[entry]

    async def close(self, patience: float) -> None:
        """The service has stopped: write what is left."""
        with contextlib.suppress(CeleriacError, TimeoutError):
            async with asyncio.timeout(patience):
                await self._write()
        self._lane.close()
