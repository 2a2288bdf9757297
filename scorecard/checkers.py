"""What must hold of every history, whatever was done to the processes in it. Pure functions: history in, check out.

The names I1 … I16 are those of the specification. Imports nothing of the product.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from scorecard.history import History, Run

#: states that nothing follows
TERMINAL = frozenset({"SUCCESS", "FAILURE", "REVOKED", "EXPIRED", "DEAD"})
#: violations that are named one by one
_SHOWN = 10


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One promise, and what speaks against it."""

    name: str
    title: str
    found: list[str] = []  #: the violations
    note: str = ""  #: figures for who reads the report

    @property
    def ok(self) -> bool:
        return not self.found

    def __str__(self) -> str:
        if self.ok:
            return f"{self.name} {self.title}: holds{f' ({self.note})' if self.note else ''}"
        more = f" … and {len(self.found) - _SHOWN} more" if len(self.found) > _SHOWN else ""
        return f"{self.name} {self.title}: BROKEN {len(self.found)}×: {'; '.join(self.found[:_SHOWN])}{more}"


def no_loss(history: History, *, stored: bool = True, buried: Collection[str] = ()) -> Check:
    """I1: every id whose publish returned normally has reached an end.

    ``stored``: the end is a terminal state in the result store, else a run that ended. ``buried``: ids found among the
    dead letters or in quarantine, which is an end, too.
    """
    found = []
    for id_ in history.accepted:
        if id_ in buried:
            continue
        state = _last_state(history, id_)
        done = any(run.is_done and not run.is_retry for run in history.runs.get(id_, ()))
        if (state not in TERMINAL) if stored else not done:
            starts = len(history.runs.get(id_, ()))
            found.append(f"{id_[:8]} {state or 'has no end'}, started {starts}×, run to its end: {done}")
    return Check(name="I1", title="nothing accepted is lost", found=found, note=f"{len(history.accepted)} accepted")


def _last_state(history: History, id_: str) -> str:
    readings = history.results.get(id_)
    return readings[-1].state if readings else ""


def no_ghosts(history: History) -> Check:
    """I0: what was certainly not stored does not run, nor what nobody sent."""
    found = [f"{id_[:8]} was refused and ran" for id_ in history.runs if id_ in history.refused]
    found += [f"{id_[:8]} was never sent and ran" for id_ in history.runs if id_ not in history.invoked]
    return Check(name="I0", title="nothing runs that was refused", found=found, note=f"{len(history.refused)} refused")


def settled_after_end(history: History) -> Check:
    """I2: the broker lets go of a message only after its run has ended, and its result could be stored.

    Reads the samples of how much the broker still has: at no time fewer than were accepted and not yet ended. While a
    fault called ``store`` lasts, ends do not count.
    """
    oks = sorted(event.t for event in history.accepted.values())
    ends = sorted(_first_ends(history).values())
    outages = [(fault.begins, fault.ends) for fault in history.faults if fault.what == "store"]
    found = []
    samples = history.of("depth")
    for sample in samples:
        until = next((begins for begins, heals in outages if begins <= sample.t < heals), sample.t)
        # the sample took a while: what was accepted before it began, and not what ended until it was done
        owed = sum(t < sample.t - sample.seconds for t in oks) - sum(t <= until for t in ends)
        if sample.count < owed:
            found.append(f"at {sample.t:.2f} the broker has {sample.count} of at least {owed}")
    return Check(name="I2", title="settled only after end and result", found=found, note=f"{len(samples)} samples")


def _first_ends(history: History) -> dict[str, float]:
    return {
        id_: min(run.until for run in runs if run.until is not None and not run.is_retry)
        for id_, runs in history.runs.items()
        if any(run.is_done and not run.is_retry for run in runs)
    }


def results_are_right(history: History) -> Check:
    """I3: what has run to its end has its result, and the result is the one that the run returned."""
    found = []
    read = 0
    for id_ in history.accepted:
        values = [run.value for run in history.runs.get(id_, ()) if run.is_done and not run.is_retry]
        readings = history.results.get(id_)
        if not values or not readings:
            continue
        read += 1
        last = readings[-1]
        if last.state != "SUCCESS" or last.value not in values:
            found.append(f"{id_[:8]} returned {values[-1]!r}, stored is {last.state} {last.value!r}")
    return Check(name="I3", title="results are there and right", found=found, note=f"{read} read")


def duplicates_are_explained(history: History, *, grace: float = 1.0, at_most: int | None = None) -> Check:
    """I4: nothing starts twice, except after a fault that hit its earlier run; and not more often than ``at_most``.

    ``grace``: seconds before the fault in which a run that had ended may not have been settled yet.
    """
    found = []
    extra = 0
    for id_, runs in history.runs.items():
        for earlier, later in _repeats(runs):
            extra += 1
            if not any(
                fault.may_explain(earlier)
                and fault.begins < later.start.t
                and (earlier.until is None or earlier.until + grace >= fault.begins)
                for fault in history.faults
            ):
                gap = later.start.t - earlier.start.t
                found.append(f"{id_[:8]} started again after {gap:.2f} s on {later.start.proc} without a fault")
    if at_most is not None and extra > at_most:
        found.append(f"{extra} extra starts, at most {at_most} are covered by faults")
    return Check(name="I4", title="duplicates only after faults", found=found, note=f"{extra} extra starts")


def _repeats(runs: list[Run]) -> Iterable[tuple[Run, Run]]:
    """Pairs of a run and a later one of the same attempt: a retry that was asked for is not a repetition."""
    latest: dict[int, Run] = {}
    for run in runs:
        before = latest.get(run.start.attempt)
        if before is not None:
            yield before, run
        latest[run.start.attempt] = run


def no_overlap(history: History, *, lease: float) -> Check:
    """I5: no two runs of one id at a time, unless the first owner was silent for longer than its lease."""
    found = [
        f"{id_[:8]} ran on {first.start.proc}/{first.start.pid} and {second.start.proc}/{second.start.pid} at a time, "
        f"{_ended_at(history, first) - second.start.t:.2f} s"
        for id_, runs in history.runs.items()
        for first, second in itertools.combinations(runs, 2)
        if second.start.t < _ended_at(history, first) and not _was_silent(history, first, second.start.t, lease)
    ]
    return Check(name="I5", title="no two runs of one task at a time", found=found)


def _ended_at(history: History, run: Run) -> float:
    if run.until is not None:
        return run.until
    return history.deaths.get(run.start.pid, run.start.t)  # of what was never seen again, nothing can be said


def _was_silent(history: History, run: Run, at: float, lease: float) -> bool:
    """Whether a fault kept the owner of ``run`` from its broker for a lease before ``at``."""
    return any(
        fault.may_explain(run) and fault.begins < at and min(at, max(fault.ends, fault.begins)) - fault.begins >= lease
        for fault in history.faults
    )


def one_end(history: History) -> Check:
    """I6: a state that is terminal stays what it was."""
    found = []
    for id_, readings in history.results.items():
        ends = [event for event in readings if event.state in TERMINAL]
        for before, after in itertools.pairwise(ends):
            if (before.state, before.value) != (after.state, after.value):
                found.append(f"{id_[:8]} was {before.state} {before.value!r}, then {after.state} {after.value!r}")
        if ends and readings[-1].state not in TERMINAL:
            found.append(f"{id_[:8]} was {ends[-1].state}, then {readings[-1].state}")
    return Check(name="I6", title="one end per task", found=found)


def revoked_do_not_start(history: History, *, grace: float = 0.0) -> Check:
    """I9: what is revoked does not start after that was accepted; ``grace``: seconds that word of it may take."""
    told: dict[str, float] = {}
    for event in history.of("revoked"):
        told.setdefault(event.id, event.t)
    found = [
        f"{id_[:8]} started {run.start.t - t:.2f} s after it was revoked"
        for id_, t in told.items()
        for run in history.runs.get(id_, ())
        if run.start.t > t + grace
    ]
    return Check(name="I9", title="what is revoked does not start", found=found, note=f"{len(told)} revoked")


def order_is_kept(history: History) -> Check:
    """I11: tasks with one key start in the order in which they were accepted; a repeated start does not count."""
    latest: dict[str, tuple[float, str]] = {}
    found = []
    firsts = sorted((runs[0].start.t, id_) for id_, runs in history.runs.items())
    for _, id_ in firsts:
        call, ok = history.invoked.get(id_), history.accepted.get(id_)
        if call is None or ok is None or not call.key:
            continue
        before = latest.get(call.key)
        if before is not None and ok.t < before[0]:
            found.append(f"{id_[:8]} of {call.key} started after {before[1][:8]}, which was sent later")
        else:
            latest[call.key] = (ok.t, id_)
    return Check(name="I11", title="each key keeps its order", found=found, note=f"{len(latest)} keys")


def never_more_at_once(history: History, most: int, *, but: Collection[str] = ()) -> Check:
    """At no time are more than ``most`` tasks at work, those in ``but`` not counted. A run that was cut short ends with
    its process; of one that was never seen again nothing can be said."""
    steps = []
    for id_, runs in history.runs.items():
        for run in runs if id_ not in but else ():
            ends = _ended_at(history, run)
            if ends > run.start.t:
                steps += [(run.start.t, 1, id_), (ends, -1, id_)]
    found, at_work, highest = [], 0, 0
    for t, step, id_ in sorted(steps):
        at_work += step
        highest = max(highest, at_work)
        if step > 0 and at_work > most:
            found.append(f"{id_[:8]} was number {at_work} at {t:.2f}")
    return Check(name="limit", title=f"never more than {most} at work", found=found, note=f"{highest} at the most")


def rate_is_kept(
    history: History, per_second: float, burst: int, *, of: Collection[str], slack: float = 0.0
) -> Check:  # fmt: skip
    """I10: no window holds more starts than the rate allows. ``slack``: seconds that a start may come after it was
    allowed, by which those after it seem to be too close."""
    starts = sorted(run.start.t for id_, runs in history.runs.items() if id_ in of for run in runs)
    found = []
    for index, begin in enumerate(starts):
        for last in range(index + 1, len(starts)):
            allowed = burst + (starts[last] - begin + slack) * per_second
            if last - index + 1 > allowed:
                found.append(f"{last - index + 1} starts within {starts[last] - begin:.2f} s at {begin:.2f}")
                break
    span = starts[-1] - starts[0] if starts else 0.0
    note = f"{len(starts)} in {span:.1f} s"
    return Check(name="I10", title=f"at most {per_second:g} starts a second", found=found, note=note)


def started_on_time(history: History, *, early: float = 0.0, late: float) -> Check:
    """I12: no start before its time, none later than ``late`` seconds after it, or after the last fault was healed."""
    found = []
    worst = 0.0
    for id_, lag in lags(history).items():
        worst = max(worst, lag)
        if lag < -early:
            found.append(f"{id_[:8]} started {-lag:.3f} s early")
        if lag > late:
            found.append(f"{id_[:8]} started {lag:.2f} s late")
    return Check(name="I12", title="starts keep their time", found=found, note=f"latest {worst:.2f} s after its time")


def lags(history: History) -> dict[str, float]:
    """How long after its time each task with one started first; what was due during a fault, after its healing."""
    found = {}
    for id_, call in history.invoked.items():
        runs = history.runs.get(id_)
        if not call.eta or not runs:
            continue
        first = runs[0].start
        lag = first.wall - call.eta
        due = first.t - lag
        healed = max((fault.ends for fault in history.faults if fault.begins <= due < fault.ends), default=due)
        found[id_] = min(lag, first.t - healed) if first.t >= healed else lag
    return found


def none_after_expiry(history: History) -> Check:
    """I13: nothing starts after it has expired."""
    found = [
        f"{id_[:8]} started {run.start.wall - history.invoked[id_].expires:.2f} s after its expiry"
        for id_, runs in history.runs.items()
        for run in runs
        if id_ in history.invoked and 0 < history.invoked[id_].expires < run.start.wall
    ]
    return Check(name="I13", title="nothing starts after it expired", found=found)


def work_resumes(history: History, *, within: float, what: Collection[str] = ()) -> Check:
    """I15, first half: after each healing something starts within so many seconds, if there was something to start."""
    starts = sorted(run.start.t for runs in history.runs.values() for run in runs)
    found = []
    worst = 0.0
    for fault in history.faults:
        if what and fault.what not in what:
            continue
        later = next((t for t in starts if t >= fault.ends), None)
        if later is None:
            if _unfinished(history, fault.ends):
                found.append(f"nothing started after {fault.what}")
            continue
        worst = max(worst, later - fault.ends)
        if later - fault.ends > within and _unfinished(history, fault.ends):
            found.append(f"{later - fault.ends:.1f} s after {fault.what} until something started")
    return Check(name="I15", title=f"work goes on within {within:g} s", found=found, note=f"slowest {worst:.1f} s")


def _unfinished(history: History, at: float) -> int:
    """How many were accepted by then and not yet started."""
    accepted = sum(event.t < at for event in history.accepted.values())
    return accepted - sum(runs[0].start.t < at for runs in history.runs.values())


def throughput_recovers(history: History, *, share: float = 0.8, within: float, window: float = 2.0) -> Check:
    """I15, second half: the rate of ends in a ``window`` that begins ``within`` seconds after the last healing is at
    least this share of the rate before the first fault."""
    ends = sorted(_first_ends(history).values())
    if not history.faults or not ends:
        return Check(name="I15", title="throughput recovers", note="not measured")
    first = history.faults[0].begins
    healed = max(fault.ends for fault in history.faults)
    before = sum(first - window <= t < first for t in ends) / window
    after = max(
        sum(begin <= t < begin + window for t in ends) / window
        for begin in (healed + within * step / 10 for step in range(11))
    )
    found = [f"{after:.0f}/s after, {before:.0f}/s before"] if after < share * before else []
    return Check(
        name="I15", title=f"throughput is back within {within:g} s", found=found, note=f"{before:.0f}/s → {after:.0f}/s"
    )


def calls_end_in_time(history: History, *, tolerance: float = 1.0) -> Check:
    """I16: no public call took longer than its deadline, none was never heard of again, and errors are documented
    ones. What a killed process was calling is not judged."""
    found = []
    slowest = 0.0
    for event in history.of("ok", "fail", "info", "call"):
        slowest = max(slowest, event.seconds)
        if event.limit and event.seconds > event.limit + tolerance:
            found.append(f"{event.what or 'publish'} took {event.seconds:.2f} s, limit {event.limit:g} s")
        if not event.typed:
            found.append(f"not a documented error: {event.error}")
    calls = Counter((event.pid, event.id) for event in history.of("invoke") if event.pid not in history.deaths)
    calls.subtract((event.pid, event.id) for event in history.of("ok", "fail", "info"))
    found += [f"{id_[:8]}: the call has not returned" for (_, id_), open_ in calls.items() if open_ > 0]
    return Check(name="I16", title="every call ended in time", found=found, note=f"slowest {slowest:.2f} s")


def victims_restart(history: History, *, within: float) -> Check:
    """A run that was cut short by a kill starts again within so many seconds."""
    found = []
    worst = 0.0
    for id_, runs in history.runs.items():
        for run, later in zip(runs, [*runs[1:], None], strict=True):
            died = history.deaths.get(run.start.pid)
            if run.is_done or died is None or _last_state(history, id_) == "FAILURE":
                continue
            if later is None:
                found.append(f"{id_[:8]} was killed and not started again")
                continue
            worst = max(worst, later.start.t - died)
            if later.start.t - died > within:
                found.append(f"{id_[:8]} started again after {later.start.t - died:.1f} s")
    return Check(
        name="restart", title=f"victims restart within {within:g} s", found=found, note=f"slowest {worst:.1f} s"
    )


def values_are(history: History, expected: Mapping[str, object]) -> Check:
    """Each id's stored result is the one named."""
    found = []
    for id_, value in expected.items():
        readings = history.results.get(id_)
        if not readings or readings[-1].value != value:
            found.append(f"{id_[:8]} has {readings[-1].value if readings else None!r}, not {value!r}")
    return Check(name="values", title="results are the expected ones", found=found, note=f"{len(expected)} expected")


def holds(name: str, title: str, condition: bool, note: str = "") -> Check:
    """A promise of one experiment only."""
    return Check(name=name, title=title, found=[] if condition else [note or "no"], note=note)
