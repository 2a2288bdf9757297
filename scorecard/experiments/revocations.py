"""32: what was revoked while nobody was there never starts, however much is revoked after it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from scorecard import checkers
from scorecard.experiments.catalogue import experiment, judge
from scorecard.fleet import resident_kib
from scorecard.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Sequence

#: further revocations, and MiB by which a worker may grow for them
_OTHERS, _MOST_MIB = 60_000, 64
_RUNNING = 8


@experiment(32, "Revocation endures", brokers=("sqlite", "redis", "rabbitmq"), quick=90, full=240, peers=())
def revocation_endures(lab: Lab) -> None:
    """Half of what waits, of what is for later and of what a dead worker had begun is revoked with all workers down."""
    tasks, eta, lease = lab.size(200, 1000), lab.size((18.0, 20.0), (90.0, 100.0)), lab.size(4.0, 10.0)
    lab.settings.update(lab.product.with_lease(lease, lab.site.name))
    worker = lab.worker(concurrency=_RUNNING, pool="threads")
    lab.send(_RUNNING, kwargs={"seconds": 3.0}, limit=10.0)
    lab.until(lambda: lab.started() >= _RUNNING, 20)
    lab.kill_parent(worker)
    lab.finish(lab.produce(tasks, eta=list(eta), limit=10.0) + lab.produce(tasks - _RUNNING, limit=10.0))
    chosen = _half(lab)
    _revoke(lab, "first", chosen)
    lab.start(worker)
    lab.until(lambda: lab.ended() >= (tasks - _RUNNING) // 2, 20)
    before = resident_kib(worker.pid)
    _revoke(lab, "further", [], _OTHERS)
    grown = (resident_kib(worker.pid) - before) / 1024
    second = lab.worker("w2", concurrency=2)
    drained = lab.drain(eta[1] + lease + lab.size(30, 60))
    history = judge(lab, lease=lease)
    states = {id_: readings[-1].state for id_, readings in history.results.items()}
    wrong = [id_ for id_ in history.accepted if (states.get(id_) == "REVOKED") != (id_ in set(chosen))]
    lab.findings.add(
        checkers.revoked_do_not_start(history),
        checkers.holds("states", "what was revoked is REVOKED, and nothing else", not wrong,
                       f"{len(wrong)} of {len(chosen)} revoked: {[(id_[:8], states.get(id_)) for id_ in wrong[:5]]}"),
        checkers.holds("memory", f"a worker grows by {_MOST_MIB} MiB at most", grown <= _MOST_MIB, f"{grown:.1f} MiB"),
        checkers.holds("alive", "the workers live", worker.status is None and second.status is None),
        checkers.holds("drained", "everything is done in the end", drained),
    )  # fmt: skip
    lab.findings.numbers.update(revoked=len(chosen), further=_OTHERS, grown_mib=round(grown, 1))


def _half(lab: Lab) -> list[str]:
    """Every second one of those that run, wait, and are for later."""
    history = lab.history()
    running = [id_ for id_ in history.accepted if id_ in history.runs]
    later = [id_ for id_ in history.accepted if history.invoked[id_].eta]
    waiting = [id_ for id_ in history.accepted if id_ not in history.runs and not history.invoked[id_].eta]
    return [*running[::2], *later[::2], *waiting[::2]]


def _revoke(lab: Lab, name: str, ids: Sequence[str], others: int = 0) -> None:
    plan = lab.folder / f"{name}.json"
    plan.write_text(json.dumps({"ids": ids, "others": others, "seed": lab.seed}))
    lab.finish([lab.helper(f"revoke-{name}", "revoke.py", str(plan))])
