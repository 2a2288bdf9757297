"""13: Sentinels give a new master, again and again."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import redis

from celeriac.testing.servers import RedisServer, SentinelGroup
from scorecard import checkers
from scorecard.experiments.catalogue import LEASE, experiment, judge
from scorecard.lab import Lab

if TYPE_CHECKING:
    from scorecard.history import History
    from scorecard.products import Product


class Group:
    """Stands in for the site's server: its URL leads to the Sentinels."""

    def __init__(self, lab: Lab, group: SentinelGroup, store: RedisServer) -> None:
        self.group = group
        lab.store_url = store.url(0)
        lab.settings["broker_transport_options"] = {"master_name": group.name}
        lab.broker_url = self.broker_url

    def broker_url(self, _: Product) -> str:
        return self.group.url()

    def client(self) -> Any:
        return closing(redis.Redis(port=self.group.master_port(), socket_timeout=5.0))


@experiment(13, "Sentinel fail-over", brokers=("redis",), quick=120, full=420)
def sentinel_fail_over(lab: Lab) -> None:
    """kill -9 of the master under load; what the replica had not yet is the loss that Redis promises."""
    with SentinelGroup() as group, RedisServer() as store:
        site = Group(lab, group, store)
        worker = lab.worker(concurrency=2)
        pid = worker.pid
        producers = lab.produce(
            lab.size(400, 4000), producers=2, rate=lab.size(20, 30), limit=10.0, resolve=True, kwargs={"seconds": 0.01}
        )
        for _ in range(lab.size(2, 5)):
            goal = lab.ended() + lab.size(60, 200)
            lab.until(lambda goal=goal: lab.ended() >= goal, 40)  # type: ignore[misc]
            lab.strike("kill -9 master")
            killed = group.fail_over()
            lab.heal("kill -9 master")
            killed.start()  # comes back, and is made a replica
            lab.until(lambda: _replicas(site) > 0, 30)
        lab.finish(producers)
        lab.drain(LEASE + 15)
        history = judge(lab)
        lost = next(check for check in lab.findings.checks if check.name == "I1")
        lab.findings.checks.remove(lost)
        # asynchronous replication: what a master confirmed in its last moments may be gone, and nothing else
        late = [id_ for id_ in history.accepted if not history.runs.get(id_)]
        old = [id_ for id_ in late if not _just_before(history, history.accepted[id_].t)]
        lab.findings.add(
            checkers.work_resumes(history, within=30),
            checkers.holds("alive", "no restart of ours", worker.status is None and worker.pid == pid),
            checkers.holds("replicated", "lost is only what was not replicated", not old, f"{len(late)} lost"),
        )
        lab.findings.numbers["lost_unreplicated"] = len(late)


def _replicas(site: Group) -> int:
    with site.client() as client:
        return int(client.info("replication")["connected_slaves"])


def _just_before(history: History, t: float) -> bool:
    return any(fault.begins - 1.0 <= t <= fault.ends for fault in history.faults)
