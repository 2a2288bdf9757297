"""The event loop that coroutine tasks of this process run on."""

from __future__ import annotations

import asyncio

_chosen = "auto"


def choose(name: str) -> None:
    """``asyncio``, ``uvloop``, or ``auto``: uvloop where it is installed."""
    global _chosen
    _chosen = name


def new_event_loop() -> asyncio.AbstractEventLoop:
    if _chosen == "asyncio":
        return asyncio.new_event_loop()
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
