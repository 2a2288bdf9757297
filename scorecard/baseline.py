"""I14: what processes and brokers hold is what it was before, and does not grow. Pure functions, as in ``checkers``.

They read samples: ``state`` says when one was taken (before, steady, after), ``proc`` of what, ``value`` maps figures
to numbers. Imports nothing of the product.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING

from scorecard.checkers import Check

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scorecard.history import History

#: points of time that a slope is drawn through; each is the median of its neighbours
_POINTS = 120


def back_to_baseline(history: History, allowed: Mapping[str, float] = {}) -> Check:
    """I14, first half: no figure is higher than before, but for what is ``allowed``; nothing is there that was not."""
    before, after = (_last(history, state) for state in ("before", "after"))
    found = [f"{proc} is gone" for proc in before if proc not in after]
    found += [f"{proc} is new" for proc in after if proc not in before]
    figures = 0
    for proc in before.keys() & after.keys():
        for figure, value in after[proc].items():
            figures += 1
            was = before[proc].get(figure, 0)
            if value > was + allowed.get(figure, 0):
                found.append(f"{figure} of {proc}: {was:g}, now {value:g}")
    if not before:
        found.append("nothing was measured")
    note = f"{figures} figures of {len(before)}"
    return Check(name="I14", title="everything is back to its baseline", found=sorted(found), note=note)


def _last(history: History, state: str) -> dict[str, dict[str, float]]:
    return {event.proc: event.value for event in history.of("sample") if event.state == state}


def does_not_grow(history: History, figure: str, *, per_hour: float) -> Check:
    """I14, second half: while there was steady load the figure rose by less than this in an hour, in every process."""
    found, rates = [], slopes(history, figure)
    for proc, slope in rates.items():
        if slope >= per_hour:
            found.append(f"{figure} of {proc} rises by {slope:.0f} an hour")
    if not rates:
        found.append("nothing was measured")
    note = ", ".join(f"{proc} {slope:+.0f}" for proc, slope in rates.items())
    return Check(name="I14", title=f"{figure} rises by less than {per_hour:g} an hour", found=found, note=note)


def slopes(history: History, figure: str) -> dict[str, float]:
    """Process → by how much the figure rises in an hour: the median of the slopes between all pairs of points (Theil
    and Sen), so that a step up or a peak now and then do not count as growth."""
    series: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for event in history.of("sample"):
        if event.state == "steady" and figure in event.value:
            series[event.proc].append((event.t, float(event.value[figure])))
    found = {}
    for proc, points in series.items():
        size = max(1, len(points) // _POINTS)
        parts = [points[begin : begin + size] for begin in range(0, len(points), size)]
        middle = [(median(t for t, _ in part), median(value for _, value in part)) for part in parts]
        rates = [(y2 - y1) / (t2 - t1) for (t1, y1), (t2, y2) in itertools.combinations(middle, 2) if t2 > t1]
        if rates:
            found[proc] = median(rates) * 3600
    return found


def synced_before_ok(history: History) -> Check:
    """17: between the write of each id to a file and its ``ok`` lies a whole sync of that file. One sync may do for
    many. Reads the wall clock, which is what the tracer tells."""
    writes: dict[str, list[tuple[float, str]]] = defaultdict(list)
    syncs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for event in history.of("write", "sync"):
        if event.kind == "write":
            writes[event.id].append((event.wall + event.seconds, event.what))
        else:
            syncs[event.what].append((event.wall, event.wall + event.seconds))
    found = []
    for id_, ok in history.accepted.items():
        if not writes[id_]:
            found.append(f"{id_[:8]} was accepted and not seen to be written")
        elif not any(
            begins >= written and ends <= ok.wall for written, what in writes[id_] for begins, ends in syncs[what]
        ):
            found.append(f"{id_[:8]} was accepted before it was synced")
    note = f"{len(history.accepted)} publishes, {sum(map(len, syncs.values()))} syncs"
    return Check(name="sync", title="synced before it is accepted", found=found, note=note)
