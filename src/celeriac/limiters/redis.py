"""Counters in Redis or Valkey, by scripts: one call decides about a batch, by the server's clock.

All counters of an app are in one slot of a cluster, as everything of ours is (``global_keyprefix`` has a hash tag), so
that a start can be counted by several limits at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from celeriac.redis.address import address_of
from celeriac.redis.connect import Links
from celeriac.redis.errors import Fault, LinkBroken, Translating
from celeriac.redis.keys import Keys
from celeriac.redis.scripts import script
from celeriac.redis.store import StoreSettings, store_address
from celeriac.rules.counting import GRANTED, UNASKED, Answer, Demand, Permit, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from celeriac.clock import Clock
    from celeriac.redis.address import Address
    from celeriac.redis.connect import Argument, Link
    from celeriac.redis.scripts import Script

_TAKE, _RENEW, _RELEASE = script("limit_take"), script("limit_renew"), script("limit_release")
#: starts, permits that one call is about: the server does nothing else meanwhile
_STARTS, _PERMITS = 500, 2000


class _Settings(StoreSettings, Protocol):
    """What the limiter reads; which of it, that depends on where the URL comes from."""

    @property
    def broker_transport_options(self) -> Mapping[str, Any]: ...
    @property
    def broker_use_ssl(self) -> bool | Mapping[str, Any]: ...
    @property
    def broker_connection_timeout(self) -> float: ...


def _address(url: str, settings: _Settings, origin: str) -> Address:
    if origin != "broker_url":
        return store_address(url, settings, origin)
    return address_of(
        url, setting=origin, options=settings.broker_transport_options, use_ssl=settings.broker_use_ssl,
        connect_timeout=settings.broker_connection_timeout,
    )  # fmt: skip


class RedisLimiter:
    """Counts for all workers that use the same Redis and prefix. Construction does no I/O; thread-safe, fork-safe."""

    def __init__(self, url: str, settings: _Settings, clock: Clock, origin: str = "task_limit_store") -> None:
        address = _address(url, settings, origin)
        self._links = Links(address)
        self._keys = Keys(address.keyprefix)
        self._translating = Translating("broker", origin, str(address))

    def take(self, demands: Sequence[Demand], quota: int, lease: float) -> Sequence[Answer]:
        answers: list[Answer] = []
        for start in range(0, len(demands), _STARTS):
            part = demands[start : start + _STARTS]
            numbers = _numbers(need.key for demand in part for need in demand.needs)
            arguments: list[Argument] = [max(0, quota), _microseconds(lease)]
            for demand in part:
                arguments += (demand.holder, len(demand.needs))
                for need in demand.needs:
                    arguments += (numbers[need.key], repr(need.interval * 1e6), need.burst, need.most)
            found = self._run(_TAKE, numbers, arguments)
            told = [
                _answer(demand, need, number)
                for demand, need, number in zip(part, found[::2], found[1::2], strict=True)
            ]
            quota -= sum(answer is GRANTED for answer in told)
            answers += told
        return answers

    def renew(self, permits: Sequence[Permit], lease: float) -> Sequence[Permit]:
        lapsed: list[Permit] = []
        for start in range(0, len(permits), _PERMITS):
            part = permits[start : start + _PERMITS]
            numbers = _numbers(permit.key for permit in part)
            arguments: list[Argument] = [_microseconds(lease)]
            for permit in part:
                arguments += (numbers[permit.key], permit.holder)
            lapsed += [part[number - 1] for number in self._run(_RENEW, numbers, arguments)]
        return lapsed

    def release(self, permits: Sequence[Permit]) -> None:
        for start in range(0, len(permits), _PERMITS):
            part = permits[start : start + _PERMITS]
            numbers = _numbers(permit.key for permit in part)
            arguments: list[Argument] = []
            for permit in part:
                arguments += (numbers[permit.key], permit.holder)
            self._run(_RELEASE, numbers, arguments)

    def change(self, counter: str, change: bytes | None) -> None:
        if change is None:
            self._ask(lambda link: link.call("HDEL", self._keys.limit_changes, counter))
        else:
            self._ask(lambda link: link.call("HSET", self._keys.limit_changes, counter, change))

    def changes(self) -> Mapping[str, bytes]:
        found = self._ask(lambda link: link.call("HGETALL", self._keys.limit_changes))
        if isinstance(found, Mapping):  # RESP3
            found = [part for pair in found.items() for part in pair]
        return {name.decode("utf-8", "replace"): value for name, value in zip(found[::2], found[1::2], strict=True)}

    def _run(self, called: Script, numbers: Mapping[str, int], arguments: Sequence[Argument]) -> Any:
        keys = [self._keys.limit(key) for key in numbers]
        return self._ask(lambda link: called.run(link, keys, arguments))

    def _ask(self, question: Callable[[Link], Any]) -> Any:
        """Once more after a connection that was idle turned out to be dead: what may have been counted then counts
        twice at the worst, and permits not even that."""
        with self._translating:
            with self._links.borrow() as link:
                try:
                    return question(link)
                except LinkBroken as error:
                    if not link.reused or error.fault is not Fault.UNREACHABLE:
                        raise
            with self._links.borrow() as fresh:
                return question(fresh)

    def close(self) -> None:
        self._links.close()


def _numbers(keys: Iterable[str]) -> dict[str, int]:
    """key → its number among the KEYS of a call, from 1."""
    numbers: dict[str, int] = {}
    for key in keys:
        numbers.setdefault(key, len(numbers) + 1)
    return numbers


def _microseconds(seconds: float) -> int:
    return max(1, round(seconds * 1e6))


def _answer(demand: Demand, need: int, number: int) -> Answer:
    if need == 0:
        return GRANTED
    if need < 0:
        return UNASKED
    return Refused(need - 1, 0.0, number) if demand.needs[need - 1].most else Refused(need - 1, number / 1e6)
