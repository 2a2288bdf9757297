"""Exchanges without a broker: which queues a message reaches, given what is bound.

Pure. Topic patterns are AMQP's: words between dots, ``*`` is one word, ``#`` any number of them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from celeriac.errors import Unroutable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from celeriac.transports.base import QueueSpec
    from celeriac.wire.envelope import Route


class Binding(NamedTuple):
    exchange_type: str
    routing_key: str
    queue: str


def matches(binding: Binding, routing_key: str) -> bool:
    """Whether a message with ``routing_key`` follows ``binding``. Headers exchanges are not emulated."""
    match binding.exchange_type:
        case "fanout":
            return True
        case "topic":
            return topic_matches(binding.routing_key, routing_key)
        case _:
            return binding.routing_key == routing_key


def bindings_of(queue: QueueSpec, keys: Sequence[str] = ()) -> tuple[Binding, ...]:
    """How ``queue`` is bound: for its own routing key or for all of ``keys``."""
    return tuple(Binding(queue.exchange_type, key, queue.name) for key in keys or (queue.routing_key,))


def topic_matches(pattern: str, routing_key: str) -> bool:
    if "*" not in pattern and "#" not in pattern:
        return pattern == routing_key
    return _compiled(pattern).fullmatch(routing_key) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    """``#`` swallows the dot before it, or after it at the start: ``a.#`` matches ``a``, ``#.b`` matches ``b``."""
    words = pattern.split(".")
    # adjacent hashes mean what one means, and would backtrack
    words = [word for place, word in enumerate(words) if word != "#" or place == 0 or words[place - 1] != "#"]
    if words == ["#"]:
        return re.compile(r".*", re.DOTALL)
    text = ""
    for place, word in enumerate(words):
        if word == "#":
            text += r"(?:[^.]*\.)*" if place == 0 else r"(?:\.[^.]*)*"
            continue
        if place and not (place == 1 and words[0] == "#"):
            text += r"\."
        text += r"[^.]+" if word == "*" else re.escape(word)
    return re.compile(text, re.DOTALL)


def destinations(route: Route, bindings: Iterable[Binding]) -> list[str]:
    """The queues that ``route`` leads to through a named exchange, each once. Raises ``Unroutable`` for none."""
    found = list(dict.fromkeys(binding.queue for binding in bindings if matches(binding, route.routing_key)))
    if not found:
        raise Unroutable(
            f"No queue is bound to exchange {route.exchange!r} for routing key {route.routing_key!r}. Declare the "
            f"queue in task_queues, or start the worker that consumes it once."
        )
    return found
