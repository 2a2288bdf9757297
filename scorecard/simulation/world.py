"""What all parts of a simulation share: the time, the dice, the trace, the hosts, and what goes wrong between them."""

from __future__ import annotations

import asyncio
from contextvars import Context
from datetime import UTC, datetime
from hashlib import blake2b
from random import Random
from typing import TYPE_CHECKING, Literal, NoReturn, TypeVar

from scorecard.simulation.loop import Killed, Machine, SimulatedLoop

if TYPE_CHECKING:
    from collections.abc import Callable

    from scorecard.simulation.ledger import Ledger

#: seconds since the epoch when a simulation begins
EPOCH = 1_800_000_000.0
#: calls at broker, store and limiter above which somebody spins
MOST_CALLS = 60_000

Fate = Literal["well", "fails before", "fails after", "dies before", "dies after"]
Value = TypeVar("Value")


class Trouble(Exception):
    """A call did not come back as it should."""


class Broken(AssertionError):
    """An invariant does not hold."""


class Host(Machine):
    """A machine with a clock of its own and a line to the servers."""

    def __init__(self, name: str, world: World) -> None:
        super().__init__(name)
        self.world = world
        self.skew = 0.0  #: seconds that its wall clock is ahead
        self.cut_until = 0.0  #: until then its line is dead
        self.troubled_at = -1.0  #: when something last went wrong between it and the servers
        #: dies in this call from now, before or after its effect
        self.dies_in: tuple[int, Fate] | None = None

    # the Clock that its worker gets
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time(), UTC)

    def time(self) -> float:
        return EPOCH + self.world.loop.time() + self.skew

    def monotonic(self) -> float:
        return self.world.loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class World:
    """One run. Everything that is left to chance comes from ``random``."""

    def __init__(self, seed: int, shows: bool = False) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.loop = SimulatedLoop(Random(seed + 1))
        self.shows = shows
        self.trace: list[tuple[float, str, str, str]] = []
        self.error_rate = 0.0  #: how many calls fail
        self.latency = 0.001
        self.calls = 0
        self.is_over = False
        self.error: Broken | None = None  #: the first
        self.ledger: Ledger
        self.on_death: Callable[[Host], None] = lambda host: None

    def note(self, who: str, what: str, detail: object = "") -> None:
        """A line of the trace."""
        line = (self.loop.time(), who, what, str(detail))
        self.trace.append(line)
        if self.shows:
            print(f"{line[0]:9.4f}  {who:8} {what:12} {detail}")

    def fingerprint(self) -> str:
        """Equal where everything happened alike."""
        return blake2b(repr(self.trace).encode(), digest_size=16).hexdigest()

    @property
    def wall(self) -> float:
        """The clock of the servers."""
        return EPOCH + self.loop.time()

    async def call(self, host: Host, name: str, effect: Callable[[], Value]) -> Value:
        """A call over the line: raises ``Trouble`` instead of, or after, its effect."""
        await self._travel()
        fate = self._fate(host, name)
        if fate == "dies before":
            self.kill(host)
            await self._never()
        if fate == "fails before":
            await asyncio.sleep(self.random.uniform(0.0, 0.5))
            raise Trouble(f"{name}: the line is dead")
        value = effect()
        if fate == "dies after":
            self.kill(host)
            await self._never()
        await self._travel()
        if fate == "fails after":
            raise Trouble(f"{name}: the answer is lost")
        return value

    def call_now(self, host: Host, name: str, effect: Callable[[], Value]) -> Value:
        """The same for a driver that blocks; its lane lets time pass."""
        fate = self._fate(host, name)
        if fate == "dies before":
            self.kill(host)
            raise Killed
        if fate == "fails before":
            raise Trouble(f"{name}: the line is dead")
        value = effect()
        if fate == "dies after":
            self.kill(host)
            raise Killed
        if fate == "fails after":
            raise Trouble(f"{name}: the answer is lost")
        return value

    def _fate(self, host: Host, name: str) -> Fate:
        self.calls += 1
        if self.calls > MOST_CALLS:
            self.end(Broken(f"somebody spins: {self.calls} calls, the last a {name} of {host.name}"))
        if host.is_dead or self.is_over:
            raise Killed
        if self.loop.time() < host.cut_until:
            return self._trouble(host, name, "fails before")
        if host.dies_in is not None:
            left, when = host.dies_in
            host.dies_in = None if left <= 0 else (left - 1, when)
            if left <= 0:
                return self._trouble(host, name, when)
        if self.error_rate and self.random.random() < self.error_rate:
            return self._trouble(host, name, self.random.choice(("fails before", "fails after")))
        return "well"

    def _trouble(self, host: Host, name: str, fate: Fate) -> Fate:
        host.troubled_at = self.loop.time()
        self.note(host.name, "trouble", f"{name} {fate}")
        return fate

    def end(self, error: Broken) -> NoReturn:
        """The run is over, whoever catches this."""
        if self.error is None:
            self.error = error
            self.note("world", "BROKEN", error)
            self.loop.call_soon(self.loop.stop, context=Context())
        raise error

    def kill(self, host: Host) -> None:
        """As SIGKILL does."""
        if not host.is_dead:
            self.note(host.name, "killed")
            self.loop.kill(host)
            self.ledger.host_died(host)
            self.on_death(host)

    async def _travel(self) -> None:
        await asyncio.sleep(self.latency * (0.5 + self.random.random()))

    async def _never(self) -> None:
        await self.loop.create_future()
