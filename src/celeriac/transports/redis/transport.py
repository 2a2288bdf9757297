"""The Redis broker: Celery's own queue lists, with leases, delays, attempts and one transaction for settling.

Celery's producers and workers may use the same queues at the same time. How keys are laid out: ``redis/keys.py``; what
happens to them: ``redis/scripts``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from celeriac.errors import ImproperlyConfigured
from celeriac.redis.address import address_of
from celeriac.redis.checks import OVERRIDE, examine
from celeriac.redis.connect import Links
from celeriac.redis.errors import Translating
from celeriac.redis.keys import Keys
from celeriac.redis.records import Records
from celeriac.redis.revocations import RedisRegistry
from celeriac.transports.base import Capabilities
from celeriac.transports.redis.admin import RedisAdmin
from celeriac.transports.redis.broadcast import RedisBroadcast
from celeriac.transports.redis.consumer import RedisConsumer
from celeriac.transports.redis.household import Household
from celeriac.transports.redis.publisher import RedisPublisher
from celeriac.transports.redis.sending import Bindings, Sorter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.clock import Clock
    from celeriac.settings.check import Finding
    from celeriac.transports.base import QueueSpec
    from celeriac.wire.revocation import News, Revocation

_STRATEGIES = ("round_robin", "priority", "sorted")


class RedisSettings(Protocol):
    """What of the broker settings this driver reads."""

    broker_transport_options: Mapping[str, Any]
    broker_use_ssl: bool | Mapping[str, Any]
    broker_connection_timeout: float
    broker_lease: float
    broker_max_message_bytes: int
    broker_pool_limit: int | None
    task_dead_letter_expires: float
    result_serializer: str
    result_compression: str | None
    result_expires: float | None
    result_failure_expires: float | None


class RedisTransport:
    """A Redis (or Valkey) server as a broker. Construction does no I/O."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        leases=True, delays=True, priorities=4, highest_priority_first=False, fanout=True, counts_attempts=True,
        confirms=True, dead_letters=True, ordered=True, survives_restart=True, celery=True, max_batch=10_000,
        max_body_bytes=380_000_000,  # a value in Redis has 512 MiB, and a body is base64 there
    )  # fmt: skip

    def __init__(self, url: str, settings: RedisSettings, clock: Clock) -> None:
        options = settings.broker_transport_options
        address = address_of(
            url, setting="broker_url", options=options, use_ssl=settings.broker_use_ssl,
            connect_timeout=settings.broker_connection_timeout,
        )  # fmt: skip
        strategy = options.get("queue_order_strategy", _STRATEGIES[0])
        if strategy not in _STRATEGIES:
            raise ImproperlyConfigured(
                f"broker_transport_options: queue_order_strategy is {', '.join(_STRATEGIES[:-1])} or "
                f"{_STRATEGIES[-1]}, not {strategy!r}"
            )
        self.engine_key: tuple[str, ...] = address.engine_key
        self._clock = clock
        self._options = options
        keys = Keys.of({**options, "global_keyprefix": address.keyprefix})
        bindings = Bindings(keys)
        self._house = Household(
            address=address,
            keys=keys,
            links=Links(address),
            sorter=Sorter(keys, bindings, settings.broker_max_message_bytes),
            bindings=bindings,
            records=Records(settings, address.keyprefix),
            translating=Translating("broker", "broker_url", str(address)),
            lease=settings.broker_lease,
            max_bytes=settings.broker_max_message_bytes,
            dead_letter_expires=settings.task_dead_letter_expires,
            strategy=strategy,
            kept=[],
        )
        self._registry = RedisRegistry(self._house.links, address.keyprefix)

    def publisher(self) -> RedisPublisher:
        house = self._house
        return RedisPublisher(Links(house.address), house.keys, house.sorter, house.translating)

    def consumer(self, queues: Sequence[QueueSpec], owner: str) -> RedisConsumer:
        return RedisConsumer(self._house, [queue.name for queue in queues], owner, self._clock)

    def admin(self) -> RedisAdmin:
        house = self._house
        return RedisAdmin(house.links, house.keys, house.bindings, house.translating, self._options, self._clock)

    def broadcast(self) -> RedisBroadcast:
        house = self._house
        return RedisBroadcast(house.address, house.keys, house.max_bytes, house.translating, self._options)

    def examine(self) -> Sequence[Finding]:
        """Whether the server is fit to be a broker: see ``redis/checks.py``."""
        house, option = self._house, self._options.get(OVERRIDE)
        return examine(house.address, "broker", house.translating, eviction_allowed=bool(option))

    def add_revocations(self, entries: Sequence[Revocation], kept: float) -> None:
        with self._house.translating:
            self._registry.add(entries, kept)

    def read_revocations(self, mark: int, limit: int) -> News:
        with self._house.translating:
            return self._registry.read(mark, limit)

    def close(self) -> None:
        """Publishers and consumers close their own connections."""
        self._house.links.close()
