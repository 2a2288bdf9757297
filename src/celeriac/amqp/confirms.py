"""Publisher confirms: which publications of a channel the broker has answered for.

Tags count up from one in the order of publishing, so that a batch is a range and costs no entry per message.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from celeriac.amqp.messages import CONFIRMED, UNKNOWN, Fate, Publication

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.amqp.errors import ChannelClosed, ConnectionClosed


class Batch:
    """Publications that were sent together, and their fates as they become known."""

    __slots__ = ("fates", "first_tag", "low", "publications", "remaining", "returned")

    def __init__(self, publications: Sequence[Publication], first_tag: int) -> None:
        self.publications = publications
        self.first_tag = first_tag
        self.fates: list[Fate | None] = [None] * len(publications)
        self.remaining = len(publications)
        #: everything below this position is known
        self.low = 0
        self.returned: dict[int, Fate] = {}

    @property
    def is_done(self) -> bool:
        return not self.remaining

    def results(self) -> list[Fate]:
        """The fates so far; what is not known yet is unknown."""
        return [fate or UNKNOWN for fate in self.fates]

    def settle(self, position: int, fate: Fate) -> None:
        if self.fates[position] is None:
            self.fates[position] = self.returned.get(position, fate) if fate is CONFIRMED else fate
            self.remaining -= 1

    def settle_through(self, position: int, fate: Fate) -> None:
        for place in range(self.low, position + 1):
            self.settle(place, fate)
        self.low = max(self.low, position + 1)

    def abandon(self, error: ChannelClosed | ConnectionClosed) -> None:
        self.settle_through(len(self.fates) - 1, Fate("unknown", error.code, error.text))


class Confirms:
    """The unanswered batches of one channel."""

    def __init__(self) -> None:
        self._next_tag = 1
        self._batches: deque[Batch] = deque()
        #: for returned messages, built when the first comes: what can be told from outside → batch and position
        self._mandatory: dict[tuple[Any, ...], deque[tuple[Batch, int]]] | None = None

    def register(self, publications: Sequence[Publication]) -> Batch:
        batch = Batch(publications, self._next_tag)
        if publications:
            self._next_tag += len(publications)
            self._batches.append(batch)
            self._mandatory = None
        return batch

    def settle(self, tag: int, multiple: bool, fate: Fate) -> list[Batch] | None:
        """Take a confirm in; the batches that are done now. None: there is no such tag."""
        if tag >= self._next_tag or tag < 0:
            return None
        if multiple:
            return self._settle_through(tag or self._next_tag - 1, fate)
        for batch in self._batches:
            position = tag - batch.first_tag
            if position < len(batch.fates):
                if position >= 0:
                    batch.settle(position, fate)
                break
        return self._done()

    def _settle_through(self, tag: int, fate: Fate) -> list[Batch]:
        for batch in self._batches:
            position = tag - batch.first_tag
            if position < 0:
                break
            batch.settle_through(min(position, len(batch.fates) - 1), fate)
        return self._done()

    def _done(self) -> list[Batch]:
        batches = self._batches
        if batches and batches[0].remaining and (len(batches) == 1 or all(batch.remaining for batch in batches)):
            return []
        done = [batch for batch in batches if not batch.remaining]
        self._batches = deque(batch for batch in batches if batch.remaining)
        return done

    def returned(self, exchange: str, routing_key: str, properties: dict[str, Any], fate: Fate) -> bool:
        """Note a message that came back; its confirm follows. False: it is none of ours.

        The broker does not say which one it is. Returns come in the order of publishing, so it is the first that
        looks the same and is not confirmed.
        """
        if self._mandatory is None:
            self._mandatory = self._index()
        key = (exchange, routing_key, properties.get("message_id"), properties.get("correlation_id"))
        waiting = self._mandatory.get(key)
        while waiting:
            batch, position = waiting.popleft()
            if batch.fates[position] is None:
                batch.returned[position] = fate
                return True
        return False

    def _index(self) -> dict[tuple[Any, ...], deque[tuple[Batch, int]]]:
        index: dict[tuple[Any, ...], deque[tuple[Batch, int]]] = {}
        for batch in self._batches:
            for position, one in enumerate(batch.publications):
                if one.mandatory and batch.fates[position] is None and position not in batch.returned:
                    names = one.properties
                    key = (one.exchange, one.routing_key, names.get("message_id"), names.get("correlation_id"))
                    index.setdefault(key, deque()).append((batch, position))
        return index

    def abandon(self, error: ChannelClosed | ConnectionClosed) -> list[Batch]:
        """The channel is over: what is not answered stays unknown."""
        batches, self._batches = list(self._batches), deque()
        for batch in batches:
            batch.abandon(error)
        return batches
