"""How many messages each consumer may hold unsettled: enough to keep the engine busy, no more than it has room for.

Pure: what the engine asks for and what lies here go in, the number comes out. When the engine starves while some
consumer holds all it may, the number grows at once to what the engine wants; when messages have lain here for a whole
look, it shrinks, so that idle workers get them.
"""

from __future__ import annotations

#: the most AMQP can express
LIMIT = 65535


class Prefetch:
    """The number for one set of consumers. ``consumers``: how many share the engine's room."""

    def __init__(self, consumers: int) -> None:
        self._consumers = max(1, consumers)
        self.count = 0
        #: at the last look: messages here, and messages handed out until then
        self._lying = 0
        self._handed_out = 0

    def begin(self, limit: int) -> None:
        """Start with the engine's first request, shared out."""
        self.count = self._share(limit)

    def starved(self, held: int, limit: int) -> bool:
        """The engine holds ``held``, asks for ``limit`` more, nothing is here and some consumer may take no more.

        Whether the number is larger now.
        """
        wanted = held + limit
        if wanted <= self.count:
            return False
        # by a good deal, or every further message would cost a round trip
        self.count = min(LIMIT, max(wanted, self.count + self.count // 4))
        return True

    def look(self, held: int, lying: int, handed_out: int) -> bool:
        """Once in a while: ``held`` by the engine, ``lying`` here, ``handed_out`` since the beginning.

        Whether the number is smaller now: some of what lies here lay here at the last look.
        """
        passed = handed_out - self._handed_out
        stale = self._lying > passed and lying > 0
        self._lying, self._handed_out = lying, handed_out
        if not stale:
            return False
        target = self._share(held + passed)
        if target >= self.count:
            return False
        self.count = target
        self._lying = 0
        return True

    def _share(self, wanted: int) -> int:
        return min(LIMIT, max(1, -(-wanted // self._consumers)))
