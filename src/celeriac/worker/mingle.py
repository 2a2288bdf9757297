"""Asks the neighbours, when the worker starts, what is revoked, and how far the logical clock has come.

Celery's ``hello``: its workers answer, and ours. Where there is a registry this happens beside the work, for the sake
of neighbours that know of none; where there is none, no message is taken before they had their second to answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from celeriac.client.remote import Channel, Question, Remote
from celeriac.errors import CeleriacError
from celeriac.worker.lane import Lane

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.worker.commands.state import WorkerState

logger = logging.getLogger("celeriac.worker")

#: seconds without another answer after which there is none to come, where work waits for it (Celery's number)
_TIMEOUT = 1.0
#: and where it does not
_LONG_TIMEOUT = 5.0
#: seconds that the worker waits for it, where it has to
_PATIENCE = 5.0


class Mingle:
    """A service that ends when the neighbours had their say."""

    name = "mingle"

    def __init__(self, state: WorkerState, listening: asyncio.Event) -> None:
        self._state = state
        self._listening = listening
        self._is_over = asyncio.Event()

    async def run(self, started: Callable[[], None]) -> None:
        started()
        # what is revoked from now on is heard; before, it would fall between two chairs
        await self._listening.wait()
        lane = Lane("celeriac-mingle")
        try:
            self._take_over(await lane.run(self._ask))
        except CeleriacError as error:
            logger.warning("the neighbours could not be asked what is revoked: %s", error)
        finally:
            lane.close()
            self._is_over.set()

    async def before_work(self) -> None:
        """Wait for it, a while at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._is_over.wait()

    def _ask(self) -> list[dict[str, Any]]:
        state = self._state
        # what stands in the registry, others know from there
        known = state.admission.revoked.newest() if state.revocations is None else []
        timeout = _TIMEOUT if state.revocations is None else _LONG_TIMEOUT
        channel = Channel.of(state.settings)
        remote = Remote(lambda: state.transport, lambda: channel, state.lamport, state.clock)
        try:
            return remote.ask(
                Question(method="hello", arguments={"from_node": state.hostname, "revoked": known}, timeout=timeout)
            )
        finally:
            remote.close()

    def _take_over(self, replies: Iterable[Mapping[str, Any]]) -> None:
        state = self._state
        nodes, before = 0, len(state.admission.revoked)
        for reply in replies:
            for node, said in reply.items():
                if node == state.hostname or not isinstance(said, Mapping):
                    continue
                nodes += 1
                revoked, clock = said.get("revoked"), said.get("clock")
                if isinstance(revoked, Mapping | list | tuple):
                    state.learn(revoked)
                if isinstance(clock, int):
                    state.lamport.adjust(clock)
        learned = len(state.admission.revoked) - before
        logger.info("mingle: %d neighbours, %d revoked tasks taken over from them", nodes, learned)
