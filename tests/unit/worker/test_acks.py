"""Every combination of the options on acknowledging, times every way to end: one worker, the table as its oracle."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.rules.acks_table import COMBINATIONS, OUTCOMES, Row, row_for
from tests.unit.worker.conftest import FakeTask, success

from celeriac.executors.base import Failed, Ignored, Lost, Outcome, Rejected, Request, WantsRetry
from celeriac.transports.base import Envelope, Outgoing, Route
from celeriac.wire.result_record import encode_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.worker.conftest import Rig

AGAIN = Outgoing(Envelope(b"again", {"id": "again", "task": "app.add"}, {}), Route("", "celery"))


def record(request: Request, status: str) -> Any:
    return encode_record(task_id=request.id, status=status, result=None, date_done=None)


def lost(request: Request, cause: Any = "died") -> Lost:
    return Lost(request.id, True, cause, "signal 9 (SIGKILL)")


#: outcome → how each start of it ends; those that come back whatever is said succeed the second time
ENDINGS: dict[str, Callable[[Request], Outcome]] = {
    "success": success,
    "exception": lambda r: Failed(r.id, record(r, "FAILURE"), [], 0.1, "boom", "", False),
    "retry": lambda r: WantsRetry(
        r.id, record(r, "RETRY"), [Outgoing(Envelope(b"again", {"id": r.id}, {}), Route("", "celery"))], 0.1, "", ""
    ),
    "ignore": lambda r: Ignored(r.id, [], 0.1),
    "reject": lambda r: Rejected(r.id, False, "no", record(r, "FAILURE"), 0.1),
    "reject and requeue": lambda r: Rejected(r.id, True, "not here", None, 0.1),
    "hard limit": lambda r: lost(r, "hard_limit"),
    "process lost": lost,
    "process lost, no retries left": lost,
    "neighbour ended": lambda r: lost(r, "stopped"),
    "terminated": lambda r: lost(r, "revoked"),
}  # fmt: skip
ONCE = {"reject and requeue", "neighbour ended"}


@pytest.mark.parametrize("commits", [False, True])
def test_every_combination_of_options_and_outcomes(make_rig: Callable[..., Rig], commits: bool) -> None:
    rows: dict[str, tuple[Row, bool]] = {}
    starts: Counter[str] = Counter()

    def end(request: Request) -> Outcome:
        starts[request.id] += 1
        outcome = str(request.envelope.headers["outcome"])
        return success(request) if outcome in ONCE and starts[request.id] > 1 else ENDINGS[outcome](request)

    async def story(rig: Rig) -> None:
        for number, combination in enumerate(COMBINATIONS):
            task = FakeTask(
                f"app.t{number}", acks_late=combination["late"], acks_on_failure=combination["on_failure"],
                acks_on_timeout=combination["on_timeout"], retry_on_worker_lost=combination["retry_on_worker_lost"],
                reject_on_worker_lost=combination["reject_on_worker_lost"],
            )  # fmt: skip
            rig.tasks[task.name] = task
            rig.executor.script[task.name] = end
        async with rig.running():
            assert rig.worker.pipeline is not None
            gone = rig.worker.pipeline.admission.revoked
            for number, combination in enumerate(COMBINATIONS):
                for position, outcome in enumerate(OUTCOMES):
                    row = row_for(outcome, combination)
                    if row is None:
                        continue
                    task_id = f"t{number}-{position}"
                    rows[task_id] = row, bool(combination["late"])
                    headers: dict[str, Any] = {"outcome": outcome, "retries": 3 if "left" in outcome else 0}
                    if outcome == "expired":
                        headers["expires"] = "2001-01-01T00:00:00+00:00"
                    if outcome == "revoked":
                        gone.add([task_id])
                    rig.broker.put(f"app.t{number}", task_id, **headers)
            await rig.until(lambda: not (rig.broker.waiting or rig.broker.held or rig.claims.held))

    rig = make_rig(commits=commits, slots=64, ahead=64)
    asyncio.run(story(rig))
    assert len(rows) == len(COMBINATIONS) * (len(OUTCOMES) - 1) + len(COMBINATIONS) // 2
    told: dict[str, list[str]] = {task_id: [] for task_id in rows}
    for verdict, task_id, detail in rig.broker.log:
        told[task_id].append(f"{verdict} {detail}".strip() if verdict == "release" else verdict)
    again = Counter(str(sent.envelope.headers.get("id")) for sent in rig.broker.published if sent.envelope.headers)
    wrong = []
    for task_id, (row, is_late) in rows.items():
        expected = list(row.verdicts) if is_late or not row.starts else ["ack"]  # early: before it starts
        found = (told[task_id], rig.store.state(task_id), starts[task_id], bool(again[task_id]))
        if found != (expected, row.state, row.starts, row.is_sent_again):
            wrong.append((row, found))
    assert not wrong, wrong[:5]
    assert rig.code == 0
