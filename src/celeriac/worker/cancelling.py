"""Taking tasks back, whoever says so: remembers it, drops what waits here, ends what runs if that is wanted.

On the worker's loop, without I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from celeriac.rules.admission import is_stamped
from celeriac.rules.claim import LOST, RUNNING

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence

    from celeriac.executors.base import Cancel, Executor
    from celeriac.wire.revocation import Revocation, Standing
    from celeriac.worker.admit import Admission
    from celeriac.worker.claims import Claim, Claims
    from celeriac.worker.revoked import Revoked

_NO_STAMPS: Mapping[str, Container[str]] = {}


class Cancelled(NamedTuple):
    """Ids of this worker's own tasks that were meant."""

    dropped: list[str]  #: that waited here
    running: list[str]  #: that were with the executor


class Cancelling:
    """Knows what of the worker has to do with a task that nobody wants any more."""

    def __init__(
        self, claims: Claims, admission: Admission, executor: Executor, shares_processes: Callable[[str], bool]
    ) -> None:
        """``shares_processes``: whether others run in the process of a task of this name."""
        self._claims = claims
        self._admission = admission
        self._executor = executor
        self._shares_processes = shares_processes

    @property
    def revoked(self) -> Revoked:
        return self._admission.revoked

    def how(self, signal: str, task: str) -> Cancel:
        """What ends a task: killing its process, or, where others share that, an exception in it (SIGKILL insists)."""
        if not signal:
            return "unstarted"
        if signal == "SIGUSR1":
            return "soft"
        return "soft" if signal != "SIGKILL" and self._shares_processes(task) else "hard"

    def cancel(self, ids: Container[str], stamps: Mapping[str, Container[str]], signal: str) -> Cancelled:
        """Drop those that wait here, and end those that run by ``signal``; if it is empty, what has started goes on."""

        def is_meant(claim: Claim) -> bool:
            return claim.id in ids or (bool(stamps) and is_stamped(claim.request.envelope.headers, stamps))

        dropped = self._admission.revoke(is_meant)
        meant = [claim for claim in self._claims.held.values() if claim.state in (RUNNING, LOST) and is_meant(claim)]
        cancel = self._executor.cancel
        return Cancelled(dropped, [one.id for one in meant if cancel(one.id, self.how(signal, one.request.task))])

    def obey(self, standing: Sequence[Standing]) -> None:
        """What the registry says."""
        self.revoked.pardon(
            (one.entry.header, one.entry.value) for one in standing if one.entry.is_pardon
        )  # fmt: skip
        valid = [one for one in standing if not one.entry.is_pardon]
        self.revoked.learn(valid)
        by_signal: dict[str, list[Revocation]] = {}
        for one in valid:
            by_signal.setdefault(one.entry.signal, []).append(one.entry)
        if self._claims.waiting_count or self._claims.held:
            for signal, entries in by_signal.items():
                self.cancel(*split(entries), signal)

    def remember(self, ids: Iterable[str]) -> list[str]:
        """What neighbours say: ids alone. Those that were not known."""
        revoked = self.revoked
        fresh = [one for one in ids if one not in revoked and not revoked.is_pardoned("", one)]
        if fresh:
            revoked.add(fresh)
            self.cancel(set(fresh), _NO_STAMPS, "")
        return fresh

    def is_running(self, task_id: str) -> bool:
        """Whether the executor has it."""
        claim = self._claims.held.get(task_id)
        return claim is not None and claim.state in (RUNNING, LOST)


def split(entries: Iterable[Revocation]) -> tuple[set[str], dict[str, set[str]]]:
    """Ids, and values by stamped header."""
    ids: set[str] = set()
    stamps: dict[str, set[str]] = {}
    for entry in entries:
        if entry.header:
            stamps.setdefault(entry.header, set()).add(entry.value)
        else:
            ids.add(entry.value)
    return ids, stamps
