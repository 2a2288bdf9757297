"""Which limits are measured at which place, and under which names the report shows them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import bare_round_trip
import bare_worker
import limits
from places import Far, Place, Rabbit, Redis, Sqlite
from rows import FAR, ROUND_TRIP

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: by the name that the report shows: a function of limits.py, or a program of its own
REDIS = {
    "one LPUSH, bare socket": "lpush_bare",
    "one LPUSH, redis-py": "lpush_client",
    "1000 LPUSHes per write, bare socket": "lpush_pipelined",
    "claim and acknowledge by 64, bare socket": "claim_and_acknowledge",
    "bare worker: claim, pipe, decode, call, acknowledge": bare_worker.__file__,
    ROUND_TRIP: bare_round_trip.__file__,
}
RABBIT = {
    "one confirmed publish, bare frames": "publish_confirmed",
    "confirmed, 1000 per write, bare frames": "publish_pipelined",
    "unconfirmed, one per write, bare frames": "publish_unconfirmed",
    "consume, acknowledge by 100, bare frames": "consume_and_acknowledge",
    ROUND_TRIP: bare_round_trip.__file__,
}
#: the same through the line that adds a network round trip, to know what it leaves
OVER_THE_LINE = {
    "redis": ("+2 ms: one LPUSH, bare socket", "+2 ms: 1000 LPUSHes per write, bare socket"),
    "rabbitmq": (
        "+2 ms: one confirmed publish, bare frames", "+2 ms: confirmed, 1000 per write, bare frames",
        "+2 ms: consume, acknowledge by 100, bare frames",
    ),
}  # fmt: skip


def of(place: Place, scale: float, peers_python: Path) -> Iterator[tuple[str, float]]:
    """Name and rate of each limit, as it is measured."""
    seconds = 1.5 * scale
    if isinstance(place, Redis | Rabbit):
        known = REDIS if isinstance(place, Redis) else RABBIT
        for name in [*known, *OVER_THE_LINE[place.name]]:
            yield name, one(name, place, seconds)
    if isinstance(place, Rabbit):
        if peers_python.exists():
            yield "one confirmed publish, py-amqp", _py_amqp(place, seconds, peers_python)
    elif not isinstance(place, Redis):
        import embedded

        assert isinstance(place, Sqlite)
        yield "one commit, fsynced", embedded.fsync_limit(place)


def one(name: str, place: Redis | Rabbit, seconds: float) -> float:
    """A single limit, on an emptied broker."""
    place.fresh()
    if not name.startswith("+2 ms: "):
        return _at(place, name, place.server.port, seconds)
    with Far(place, FAR) as far:
        return _at(place, name.removeprefix("+2 ms: "), far.line_to(place.server.port), seconds)


def _at(place: Redis | Rabbit, name: str, port: int, seconds: float) -> float:
    """In a process of its own, as products are: this one has a progress bar to draw."""
    what = (RABBIT if isinstance(place, Rabbit) else REDIS)[name]
    where = [port, place.vhost] if isinstance(place, Rabbit) else [port]
    if what.endswith(".py"):
        beside = [place.redis.server.port] if isinstance(place, Rabbit) else []
        return _elsewhere(sys.executable, what, *where, *beside, seconds)
    return _elsewhere(sys.executable, limits.__file__, what, *where, seconds)


def _py_amqp(place: Rabbit, seconds: float, python: Path) -> float:
    place.fresh()
    return _elsewhere(python, limits.__file__, "py_amqp", place.server.port, place.vhost, seconds)


def _elsewhere(*command: object) -> float:
    """The figure that another process prints."""
    done = subprocess.run(list(map(str, command)), env=dict(os.environ), capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    return float(done.stdout)
