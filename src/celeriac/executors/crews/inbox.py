"""What a crew has been given and has not started: its thread takes from it while the courier may take back.

A deque alone is safe for that, if nobody believes what its length was a moment ago.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import deque

    from celeriac.executors.children.pipes import Item


def next_of(inbox: deque[Item]) -> Item | None:
    """The first; None: there is none, or it was taken back a moment ago."""
    try:
        return inbox.popleft()
    except IndexError:
        return None


def take_back(inbox: deque[Item]) -> list[int]:
    """Empty it; the numbers of what was there."""
    numbers: list[int] = []
    while (item := next_of(inbox)) is not None:
        numbers.append(item[0])
    return numbers
