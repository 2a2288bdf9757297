"""Which limits are measured at which place, and under which names the report shows them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import bare_worker
import limits
from places import Far, Place, Rabbit, Redis
from rows import FAR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


#: by the name that the report shows
REDIS: dict[str, Callable[[int, float], float]] = {
    "one LPUSH, bare socket": limits.lpush_bare,
    "one LPUSH, redis-py": limits.lpush_client,
    "1000 LPUSHes per write, bare socket": limits.lpush_pipelined,
    "claim and acknowledge by 64, bare socket": limits.claim_and_acknowledge,
    "bare worker: claim, pipe, decode, call, acknowledge": lambda port, seconds: _elsewhere(
        sys.executable, bare_worker.__file__, port, seconds
    ),
}
RABBIT: dict[str, Callable[[int, str, float], float]] = {
    "one confirmed publish, bare frames": limits.publish_confirmed,
    "confirmed, 1000 per write, bare frames": limits.publish_pipelined,
    "unconfirmed, one per write, bare frames": limits.publish_unconfirmed,
    "consume, acknowledge by 100, bare frames": limits.consume_and_acknowledge,
}


def of(place: Place, scale: float, peers_python: Path) -> Iterator[tuple[str, float]]:
    """Name and rate of each limit, as it is measured."""
    seconds = 1.5 * scale
    for name in REDIS if isinstance(place, Redis) else RABBIT if isinstance(place, Rabbit) else ():
        yield name, one(name, place, seconds)
    if isinstance(place, Redis):
        yield from _redis_line(place, seconds)
    elif isinstance(place, Rabbit):
        if peers_python.exists():
            yield "one confirmed publish, py-amqp", _py_amqp(place, seconds, peers_python)
        yield from _rabbit_line(place, seconds)
    else:
        import embedded

        assert isinstance(place, embedded.Sqlite)
        yield "one commit, fsynced", embedded.fsync_limit(place)


def one(name: str, place: Place, seconds: float) -> float:
    """A single limit, on an emptied broker."""
    place.fresh()
    if isinstance(place, Rabbit):
        return RABBIT[name](place.server.port, place.vhost, seconds)
    assert isinstance(place, Redis)
    return REDIS[name](place.server.port, seconds)


def _redis_line(place: Redis, seconds: float) -> Iterator[tuple[str, float]]:
    place.fresh()
    with Far(place, FAR) as far:
        line = far.line_to(place.server.port)
        yield "one LPUSH over the line with +2 ms (ms)", 1e3 / limits.lpush_bare(line, seconds)
        yield "1000 LPUSHes per write over that line", limits.lpush_pipelined(line, seconds)


def _rabbit_line(place: Rabbit, seconds: float) -> Iterator[tuple[str, float]]:
    place.fresh()
    with Far(place, FAR) as far:
        line = far.line_to(place.server.port)
        rate = limits.publish_confirmed(line, place.vhost, seconds)
        yield "one confirmed publish over the line with +2 ms (ms)", 1e3 / rate
        yield "confirmed, 1000 per write, over that line", limits.publish_pipelined(line, place.vhost, seconds)


def _py_amqp(place: Rabbit, seconds: float, python: Path) -> float:
    place.fresh()
    return _elsewhere(python, limits.__file__, "py_amqp", place.server.port, place.vhost, seconds)


def _elsewhere(*command: object) -> float:
    """The figure that another process prints."""
    done = subprocess.run(list(map(str, command)), env=dict(os.environ), capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    return float(done.stdout)
