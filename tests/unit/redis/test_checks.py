"""What is said of a server, from what it says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.redis.address import address_of
from celeriac.redis.checks import Facts, Use, findings

WELL = Facts(
    version="7.0.15", is_cluster=False, maxmemory=1 << 30, policy="noeviction", appends=True, snapshots=False,
    may_publish=True,
)  # fmt: skip


def found(
    use: Use = "broker", url: str = "redis://127.0.0.1/0", eviction_allowed: bool = False, **facts: Any
) -> list[str]:
    address = address_of(url, setting="broker_url", options={"global_keyprefix": "{a}"})
    told = findings(WELL._replace(**facts), address, use, eviction_allowed)
    return [f"{finding.level}: {finding.text}" for finding in told]


def only(lines: list[str], level: str, words: str) -> None:
    assert len(lines) == 1, lines
    assert lines[0].startswith(level)
    assert words in lines[0]


def test_a_fit_server_is_passed_over():
    assert not found("broker")
    assert not found("store")
    assert not found(maxmemory=0, policy="allkeys-lru")  # nothing is evicted while there is no limit
    assert not found(version="8.1.0")


def test_a_broker_must_not_evict():
    only(found(policy="allkeys-lru"), "error", "noeviction")
    only(found(policy="volatile-ttl", eviction_allowed=True), "warning", "allow_eviction is set")
    only(found("store", policy="allkeys-lru"), "warning", "results")


def test_what_is_not_kept_is_said():
    only(found(appends=False), "warning", "keeps nothing on disk")
    only(found("store", appends=False), "warning", "results are gone")
    only(found(appends=False, snapshots=True), "warning", "since its last snapshot")
    only(found(appends=False, snapshots=None, refused=("CONFIG GET save",))[:1], "warning", "if it takes any")
    assert not found("store", appends=False, snapshots=True)


def test_an_old_server_is_refused():
    only(found(version="6.0.16"), "error", "6.2")
    only(found("store", version="5.0.3"), "warning", "6.2")
    assert not found(version="6.2.0")


def test_a_node_of_a_cluster_is_no_single_server():
    only(found(is_cluster=True), "error", "redis+cluster://")
    assert not found(url="redis+cluster://127.0.0.1", is_cluster=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.8.8.8"])
def test_at_home_no_lock_is_needed(host: str):
    assert not found(url=f"redis://{host}")
    assert not found(url="redis+socket:///run/redis.sock")


def test_on_the_network_it_is():
    lines = found(url="redis://example.org")
    assert [line.partition("Redis at redis://example.org ")[2] for line in lines] == [
        "is used over the network without a password.", "is used over the network without TLS. Write rediss://.",
    ]  # fmt: skip
    only(found(url="redis://:pw@example.org"), "warning", "without TLS")
    only(found(url="rediss://:pw@example.org?ssl_cert_reqs=none"), "warning", "nobody looks at its certificate")
    assert not found(url="rediss://:pw@example.org")


def test_what_could_not_be_seen_is_said():
    only(found(snapshots=None, refused=("CONFIG GET save",)), "note", "not seen: whether it takes snapshots")
    blind = Facts(refused=("INFO", "CONFIG GET save"))
    address = address_of("redis://127.0.0.1", setting="broker_url", options={})
    only([f"{one.level}: {one.text}" for one in findings(blind, address, "broker")], "note", "version, memory policy")
    only(found(may_publish=False), "warning", "second late")
