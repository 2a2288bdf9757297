"""What becomes of a message, for every combination of options: the table of docs/reference/acknowledgement.md as data.

A row holds where all its conditions do; of the rows of one outcome, exactly one holds for each combination.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

from celeriac.rules.acking import AckPolicy


class Row(NamedTuple):
    """``verdicts``: what the broker is told, start by start; early messages are acknowledged before."""

    outcome: str
    when: dict[str, Any]
    verdicts: tuple[str, ...]
    state: str | None
    starts: int = 1
    is_sent_again: bool = False


LATE, EARLY = {"late": True}, {"late": False}
ENDED, BURIED = {**LATE, "on_failure": True}, {**LATE, "on_failure": False}
RETRIED, LOST = {"retry_on_worker_lost": True}, {"retry_on_worker_lost": False}
THRICE = ("release counted", "release counted", "dead")

ROWS = [
    Row("success", LATE, ("ack",), "SUCCESS"),
    Row("success", EARLY, (), "SUCCESS"),
    Row("exception", ENDED, ("ack",), "FAILURE"),
    Row("exception", BURIED, ("dead",), "FAILURE"),
    Row("exception", EARLY, (), "FAILURE"),
    Row("retry", LATE, ("ack",), "RETRY", is_sent_again=True),
    Row("retry", EARLY, (), "RETRY", is_sent_again=True),
    Row("ignore", LATE, ("ack",), None),
    Row("ignore", EARLY, (), None),
    Row("reject", LATE, ("dead",), "FAILURE"),
    Row("reject", EARLY, (), "FAILURE"),
    # once; then it succeeds
    Row("reject and requeue", LATE, ("release", "ack"), "SUCCESS", starts=2),
    Row("reject and requeue", EARLY, (), None),
    Row("hard limit", {**LATE, "on_timeout": True}, ("ack",), "FAILURE"),
    Row("hard limit", {**LATE, "on_timeout": False}, THRICE, "FAILURE", starts=3),
    Row("hard limit", EARLY, (), "FAILURE"),
    Row("process lost", {**LATE, **RETRIED}, ("ack",), "RETRY", is_sent_again=True),
    Row("process lost", {**EARLY, **RETRIED}, (), "RETRY", is_sent_again=True),
    Row("process lost", {**ENDED, **LOST, "reject_on_worker_lost": False}, ("ack",), "FAILURE"),
    Row("process lost", {**BURIED, **LOST, "reject_on_worker_lost": False}, ("dead",), "FAILURE"),
    Row("process lost", {**LATE, **LOST, "reject_on_worker_lost": (None, True)}, THRICE, "FAILURE", starts=3),
    Row("process lost", {**EARLY, **LOST}, (), "FAILURE"),
    Row("process lost, no retries left", {**ENDED, **RETRIED}, ("ack",), "FAILURE"),
    Row("process lost, no retries left", {**BURIED, **RETRIED}, ("dead",), "FAILURE"),
    Row("process lost, no retries left", {**EARLY, **RETRIED}, (), "FAILURE"),
    # the worker ended it for another's sake, as at a stop: not its fault
    Row("neighbour ended", LATE, ("release", "ack"), "SUCCESS", starts=2),
    Row("neighbour ended", EARLY, (), "FAILURE"),
    Row("terminated", LATE, ("ack",), "REVOKED"),
    Row("terminated", EARLY, (), "REVOKED"),
    Row("expired", {}, ("ack",), "REVOKED", starts=0),
    Row("revoked", {}, ("ack",), "REVOKED", starts=0),
]

OPTIONS: dict[str, tuple[bool | None, ...]] = {
    "late": (True, False),
    "on_failure": (True, False),
    "on_timeout": (True, False),
    "reject_on_worker_lost": (None, True, False),
    "retry_on_worker_lost": (False, True),
}
COMBINATIONS = [
    dict(zip(OPTIONS, values, strict=True)) for values in itertools.product(*OPTIONS.values())
]  # fmt: skip
OUTCOMES = list(dict.fromkeys(row.outcome for row in ROWS))


def policy_of(combination: dict[str, bool | None]) -> AckPolicy:
    return AckPolicy(**combination)  # type: ignore[arg-type]


def row_for(outcome: str, combination: dict[str, bool | None]) -> Row | None:
    """The one that holds; None where there can be no such outcome."""
    found = [row for row in ROWS if row.outcome == outcome and _holds(row, combination)]
    assert len(found) <= 1, f"{outcome} with {combination} is in two rows"
    if not found:
        assert outcome == "process lost, no retries left", f"{outcome} with {combination} is in no row"
        assert not combination["retry_on_worker_lost"]
        return None
    return found[0]


def _holds(row: Row, combination: dict[str, bool | None]) -> bool:
    return all(
        combination[name] in wanted if isinstance(wanted, tuple) else combination[name] is wanted
        for name, wanted in row.when.items()
    )
