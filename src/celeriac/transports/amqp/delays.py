"""Delays kept by RabbitMQ: the ladder of queues with a time to live that Celery 5.5 and newer declare.

A delayed message enters at the top with its seconds, in binary, before its routing key: it rests on every level whose
bit is 1 and falls past the others. Pure: names, keys and what is to be declared. Source: kombu 5.7,
``native_delayed_delivery``; names and arguments are the same, so a mixed fleet shares one ladder.
"""

from __future__ import annotations

from typing import Any, NamedTuple

LEVELS = 28
#: seconds; the longest delay that the ladder can express
MAX_DELAY = (1 << LEVELS) - 1
ENTRANCE = f"celery_delayed_{LEVELS - 1}"
EXIT = "celery_delayed_delivery"
#: bytes of a routing key that AMQP allows
_KEY_LIMIT = 255


class Rung(NamedTuple):
    """One level: an exchange, a queue of the same name, and where the queue's messages go when their time is over."""

    name: str
    arguments: dict[str, Any]
    #: binds the queue to its own exchange
    rests: str
    #: binds the exchange below to this level's exchange
    falls: str
    below: str


def ladder(queue_type: str) -> list[Rung]:
    """From the bottom up: declared in this order, no message can enter a ladder without an end."""
    rungs = []
    for level in range(LEVELS):
        below = f"celery_delayed_{level - 1}" if level else EXIT
        arguments: dict[str, Any] = {
            "x-queue-type": queue_type,
            "x-overflow": "reject-publish",
            "x-message-ttl": 1000 << level,
            "x-dead-letter-exchange": below,
        }
        if queue_type == "quorum":
            arguments["x-dead-letter-strategy"] = "at-least-once"
        skipped = "*." * (LEVELS - 1 - level)
        rungs.append(Rung(f"celery_delayed_{level}", arguments, f"{skipped}1.#", f"{skipped}0.#", below))
    return rungs


def seconds_of(not_before: float, now: float) -> int:
    """Whole seconds that the ladder is to keep a message. 0: none, the worker keeps it.

    Rounded down: early by less than a second, for which the worker waits, and never late.
    """
    return max(0, min(int(not_before - now), MAX_DELAY))


def delayed_key(seconds: int, queue: str) -> str | None:
    """The routing key that brings a message to ``queue`` after ``seconds``; None where it would be too long."""
    key = f"{'.'.join(format(seconds, f'0{LEVELS}b'))}.{queue}"
    return key if len(key.encode()) <= _KEY_LIMIT else None


def exit_key(queue: str) -> str:
    """Binds a queue to the exit. It counts the bits: ``#.a`` would take what is meant for a queue ``b.a``, too."""
    return "*." * LEVELS + queue


def has_passed(exchange: str, routing_key: str) -> bool:
    """Whether a message with this address has come down the ladder, ours or that of a Celery producer."""
    return exchange == EXIT or exchange.startswith("celery_delayed_") or _is_delayed(routing_key)


def _is_delayed(routing_key: str) -> bool:
    return routing_key[1:2] == "." and set(routing_key[: 2 * LEVELS : 2]) <= {"0", "1"} and (
        routing_key[1 : 2 * LEVELS : 2] == "." * LEVELS
    )  # fmt: skip
