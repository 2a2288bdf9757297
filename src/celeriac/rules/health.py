"""Whether a worker is wedged, and whether it takes work: facts and a time in, reasons out.

Wedged means that only a restart helps. A broker or a store that is away, slots that are all busy and a processor that
is too slow do not: the worker would be the same after a restart.
"""

from __future__ import annotations

import msgspec

#: times the patience that a broker or store may take over one attempt: every attempt has a deadline far below that
_ATTEMPT = 4
#: rebuilt consumers in a row that brought nothing though messages wait
_STARVED = 2


class Vitals(msgspec.Struct, frozen=True, kw_only=True):
    """A worker at one moment. ``…_since``: monotonic, since when it has been so without a break; None: it is not so."""

    at: float  #: monotonic, when the worker's loop has said this
    is_stopping: bool = False
    is_connected: bool = False
    has_queues: bool = True
    #: processes of the pool that work or take work; None: the pool cannot tell
    processes: int | None = None
    no_process_since: float | None = None
    stalled: int = 0  #: processes that have been given work and begin none of it
    stalled_since: float | None = None
    cut_off_since: float | None = None  #: there is no broker, and no attempt to reach it has ended
    unwritten_since: float | None = None  #: outcomes wait to be written, and no attempt at that has ended
    starved: int = 0  #: consumers in a row that were built anew because nothing came, in vain
    waiting: int = 0  #: messages that the broker had then


class Patience(msgspec.Struct, frozen=True):
    """Seconds after which something is taken for wedged."""

    usual: float = 30.0
    #: until a process of the pool must be there
    start: float = 30.0


def wedged(vitals: Vitals | None, now: float, patience: Patience) -> list[str]:
    """Why this worker should be killed and started anew; empty: it should not."""
    if vitals is None:  # it is just being put together
        return []
    found: list[str] = []
    stuck = now - vitals.at
    if stuck > patience.usual:
        found.append(f"the event loop has stood still for {stuck:.0f} s")
    if vitals.is_stopping:  # that has deadlines of its own
        return found

    def lasts(since: float | None, longest: float) -> float:
        return 0.0 if since is None or vitals.at - since <= longest else vitals.at - since

    if seconds := lasts(vitals.no_process_since, patience.usual + patience.start):
        found.append(f"the pool has had no process for {seconds:.0f} s")
    if seconds := lasts(vitals.stalled_since, patience.usual):
        found.append(
            f"the pool does not answer: {vitals.stalled} processes have begun none of their work for {seconds:.0f} s"
        )
    if seconds := lasts(vitals.cut_off_since, _ATTEMPT * patience.usual):
        found.append(f"an attempt to reach the broker has not ended for {seconds:.0f} s")
    if seconds := lasts(vitals.unwritten_since, _ATTEMPT * patience.usual):
        found.append(f"an attempt to write outcomes has not ended for {seconds:.0f} s")
    if vitals.starved >= _STARVED:
        found.append(
            f"{vitals.waiting} messages wait and slots are free, yet none is delivered, not even to the "
            f"{vitals.starved} consumers that were built anew for that"
        )
    return found


def not_ready(vitals: Vitals | None, now: float, patience: Patience) -> list[str]:
    """Why this worker takes no messages now; empty: it does."""
    if vitals is None:
        return ["the worker is starting"]
    found = wedged(vitals, now, patience)
    if vitals.is_stopping:
        found.append("the worker is stopping")
    elif not vitals.has_queues:
        found.append("the worker has no queue to consume from")
    elif not vitals.is_connected:
        found.append("the worker is not consuming: there is no connection to the broker")
    if vitals.processes == 0 and not vitals.is_stopping:
        found.append("the pool has no process that takes work")
    return found
