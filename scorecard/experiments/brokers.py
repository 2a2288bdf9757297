"""5, 6, 11, 12 and 13: brokers that die, hang, throw us out, are full, or hand over to another."""

from __future__ import annotations

import contextlib
import time
from contextlib import closing
from typing import TYPE_CHECKING

import redis

from celeriac.testing.servers import RedisServer
from scorecard import checkers
from scorecard.experiments.catalogue import LEASE, experiment, judge
from scorecard.lab import Lab
from scorecard.sites import RabbitSite, RedisSite

if TYPE_CHECKING:
    from collections.abc import Callable

    from scorecard.history import History


_REGISTERED = 8.0


@experiment(5, "Broker kill -9 under load", brokers=("redis", "rabbitmq"), quick=120, full=480)
def broker_kill(lab: Lab) -> None:
    """The broker dies and comes back over its data while producers publish; they send again what is unknown."""
    kills = lab.size(2, 10)
    worker = lab.worker(concurrency=2)
    pid = worker.pid
    if isinstance(lab.site, RabbitSite):
        # a quorum queue that RabbitMQ 3.10 has declared less than some seconds before it is killed has no leader ever
        # after: its registration is written that much later
        lab.pause(_REGISTERED)
    producers = lab.produce(
        lab.size(1000, 12_000), producers=4, rate=lab.size(20, 50), limit=10.0, resolve=True, kwargs={"seconds": 0.002}
    )
    for _ in range(kills):
        goal = lab.ended() + lab.size(60, 300)
        lab.until(lambda goal=goal: lab.ended() >= goal, 30)  # type: ignore[misc]
        lab.strike("kill -9 broker")
        lab.site.kill()
        lab.pause(lab.dice.uniform(0.1, 1.0))
        lab.site.start()
        lab.heal("kill -9 broker")
    lab.finish(producers)
    lab.drain(LEASE + 15)
    history = judge(lab)
    lab.findings.add(
        checkers.work_resumes(history, within=5),
        checkers.holds("alive", "no restart of ours", worker.status is None and worker.pid == pid),
    )
    lab.findings.numbers.update(kills=kills, unknown=len(history.of("info")), refused=len(history.of("fail")))


@experiment(6, "Hung broker", brokers=("redis", "rabbitmq"), quick=75, full=240)
def hung_broker(lab: Lab) -> None:
    """SIGSTOP: connections stay open and nothing answers; then it goes on as if nothing had been."""
    lasts, limit = lab.size(8.0, 60.0), 3.0
    lab.settings.update(lab.product.with_publish_limit(limit))
    worker = lab.worker(concurrency=2)
    producers = lab.produce(
        lab.size(300, 1500), producers=2, rate=lab.size(12, 8), limit=limit, resolve=True,
        kwargs={"seconds": 0.01},
    )  # fmt: skip
    lab.until(lambda: lab.ended() > 20, 20)
    noticed = _while_hung(lab, lasts, lambda: any(word in worker.words() for word in lab.product.lost_words))
    lab.pause(5)
    lab.finish(producers)
    lab.drain(LEASE + 15)
    history = judge(lab, grace=lasts + 2)
    lab.findings.add(
        checkers.work_resumes(history, within=5),
        checkers.holds("alive", "the worker lives", worker.status is None),
    )
    if not lab.quick:
        is_soon = noticed is not None and noticed <= 25
        lab.findings.add(checkers.holds("noticed", "noticed within 25 s", is_soon, f"after {noticed} s"))
    lab.findings.numbers["noticed_after"] = noticed if noticed is not None else "never"


def _while_hung(lab: Lab, lasts: float, has_noticed: Callable[[], bool]) -> float | None:
    """Stop the broker for so long; after how many seconds it was noticed."""
    lab.strike("SIGSTOP broker")
    lab.site.pause()
    began = time.monotonic()
    noticed = None
    try:
        while time.monotonic() - began < lasts:
            lab.pause(0.2)
            if noticed is None and has_noticed():
                noticed = round(time.monotonic() - began, 1)
    finally:
        lab.site.resume()
        lab.heal("SIGSTOP broker")
    return noticed


@experiment(11, "Broker closes on us", brokers=("redis", "rabbitmq"), quick=90, full=240)
def closes_on_us(lab: Lab) -> None:
    """An operator deletes queues and exchanges, takes permissions away, closes connections. Other queues go on."""
    worker = lab.worker(concurrency=2, queues="celery,other")
    pid = worker.pid
    deeds = _rabbit_deeds(lab) if isinstance(lab.site, RabbitSite) else _redis_deeds(lab)
    limit = 10.0
    for name, deed in deeds:
        others = lab.produce(lab.size(30, 200), rate=20, queue="other", limit=limit, resolve=True)
        lab.until(lambda: lab.ended() > 0, 20)
        lab.strike(name)
        deed()
        lab.pause(1.0)
        lab.heal(name)
        lab.finish(others)
        lab.send(5, limit=limit, resolve=True)
        lab.drain(LEASE + 5)
    history = judge(lab)
    lab.findings.add(
        checkers.work_resumes(history, within=5),
        checkers.holds("alive", "no restart of ours", worker.status is None and worker.pid == pid),
    )
    lab.findings.numbers["deeds"] = len(deeds)


Deeds = list[tuple[str, "Callable[[], object]"]]


def _rabbit_deeds(lab: Lab) -> Deeds:
    site = lab.site
    assert isinstance(site, RabbitSite)

    def with_less_permission() -> None:
        path = "/permissions/{vhost}/guest"
        site.api("PUT", path, {"configure": ".*", "write": ".*", "read": "^other$"})
        site.node.close_connections()
        lab.pause(2.0)
        site.api("PUT", path, {"configure": ".*", "write": ".*", "read": ".*"})

    def clash() -> None:
        # the queue is made anew as something else than what the worker declares
        site.api("DELETE", "/queues/{vhost}/celery")
        with contextlib.suppress(OSError):
            site.api("PUT", "/queues/{vhost}/celery", {"durable": True, "arguments": {"x-message-ttl": 86_400_000}})
        lab.pause(3.0)
        site.api("DELETE", "/queues/{vhost}/celery")

    return [
        ("delete queue", lambda: site.api("DELETE", "/queues/{vhost}/celery")),
        ("delete exchange", lambda: site.api("DELETE", "/exchanges/{vhost}/celery")),
        ("close connections", site.node.close_connections),
        ("revoke permission", with_less_permission),
        ("declare clash", clash),
    ]


def _redis_deeds(lab: Lab) -> Deeds:
    site = lab.site
    assert isinstance(site, RedisSite)

    def command(*words: str) -> Callable[[], object]:
        def give() -> object:
            with closing(site.client) as client:
                return client.execute_command(*words)  # type: ignore[no-untyped-call]

        return give

    return [
        ("delete queue", command("DEL", "celery")),
        ("close connections", command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")),
        ("forget scripts", command("SCRIPT", "FLUSH")),
        ("close connections again", command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")),
    ]


@experiment(12, "Redis full", brokers=("redis",), quick=75, full=180)
def redis_full(lab: Lab) -> None:
    """Foreign keys take all the memory: publishing says so, and what is queued is still done."""
    site = lab.site
    assert isinstance(site, RedisSite)
    with RedisServer() as store:  # what is judged is the broker: a full store keeps its own rules
        lab.store_url = store.url(0)
        _fill_and_drain(lab, site)


def _fill_and_drain(lab: Lab, site: RedisSite) -> None:
    lab.worker("before").stop(lab.left(20))  # what it declared is there
    lab.send(lab.size(500, 2000), limit=10.0)
    with closing(site.client) as client:
        used = _used(client)
        client.config_set("maxmemory", used + 2_000_000)
        lab.strike("memory is full")
        with contextlib.suppress(redis.ResponseError):
            for number in range(10_000):
                client.set(f"foreign{number}", b"x" * 20_000)
        client.config_set("maxmemory", max(1, _used(client) - 1_000_000))  # not even a small message has room
    refused = lab.produce(3, limit=10.0)
    lab.finish(refused)
    full = _outcomes(lab.history(), "fail", "info")
    worker = lab.worker(concurrency=2)
    done = lab.until(lambda: lab.ended() >= lab.accepted(), lab.size(20, 60))
    with closing(site.client) as client:
        client.config_set("maxmemory", 0)
    lab.heal("memory is full")
    lab.send(10, limit=10.0)
    lab.drain(LEASE + 5)
    judge(lab)
    lab.findings.add(
        checkers.holds("refused", "a full broker refuses", len(full) == 3, f"{full}"),
        checkers.holds("drains", "what is queued is done while it is full", done, f"{lab.ended()} of {lab.accepted()}"),
        checkers.holds("alive", "the worker lives", worker.status is None),
    )
    if lab.product.name == "celeriac":
        named = [error for error in full if error.startswith("BrokerFull")]
        lab.findings.add(checkers.holds("named", "the error is BrokerFull", len(named) == len(full), f"{full}"))


def _used(client: redis.Redis) -> int:
    info = client.info("memory")
    assert isinstance(info, dict)
    return int(info["used_memory"])


def _outcomes(history: History, *kinds: str) -> list[str]:
    return [event.error for event in history.of(*kinds)]
