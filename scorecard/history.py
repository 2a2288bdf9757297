"""What happened, merged from the files of all processes; indexed by what the checkers ask.

Imports nothing of the product: what it says about a run must not depend on the code that is judged.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One line of one process. Which fields matter depends on ``kind``:

    invoke → ok | fail | info (a publish) · start → retry | end (a run) · result (read at the end) · fault … heal ·
    depth (what the broker still has) · worker (a process of the fleet began or ended) · call (any other API call) ·
    sample (what a process or a broker holds) · revoked (a revoke that returned) · write, sync (seen by strace)
    """

    t: float  #: on the machine's monotonic clock, which all processes share
    wall: float = 0.0
    proc: str = ""
    pid: int = 0
    kind: str
    id: str = ""
    attempt: int = 0
    delivery: int = 0
    n: int = 0
    task: str = ""
    queue: str = ""
    key: str = ""  #: of an invoke: tasks with the same one keep their order
    value: Any = None
    state: str = ""
    error: str = ""
    typed: bool = True
    what: str = ""
    seconds: float = 0.0
    limit: float = 0.0  #: seconds that the call may take; 0: not judged
    eta: float = 0.0
    expires: float = 0.0
    #: of a fault: the processes whose runs it may cut short or repeat; none named: all
    procs: list[str] = []
    pids: list[int] = []
    count: int = 0


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt, from its start to its end; ``until`` is None when nobody saw it end."""

    start: Event
    until: float | None
    value: Any = None
    is_retry: bool = False

    @property
    def is_done(self) -> bool:
        return self.until is not None


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """From the strike to the healing."""

    what: str
    begins: float
    ends: float
    procs: frozenset[str]
    pids: frozenset[int]

    def may_explain(self, run: Run) -> bool:
        return not (self.procs or self.pids) or run.start.proc in self.procs or run.start.pid in self.pids


class History:
    """All events, in order of time."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.events = sorted(events, key=lambda event: event.t)

    @classmethod
    def read(cls, folder: Path) -> History:
        return cls(event for path in sorted(folder.glob("*.jsonl")) for event in events_of(path.read_bytes()))

    def of(self, *kinds: str) -> list[Event]:
        return [event for event in self.events if event.kind in kinds]

    @cached_property
    def invoked(self) -> dict[str, Event]:
        """The first call of each id."""
        found: dict[str, Event] = {}
        for event in self.of("invoke"):
            found.setdefault(event.id, event)
        return found

    @cached_property
    def accepted(self) -> dict[str, Event]:
        """Ids whose publish returned normally."""
        return {event.id: event for event in reversed(self.of("ok"))}

    @cached_property
    def refused(self) -> set[str]:
        """Ids of which every publish ended with "certainly not stored"."""
        outcomes: dict[str, set[str]] = defaultdict(set)
        for event in self.of("ok", "fail", "info"):
            outcomes[event.id].add(event.kind)
        # a call that never came back may have stored something
        calls = Counter(event.id for event in self.of("invoke"))
        ends = Counter(event.id for event in self.of("ok", "fail", "info"))
        return {id_ for id_, kinds in outcomes.items() if kinds == {"fail"} and calls[id_] == ends[id_]}

    @cached_property
    def runs(self) -> dict[str, list[Run]]:
        """Each id's attempts, in order of their starts."""
        open_: dict[tuple[str, int], list[Event]] = defaultdict(list)
        found: dict[str, list[Run]] = defaultdict(list)
        for event in self.of("start", "retry", "end"):
            key = (event.id, event.pid)
            if event.kind == "start":
                open_[key].append(event)
            elif open_[key]:
                start = open_[key].pop()
                found[event.id].append(
                    Run(start=start, until=event.t, value=event.value, is_retry=event.kind == "retry")
                )
        for starts in open_.values():
            for start in starts:
                found[start.id].append(Run(start=start, until=None))
        return {id_: sorted(runs, key=lambda run: run.start.t) for id_, runs in found.items()}

    @cached_property
    def results(self) -> dict[str, list[Event]]:
        """Each id's readings of its result, in order."""
        found: dict[str, list[Event]] = defaultdict(list)
        for event in self.of("result"):
            found[event.id].append(event)
        return dict(found)

    @cached_property
    def faults(self) -> list[Fault]:
        """A fault ends with the next ``heal`` of the same name, or at once when there is none."""
        heals = self.of("heal")
        found = []
        for event in self.of("fault"):
            ends = next((heal.t for heal in heals if heal.what == event.what and heal.t >= event.t), event.t)
            found.append(
                Fault(
                    what=event.what, begins=event.t, ends=ends, procs=frozenset(event.procs), pids=frozenset(event.pids)
                )
            )
        return found

    @cached_property
    def deaths(self) -> dict[int, float]:
        """Pid → when it was killed."""
        return {pid: event.t for event in self.of("fault") for pid in event.pids}


def events_of(data: bytes) -> list[Event]:
    """The complete lines of a file; a line that a kill has cut short is not one."""
    return [_DECODER.decode(line) for line in data.splitlines(keepends=True) if line.endswith(b"\n")]


_DECODER = msgspec.json.Decoder(Event)
