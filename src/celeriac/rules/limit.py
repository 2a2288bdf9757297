"""``Limit``: what users write about how often and how many at one time, cluster-wide; and the same, ready to count.

Pure. Mistakes are ``ImproperlyConfigured`` where the limit is written. :func:`bind` makes it fit a task: which
arguments its key reads, and what its counters are called.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from celeriac.errors import ImproperlyConfigured
from celeriac.rules.counting import Need
from celeriac.rules.limit_keys import Parameters, Selector, parse_path, select, text_of
from celeriac.rules.limits import parse_rate

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BoundLimit", "Limit", "LimitChange", "bind", "limits_of", "same_under_one_name"]

#: a burst that is not given: so many seconds' worth of starts, or high rates could not be reached in batches
_BURST_SECONDS = 0.1


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """How often tasks start and how many run at one time, over all workers.

    ``Limit(rate="100/m", key="args.tenant")``, ``Limit(concurrency=5)``. Give ``rate``, ``concurrency`` or both.
    """

    rate: str | float | None = None  #: starts: ``10/s``, ``10/m``, ``10/h``; a number is per second
    concurrency: int | None = None  #: the most that run at one time
    #: what is counted apart: ``args.tenant``, ``args[0].id``, ``headers.tenant``, or several. None: all calls together
    key: str | tuple[str, ...] | None = None
    #: how many may start at one moment after a pause; None: a tenth of a second's worth, at least 1
    burst: int | None = None
    #: limits with the same name share their counters, whatever task or queue they are on
    name: str | None = None

    def __post_init__(self) -> None:
        if self.rate is None and self.concurrency is None:
            raise ImproperlyConfigured("a Limit needs a rate such as '10/s', a concurrency such as 5, or both")
        _ = self.per_second
        for what, number in (("concurrency", self.concurrency), ("burst", self.burst)):
            if number is not None and (type(number) is not int or number < 1):
                raise ImproperlyConfigured(f"a Limit's {what} is a whole number from 1, not {number!r}")
        if self.burst is not None and self.rate is None:
            raise ImproperlyConfigured("a Limit's burst belongs to a rate, and this one has none")
        name: Any = self.name
        if name is not None and (not isinstance(name, str) or not name):
            raise ImproperlyConfigured(f"a Limit's name is text, not {name!r}")
        _ = self.paths

    @property
    def per_second(self) -> float | None:
        try:
            found = parse_rate(self.rate)
        except ValueError as error:
            raise ImproperlyConfigured(f"a Limit's rate: {error}") from None
        if self.rate is not None and found is None:
            raise ImproperlyConfigured("a Limit's rate is above 0; leave the limit out where there is none")
        return found

    @property
    def paths(self) -> tuple[Any, ...]:
        """The key, taken apart."""
        given: Any = self.key
        texts = () if given is None else given if isinstance(given, tuple | list) else (given,)
        try:
            return tuple(parse_path(text) for text in texts)
        except ValueError as error:
            raise ImproperlyConfigured(f"a Limit's key: {error}") from None


class LimitChange(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a limit is while workers run, instead of what the code says; what is not given is as in the code."""

    rate: str | float | msgspec.UnsetType | None = msgspec.UNSET  #: None: as often as anybody likes
    concurrency: int | msgspec.UnsetType | None = msgspec.UNSET  #: None: as many as anybody likes
    burst: int | msgspec.UnsetType | None = msgspec.UNSET

    def given(self) -> dict[str, Any]:
        """The fields that it says anything of."""
        return {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not msgspec.UNSET}


class BoundLimit(msgspec.Struct, frozen=True):
    """A limit of one task or queue, ready to count."""

    counter: str  #: the name of its counters, without what the key adds
    interval: float  #: 0: no rate
    burst: int
    most: int  #: 0: no concurrency
    selectors: tuple[Selector, ...]
    limit: Limit
    change: LimitChange | None = None  #: why it differs from ``limit``, which the code says

    @property
    def handle(self) -> str:
        """What people call it: ``task/proj.add#0``, ``queue/mail#0``, ``name/api``."""
        return self.counter.replace("|", "#")

    @property
    def values(self) -> dict[str, Any]:
        """Rate, concurrency and burst as they are now."""
        limit = self.limit
        return {"rate": limit.rate, "concurrency": limit.concurrency, "burst": limit.burst} | (
            self.change.given() if self.change else {}
        )

    def changed(self, change: LimitChange | None) -> BoundLimit:
        """The same under other numbers; None: those of the code. Raises ``ImproperlyConfigured``."""
        values = msgspec.structs.replace(self, change=change).values
        if values["rate"] is None:
            values["burst"] = None
        if values["rate"] is None and values["concurrency"] is None:
            return msgspec.structs.replace(self, interval=0.0, burst=1, most=0, change=change)
        interval, burst, most = _numbers(Limit(**values))
        return msgspec.structs.replace(self, interval=interval, burst=burst, most=most, change=change)

    @property
    def reads_arguments(self) -> bool:
        return any(not selector.is_header for selector in self.selectors)

    def needs(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], headers: Mapping[str, Any], known: bool = True
    ) -> list[Need]:  # fmt: skip
        """What a call needs to start. ``known`` False: its arguments cannot be read."""
        key = self.counter
        for selector in self.selectors:
            readable = known or selector.is_header
            key += "|" + (text_of(selector.find(args, kwargs, headers)) if readable else "(unreadable)")
        needs = []
        if self.most:
            needs.append(Need(f"{key}|c", most=self.most))
        if self.interval:
            needs.append(Need(f"{key}|r", interval=self.interval, burst=self.burst))
        return needs


def limits_of(given: object, where: str) -> tuple[Limit, ...]:
    """What is written at ``where``: a limit, a mapping of its fields, or a list of these."""
    if given is None:
        return ()
    if isinstance(given, Limit | Mapping):
        given = (given,)
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ImproperlyConfigured(f"{where}: a list of Limit(...) is wanted, not {given!r}")
    return tuple(_limit(one, where) for one in given)


def _limit(given: object, where: str) -> Limit:
    if isinstance(given, Limit):
        return given
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured(f"{where}: {given!r} is not a Limit(...)")
    options = {str(name): value for name, value in given.items()}
    unknown = sorted(set(options) - set(Limit.__struct_fields__))
    if unknown:
        raise ImproperlyConfigured(
            f"{where}: a limit has no {', '.join(unknown)}; it has {', '.join(Limit.__struct_fields__)}"
        )
    try:
        return Limit(**options)
    except ImproperlyConfigured as error:
        raise ImproperlyConfigured(f"{where}: {error}") from None


def bind(
    limits: Sequence[Limit], where: str, scope: str, parameters: Callable[[], Parameters | None],
    *, strict: bool = True,
) -> tuple[BoundLimit, ...]:  # fmt: skip
    """Make limits fit. ``scope``: whose they are (``task/NAME``, ``queue/NAME``), which names their counters.

    ``strict`` False: a key may name an argument that this task does not have, its value is None then.
    """
    return tuple(_bound(limit, index, where, scope, parameters, strict) for index, limit in enumerate(limits))


def _bound(
    limit: Limit, index: int, where: str, scope: str, parameters: Callable[[], Parameters | None], strict: bool
) -> BoundLimit:
    selectors = []
    for path in limit.paths:
        try:
            selectors.append(select(path, parameters() if path.root != "headers" else None))
        except ValueError as error:
            if strict:
                raise ImproperlyConfigured(f"{where}: {error}") from None
            selectors.append(Selector(None, None, None, ()))
    counter = f"name/{text_of(limit.name)}" if limit.name else f"{scope}|{index}"
    return BoundLimit(counter, *_numbers(limit), tuple(selectors), limit)


def _numbers(limit: Limit) -> tuple[float, int, int]:
    """Interval, burst, most."""
    per_second = limit.per_second
    burst = limit.burst or (max(1, math.floor(per_second * _BURST_SECONDS)) if per_second else 1)
    return 1.0 / per_second if per_second else 0.0, burst, limit.concurrency or 0


def same_under_one_name(bound: Iterable[tuple[str, BoundLimit]]) -> None:
    """Limits that share their counters must say the same. Raises ``ImproperlyConfigured``."""
    known: dict[str, tuple[str, BoundLimit]] = {}
    for where, one in bound:
        if one.limit.name is None:
            continue
        first_where, first = known.setdefault(one.limit.name, (where, one))
        if (first.interval, first.burst, first.most, len(first.selectors)) != (
            one.interval, one.burst, one.most, len(one.selectors),
        ):  # fmt: skip
            raise ImproperlyConfigured(
                f"{where} and {first_where} both have a limit named {one.limit.name!r}, and they differ; limits of one "
                "name share their counters"
            )
