"""One thread for everything of the worker that blocks: writing results, publishing, looking after queues.

A batch per hop. The thread starts with the first use, so that the nursery forks from a process without threads.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Value = TypeVar("Value")


class Lane:
    """Runs blocking calls one after the other, off the loop."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, call: Callable[[], Value]) -> Value:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def close(self) -> None:
        """Does not wait: what still blocks in there ends by its own deadline."""
        self._pool.shutdown(wait=False, cancel_futures=True)
