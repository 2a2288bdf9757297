"""Sends: one script call, one round trip for a batch of any shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celeriac.errors import BrokerUnavailable, PublishRejected, PublishTimeout, PublishUnknown
from celeriac.redis.connect import Links
from celeriac.redis.errors import Fault, LinkBroken, ReplyError, Translating, describe, fault_of
from celeriac.redis.scripts import script
from celeriac.transports.redis.sending import Nonces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.redis.connect import Argument, Link
    from celeriac.redis.keys import Keys
    from celeriac.transports.base import Outgoing
    from celeriac.transports.redis.sending import Sorter

_PUSH = script("push")


class RedisPublisher:
    """Sends. Blocking, thread-safe, fork-safe: threads use connections of their own from a small store."""

    def __init__(self, links: Links, keys: Keys, sorter: Sorter, translating: Translating) -> None:
        self._links = links
        self._keys = keys
        self._sorter = sorter
        self._translating = translating
        self._nonces = Nonces()

    def publish(self, batch: Sequence[Outgoing], deadline: float) -> None:
        with self._translating:
            link = self._links.take(deadline)
            try:
                sends = self._sorter.sort(batch, link, deadline)
                if sends.lists or sends.delayed:
                    names: list[str | bytes] = []
                    arguments: list[Argument] = []
                    sends.write(self._keys, self._nonces, names, arguments)
                    self._push(link, names, arguments, deadline)
            finally:
                self._links.give_back(link)

    def _push(self, link: Link, names: list[str | bytes], arguments: list[Argument], deadline: float) -> None:
        try:
            _PUSH.run(link, names, arguments, deadline)
        except LinkBroken as error:
            if not error.sent:
                raise BrokerUnavailable(f"The broker cannot be reached: {describe(error)}") from error
            kind = PublishTimeout if error.fault is Fault.SLOW else PublishUnknown
            raise kind(
                f"The connection to the broker was lost before it had answered ({describe(error)}): the messages may "
                f"or may not be stored."
            ) from error
        except ReplyError as error:
            fault = fault_of(error)
            if fault is Fault.STANDBY:
                link.close()  # somebody else is the master now
            if fault is Fault.OTHER:
                raise PublishRejected(f"The broker does not take the messages: {error}") from error
            raise

    def close(self) -> None:
        self._links.close()
