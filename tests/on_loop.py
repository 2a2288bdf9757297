"""A consumer on an event loop of its own, for tests that block."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from celeriac.transports.base import Delivery, Receipt

#: seconds after which a call counts as hung
_HUNG = 60.0


class OnLoop:
    """``make(*arguments)`` is called on the loop. ``inner``: what it made."""

    def __init__(self, make: Callable[..., Any], *arguments: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.inner: Any = self.run(_call(make, arguments))

    def run(self, doing: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(doing, self._loop).result(_HUNG)

    def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        found: Sequence[Delivery] = self.run(self.inner.receive(limit, wait))
        return found

    def settle(self, *arguments: Any) -> Sequence[Receipt]:
        lost: Sequence[Receipt] = self.run(self.inner.settle(*arguments))
        return lost

    def commit(self, *arguments: Any) -> Sequence[Receipt]:
        lost: Sequence[Receipt] = self.run(self.inner.commit(*arguments))
        return lost

    def renew(self, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        lost: Sequence[Receipt] = self.run(self.inner.renew(receipts))
        return lost

    def close_keeping(self, receipts: Sequence[Receipt]) -> None:
        self.end(self.inner.close_keeping(receipts))

    def close(self) -> None:
        self.end(self.inner.close())

    def end(self, doing: Coroutine[Any, Any, Any]) -> None:
        """Do this last, and end the loop."""
        if self._loop.is_closed():
            doing.close()
            return
        try:
            self.run(doing)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_HUNG)
            self._loop.close()


async def _call(make: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    return make(*arguments)
