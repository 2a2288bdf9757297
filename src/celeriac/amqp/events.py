"""What the connection reports to its shell, besides the :class:`Call` and :class:`Batch` objects that are done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from celeriac.amqp.confirms import Batch

if TYPE_CHECKING:
    from celeriac.amqp.channel import Channel
    from celeriac.amqp.errors import ChannelClosed, ConnectionClosed
    from celeriac.amqp.messages import Fate, Message
    from celeriac.amqp.methods import Method


class Call:
    """A method that was sent, until its answer is here."""

    __slots__ = ("error", "expects", "message", "method", "reply")

    def __init__(self, method: str, expects: tuple[str, ...]) -> None:
        self.method = method
        self.expects = expects
        self.reply: Method | None = None
        #: what basic.get brought
        self.message: Message | None = None
        self.error: ChannelClosed | ConnectionClosed | None = None

    @property
    def is_done(self) -> bool:
        return self.reply is not None or self.error is not None

    def result(self) -> Method:
        """The answer; raises the error that came instead."""
        if self.error is not None:
            raise self.error.again()
        assert self.reply is not None, "the answer is not here yet"
        return self.reply


class Arrived(msgspec.Struct, frozen=True):
    """The inbox of a channel was empty and is no more."""

    channel: Channel


class ChannelEnded(msgspec.Struct, frozen=True):
    """The broker closed a channel."""

    channel: Channel
    error: ChannelClosed


class ConsumerEnded(msgspec.Struct, frozen=True):
    """The broker cancelled a consumer."""

    channel: Channel
    consumer_tag: str


class CameBack(msgspec.Struct, frozen=True):
    """A mandatory message that no queue took, on a channel without confirms."""

    channel: Channel
    message: Message
    fate: Fate


class ConnectionEnded(msgspec.Struct, frozen=True):
    """The connection is over, for whatever reason."""

    error: ConnectionClosed


class Blocked(msgspec.Struct, frozen=True):
    """The broker takes no messages for now."""

    reason: str


class Unblocked(msgspec.Struct, frozen=True):
    """The broker takes messages again."""


Event = Call | Batch | Arrived | ChannelEnded | ConsumerEnded | CameBack | ConnectionEnded | Blocked | Unblocked
