"""Asks broker and result store, at the start, whether their servers are fit for their use; a worker refuses one that
loses work by design. What is only unwise is logged. A server that is away is asked when it is there."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from celeriac.errors import BackendError, ImproperlyConfigured, OperationalError
from celeriac.rules.retry import reconnect_delay
from celeriac.settings.check import Examines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from celeriac.clock import Clock
    from celeriac.worker.lane import Lane

logger = logging.getLogger("celeriac.worker")


class Examination:
    """A service that ends when every driver has been asked."""

    name = "examination"

    def __init__(self, drivers: Sequence[object], lane: Lane, clock: Clock, random: Random) -> None:
        self._left = [driver for driver in drivers if isinstance(driver, Examines)]
        self._lane = lane
        self._clock = clock
        self._random = random
        self._said: set[str] = set()

    async def run(self, started: Callable[[], None]) -> None:
        failures = 0
        while True:
            for driver in list(self._left):
                await self._ask(driver)
            started()  # the worker need not wait for a server that is away; its session says so
            if not self._left:
                return
            failures += 1
            await self._clock.sleep(reconnect_delay(failures, self._random))

    async def _ask(self, driver: Examines) -> None:
        try:
            findings = await self._lane.run(driver.examine)
        except (OperationalError, BackendError):
            return
        self._left.remove(driver)
        for finding in findings:
            if finding.text in self._said:  # one server is both
                continue
            self._said.add(finding.text)
            if finding.level == "error":
                raise ImproperlyConfigured(f"{finding.setting}: {finding.text}")
            logger.log(logging.WARNING if finding.level == "warning" else logging.INFO, finding.text)
