"""What :class:`celeriac.testing.proxy.FaultProxy` can do to the bytes that pass: values, and the search for markers.

Does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import msgspec

#: how a connection ends: closed in order (FIN), reset (RST), or silent with both ends open
How = Literal["cut", "reset", "stall"]


class Latency(msgspec.Struct, frozen=True):
    """Every byte arrives this much later; the throughput stays. ``jitter``: up to that much more or less."""

    seconds: float
    jitter: float = 0.0


class Bandwidth(msgspec.Struct, frozen=True):
    """No more than so many bytes in a second, for each connection."""

    bytes_per_second: float


class Slicer(msgspec.Struct, frozen=True):
    """Bytes arrive in pieces of at most ``size``, each written by itself, with a pause between them."""

    size: int = 1
    pause: float = 0.0


class Hold(msgspec.Struct, frozen=True):
    """Nothing passes, not even the end of a connection, and nothing is lost: what is held goes on when it is removed.

    In one direction this is a half-open connection, in both a black hole. The sender's kernel takes some hundred
    kilobytes before it blocks, as it does before a dead network.
    """


class Limit(msgspec.Struct, frozen=True):
    """Each connection ends after so many bytes."""

    bytes_: int
    how: How = "cut"


class CutAt(msgspec.Struct, frozen=True):
    """The connection on which ``marker`` passes ends there, at its ``nth`` occurrence since the toxic was added.

    Occurrences are counted over all connections; ``nth`` may name several. ``after``: the marker itself still
    arrives. Without it nothing from the marker on does, except what came in an earlier piece.
    """

    marker: bytes
    nth: int | Collection[int] = 1
    after: bool = False
    how: How = "cut"

    def strikes(self, occurrence: int) -> bool:
        return occurrence == self.nth if isinstance(self.nth, int) else occurrence in self.nth


Toxic = Latency | Bandwidth | Slicer | Hold | Limit | CutAt


class Search:
    """Looks for a marker in a stream that comes in pieces; one per connection."""

    def __init__(self, marker: bytes) -> None:
        if not marker:
            raise ValueError("a marker needs at least one byte")
        self._marker = marker
        self._tail = b""

    def ends(self, data: bytes) -> list[int]:
        """Where in ``data`` an occurrence ends, in order; it may have begun in an earlier piece."""
        text = self._tail + data
        before = len(self._tail)
        found: list[int] = []
        at = text.find(self._marker)
        while at >= 0:
            end = at + len(self._marker)
            found.append(end - before)
            at = text.find(self._marker, end)
        # what belongs to an occurrence is not looked at again
        rest = text[found[-1] + before :] if found else text
        keep = len(self._marker) - 1
        self._tail = rest[-keep:] if keep else b""
        return found
