"""A result store that writes from an event loop, as the worker does, for tests that block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.on_loop import OnLoop

from celeriac.results.redis import RedisStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.results.base import ResultRecord


class LoopStore(RedisStore):
    """Reads as always."""

    _writer: OnLoop | None = None

    def write(self, records: Sequence[ResultRecord]) -> None:
        if self._writer is None:
            self._writer = OnLoop(self.loop_writer)
        self._writer.run(self._writer.inner.write(records))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.end(_closing(self._writer))
        super().close()


async def _closing(writer: OnLoop) -> None:
    writer.inner.close()
