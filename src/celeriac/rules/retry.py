"""Whether to try again, and when: task retries as Celery computes them, and the back-off of our own connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

#: 2**64 seconds is beyond any maximum; a larger exponent only makes numbers that no machine wants to hold
_LARGEST_EXPONENT = 64

#: seconds between attempts to reach a broker or store again: the first and the longest
RECONNECT_FIRST = 0.1
RECONNECT_LONGEST = 5.0


def backoff(retries: int, factor: int, maximum: int, jitter: Random | None) -> int:
    """Seconds until the attempt after ``retries`` earlier ones: ``factor × 2**retries``, at most ``maximum``.

    With ``jitter`` any whole number from 0 to that, each as likely (Celery's full jitter); ``None``: exactly that.
    """
    delay = min(maximum, factor * (1 << min(max(retries, 0), _LARGEST_EXPONENT)))
    if jitter is not None and delay > 0:
        delay = jitter.randrange(delay + 1)
    return max(0, delay)


def are_exhausted(retries: int, max_retries: int | None) -> bool:
    """Whether a task that was retried ``retries`` times may not be retried once more; ``None``: no limit."""
    return max_retries is not None and retries >= max_retries


def reconnect_delay(failures: int, random: Random) -> float:
    """Seconds to wait after ``failures`` failed attempts in a row: 0.1 doubling to 5, spread by half of it."""
    ceiling = min(RECONNECT_LONGEST, RECONNECT_FIRST * (1 << min(max(failures - 1, 0), _LARGEST_EXPONENT)))
    return ceiling * (0.5 + random.random() / 2)
