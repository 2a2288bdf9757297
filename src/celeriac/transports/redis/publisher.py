"""Sends: one write and one round trip for a batch of any shape.

What goes into one list at once, which is nearly everything, is an ``LPUSH`` and a token that wakes a consumer, in one
write: half of what the script costs the server. Batches for several lists, and for later, are a script's, since
they must be stored as a whole.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from celeriac.errors import BrokerUnavailable, PublishRejected, PublishTimeout, PublishUnknown
from celeriac.redis.connect import Links, pack
from celeriac.redis.errors import Fault, LinkBroken, ReplyError, Translating, describe, fault_of
from celeriac.redis.keys import TOKEN_MS
from celeriac.redis.scripts import script
from celeriac.transports.redis.sending import Nonces

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celeriac.redis.connect import Argument, Link
    from celeriac.redis.keys import Keys
    from celeriac.transports.base import Outgoing
    from celeriac.transports.redis.sending import Sends, Sorter

_PUSH = script("push")
#: replies of the commands that leave a token
_TOKEN_REPLIES = 2
_TOKENS_KEPT = 1024
#: seconds that an answer which is due may still take, however late somebody comes to fetch it
_LATE = 1.0


class RedisPublisher:
    """Sends. Blocking, thread-safe, fork-safe: threads use connections of their own from a small store."""

    def __init__(self, links: Links, keys: Keys, sorter: Sorter, translating: Translating) -> None:
        self._links = links
        self._keys = keys
        self._sorter = sorter
        self._translating = translating
        self._nonces = Nonces()
        self._tokens: dict[str, bytes] = {}

    def publish(self, batch: Sequence[Outgoing], deadline: float) -> None:
        with self._translating:
            link = self._links.take(deadline)
            try:
                if self._start(link, batch, deadline):
                    self._pushed(link, deadline)
            finally:
                self._links.give_back(link)

    def begin(self, batch: Sequence[Outgoing], deadline: float) -> Callable[[], None]:
        """As ``transports/base.py`` says. The connection is kept until the end."""
        if self._links.limit is not None:
            # who calls may send something else meanwhile, and must not wait for a connection of its own
            self.publish(batch, deadline)
            return _nothing
        with self._translating:
            link = self._links.take(deadline)
            try:
                if self._start(link, batch, deadline):
                    return partial(self._end, link, deadline)
            except BaseException:
                self._links.give_back(link)
                raise
            self._links.give_back(link)
            return _nothing

    def _start(self, link: Link, batch: Sequence[Outgoing], deadline: float) -> bool:
        """Whether it was only written, and the answer is due."""
        sends = self._sorter.sort(batch, lambda key: set(link.call("SMEMBERS", key, deadline=deadline)))
        if len(sends.lists) == 1 and not sends.delayed:
            self._push(link, sends, deadline)
            return True
        if sends.lists or sends.delayed:
            self._run(link, sends, deadline)
        return False

    def _end(self, link: Link, deadline: float) -> None:
        with self._translating:
            try:
                self._pushed(link, max(deadline, time.monotonic() + _LATE))
            finally:
                self._links.give_back(link)

    # ── into one list ────────────────────────────────────────────────────────────────────────────────────────────

    def _push(self, link: Link, sends: Sends, deadline: float) -> None:
        [((queue, step), payloads)] = sends.lists.items()
        try:
            link.send(_lpush(self._keys.list_of(queue, step), payloads, self._token(queue)), deadline)
        except LinkBroken as error:
            raise _failure(error) from error

    def _pushed(self, link: Link, deadline: float) -> None:
        try:
            # what became of the token is of no interest: it is a hint, consumers look by themselves, too
            stored = link.receive_many(1 + _TOKEN_REPLIES, deadline)[0]
        except LinkBroken as error:
            raise _failure(error) from error
        if isinstance(stored, ReplyError):
            self._refuse(link, stored)

    def _token(self, queue: str) -> bytes:
        """Commands that wake one consumer that sleeps on a queue: ``wake()`` of ``_common.lua`` without a script.

        Servers before 7.0 do not know ``NX`` here, and keep the token until somebody takes it.
        """
        token = self._tokens.get(queue)
        if token is None:
            key = self._keys.wake(queue)
            if len(self._tokens) >= _TOKENS_KEPT:
                self._tokens.clear()
            token = pack(("ZADD", key, 0, "")) + pack(("PEXPIRE", key, TOKEN_MS, "NX"))
            self._tokens[queue] = token
        return token

    # ── anything else ────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self, link: Link, sends: Sends, deadline: float) -> None:
        names: list[str | bytes] = []
        arguments: list[Argument] = []
        sends.write(self._keys, self._nonces, names, arguments)
        try:
            _PUSH.run(link, names, arguments, deadline)
        except LinkBroken as error:
            raise _failure(error) from error
        except ReplyError as error:
            self._refuse(link, error)

    def _refuse(self, link: Link, error: ReplyError) -> None:
        fault = fault_of(error)
        if fault is Fault.STANDBY:
            link.close()  # somebody else is the master now
        if fault is Fault.OTHER:
            raise PublishRejected(f"The broker does not take the messages: {error}") from error
        raise error

    def close(self) -> None:
        self._links.close()


def _lpush(key: str, payloads: list[bytes], more: bytes) -> bytes:
    """The command, and ``more`` of them. By hand, since hiredis copies large commands twice: nine times as long."""
    name = key.encode()
    pieces = [b"*%d\r\n$5\r\nLPUSH\r\n$%d\r\n%b\r\n" % (2 + len(payloads), len(name), name)]
    for payload in payloads:
        pieces += (b"$%d\r\n" % len(payload), payload, b"\r\n")
    pieces.append(more)
    return b"".join(pieces)


def _failure(error: LinkBroken) -> Exception:
    if not error.sent:
        return BrokerUnavailable(f"The broker cannot be reached: {describe(error)}")
    kind = PublishTimeout if error.fault is Fault.SLOW else PublishUnknown
    return kind(
        f"The connection to the broker was lost before it had answered ({describe(error)}): the messages may "
        f"or may not be stored."
    )


def _nothing() -> None:
    pass
