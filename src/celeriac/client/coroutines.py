"""Between the colours: a coroutine for a caller that blocks (eager calls of ``async def`` tasks), a blocking method
for coroutines (remote control).

Not for workers, whose coroutines run on a loop of their own.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_to_end(coroutine: Coroutine[Any, Any, T]) -> T:
    """What the coroutine returns, run on a fresh loop in the caller's context; raises what it raises.

    In a thread that already runs a loop (a notebook, an async test) a helper thread runs the fresh one, since a loop
    can't be entered twice; the caller's loop stands still meanwhile, as with any blocking call.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run(coroutine)
    context = contextvars.copy_context()
    answer: list[Any] = []

    def target() -> None:
        try:
            answer.extend((True, context.run(_run, coroutine)))
        except BaseException as error:
            answer.extend((False, error))

    thread = threading.Thread(target=target, name="celeriac-eager", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(timeout=1.0)
    succeeded, value = answer
    if not succeeded:
        raise value
    found: T = value
    return found


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner() as runner:
        return runner.run(coroutine, context=contextvars.copy_context())


def in_thread(method: Callable[..., T]) -> Callable[..., Coroutine[Any, Any, T]]:
    """The same method for coroutines: it blocks a helper thread instead of the caller's loop."""

    async def twin(*args: Any, **kwargs: Any) -> T:
        return await asyncio.to_thread(method, *args, **kwargs)

    twin.__name__ = f"a{method.__name__}"
    twin.__doc__ = f":meth:`{method.__name__}` for coroutines."
    return twin
