"""The values that cross between the AMQP room and its users."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from celeriac.amqp.properties import decode_properties, split

if TYPE_CHECKING:
    from collections.abc import Mapping


class Publication(msgspec.Struct, array_like=True, gc=False):
    """A message to send. ``headers``: a mapping, or the undecoded table of a message that is passed on unchanged."""

    exchange: str
    routing_key: str
    #: by their AMQP names; ``None`` values and names that AMQP does not have are left out
    properties: Mapping[str, Any]
    headers: Mapping[str, Any] | bytes | None
    body: bytes
    #: hand it back if no queue is bound where it goes
    mandatory: bool = False


class Fate(msgspec.Struct, frozen=True):
    """What became of a publication."""

    kind: Literal["confirmed", "rejected", "returned", "unknown"]
    #: why it was returned, or what ended the channel before it was confirmed
    code: int = 0
    text: str = ""


CONFIRMED = Fate("confirmed")
REJECTED = Fate("rejected")
#: the broker may have it or not: the channel ended before it said so, or time was up
UNKNOWN = Fate("unknown")


class Message(msgspec.Struct, array_like=True, gc=False):
    """A message that came in. Its properties and headers are decoded when they are asked for."""

    exchange: str
    routing_key: str
    delivery_tag: int
    redelivered: bool
    consumer_tag: str
    #: flags and fields as they came
    raw_properties: bytes
    body: bytes
    #: not 0: the body had so many bytes, over the limit, and was thrown away as it came
    oversize: int = 0

    def split(self) -> tuple[dict[str, Any], bytes]:
        """The properties, and the header table as it came. Raises ``Malformed``."""
        return split(self.raw_properties)

    def decoded(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The properties and the headers, in one go. Raises ``Malformed``."""
        return decode_properties(self.raw_properties)

    @property
    def properties(self) -> dict[str, Any]:
        """Without the headers; decoded anew each time. Raises ``Malformed``."""
        return split(self.raw_properties)[0]

    @property
    def headers(self) -> dict[str, Any]:
        """Decoded anew each time. Raises ``Malformed``."""
        return decode_properties(self.raw_properties)[1]

    @property
    def headers_bytes(self) -> bytes:
        """The header table undecoded; a :class:`Publication` takes it as it is. Raises ``Malformed``."""
        return split(self.raw_properties)[1]


class QueueOk(msgspec.Struct, frozen=True):
    """A declared queue."""

    name: str
    messages: int
    consumers: int
