"""Is this server fit for its use? Asked at a worker's start and by ``celeriac check``; what cannot be seen is said.

A server that evicts keys loses messages by design, so it is refused as a broker; most other things are warnings.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from celeriac.redis.connect import open_link
from celeriac.redis.errors import ReplyError
from celeriac.settings.check import Finding
from celeriac.transports.url import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celeriac.redis.address import Address
    from celeriac.redis.connect import Link
    from celeriac.redis.errors import Translating

Use = Literal["broker", "store"]

#: the transport option that lets a broker run on a server that evicts
OVERRIDE = "allow_eviction"
#: BLMOVE and LMOVE
_OLDEST = (6, 2)
#: seconds for all questions together
_PATIENCE = 5.0


class Facts(NamedTuple):
    """What a server says of itself. None: it could not be seen."""

    version: str | None = None
    is_cluster: bool | None = None
    maxmemory: int | None = None
    policy: str | None = None
    appends: bool | None = None  #: AOF
    snapshots: bool | None = None  #: RDB
    may_publish: bool | None = None
    #: questions that the server did not answer
    refused: tuple[str, ...] = ()


def examine(
    address: Address, use: Use, translating: Translating, *, eviction_allowed: bool = False,
    channel: bytes | None = None,
) -> list[Finding]:  # fmt: skip
    """Ask the server and judge it. Blocking, a few seconds at most; raises what ``translating`` makes of trouble.

    ``channel``: where the user must be allowed to publish.
    """
    with translating:
        link = open_link(address, time.monotonic() + _PATIENCE)
        try:
            facts = facts_of(link, channel)
        finally:
            link.close()
    return list(findings(facts, address, use, eviction_allowed))


# ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────


def facts_of(link: Link, channel: bytes | None = None) -> Facts:
    """CONFIG tells more than INFO, and is often not allowed (ACL, managed servers)."""
    deadline = time.monotonic() + _PATIENCE
    questions: list[tuple[str | bytes, ...]] = [("INFO",), ("CONFIG", "GET", "save")]
    if channel is not None:
        questions.append(("PUBLISH", channel, b""))
    information, save, *published = link.call_many(questions, deadline)
    refused = [
        " ".join(map(str, question))
        for question, answer in zip(questions[:2], (information, save), strict=True)
        if isinstance(answer, ReplyError)
    ]
    told = {} if isinstance(information, ReplyError) else _told(information)
    return Facts(
        version=told.get("valkey_version") or told.get("redis_version"),
        is_cluster=_either(told, "cluster_enabled"),
        maxmemory=int(told["maxmemory"]) if told.get("maxmemory", "").isdigit() else None,
        policy=told.get("maxmemory_policy"),
        appends=_either(told, "aof_enabled"),
        snapshots=None if isinstance(save, ReplyError) else bool(_value(save)),
        may_publish=not isinstance(published[0], ReplyError) if published else None,
        refused=tuple(refused),
    )


def _told(information: Any) -> dict[str, str]:
    lines = bytes(information).decode("utf-8", "replace").splitlines()
    return {name: value for name, _, value in (line.partition(":") for line in lines) if value}


def _either(told: dict[str, str], name: str) -> bool | None:
    return None if name not in told else told[name] == "1"


def _value(reply: Any) -> bytes:
    values = list(reply.values()) if isinstance(reply, dict) else list(reply)[1::2]
    return bytes(values[0]) if values else b""


# ── judging ──────────────────────────────────────────────────────────────────────────────────────────────────


def findings(facts: Facts, address: Address, use: Use, eviction_allowed: bool = False) -> Iterator[Finding]:
    """Pure. ``error``: it must not be used this way."""
    setting, where = address.setting, f"Redis at {address.shown}"
    yield from _of_memory(facts, setting, where, use, eviction_allowed)
    yield from _of_persistence(facts, setting, where, use)
    yield from _of_the_way(address, setting, where)
    if facts.version is not None and _numbers(facts.version) < _OLDEST:
        level: Literal["error", "warning"] = "error" if use == "broker" else "warning"
        oldest = ".".join(map(str, _OLDEST))
        yield Finding(level, setting, f"{where} is version {facts.version}; at least {oldest} is needed (or Valkey).")
    if facts.is_cluster and address.kind != "cluster":
        yield Finding(
            "error", setting, f"{where} is a node of a cluster. Write redis+cluster:// (or rediss+cluster://) and set "
            "global_keyprefix to a name in braces.",
        )  # fmt: skip
    if facts.may_publish is False:
        yield Finding(
            "warning", setting, f"{where} does not let this user publish: who waits for a result sees it up to a "
            "second late. Allow the channels in the user's rules (ACL): &*celery-task-meta-*.",
        )  # fmt: skip
    if facts.refused:
        unseen = {
            "INFO": "version, memory policy and append-only file",
            "CONFIG GET save": "whether it takes snapshots",
        }
        parts = " and ".join(unseen[question] for question in facts.refused)
        yield Finding(
            "note", setting, f"{where} does not answer {', '.join(facts.refused)} to this user: not seen: {parts}."
        )


def _of_memory(facts: Facts, setting: str, where: str, use: Use, eviction_allowed: bool) -> Iterator[Finding]:
    if not facts.maxmemory or facts.policy in (None, "noeviction"):
        return
    how = "Say CONFIG SET maxmemory-policy noeviction."
    if use == "store":
        text = f"{where} throws results away when its memory is full (maxmemory-policy {facts.policy}). {how}"
        yield Finding("warning", setting, text)
        return
    text = f"{where} throws messages away when its memory is full (maxmemory-policy {facts.policy}). {how}"
    if eviction_allowed:
        yield Finding("warning", setting, f"{text} It is used all the same: {OVERRIDE} is set.")
    else:
        yield Finding("error", setting, f"{text} Or set {OVERRIDE} in broker_transport_options, and lose them.")


def _of_persistence(facts: Facts, setting: str, where: str, use: Use) -> Iterator[Finding]:
    if facts.appends is not False:
        return
    what = "messages" if use == "broker" else "results"
    if facts.snapshots is False:
        yield Finding(
            "warning", setting, f"{where} keeps nothing on disk: all {what} are gone when it ends. Say CONFIG SET "
            "appendonly yes.",
        )  # fmt: skip
    elif use == "broker":
        yield Finding(
            "warning", setting, f"{where} keeps no append-only file: {what} since its last snapshot, if it takes any, "
            "are gone when it ends. Say CONFIG SET appendonly yes.",
        )  # fmt: skip


def _of_the_way(address: Address, setting: str, where: str) -> Iterator[Finding]:
    for endpoint in address.endpoints:
        if endpoint.path is not None or is_loopback(endpoint.host):
            continue
        login = endpoint.login
        if login.password is None and login.provider is None and not (login.security or {}).get("ssl_certfile"):
            yield Finding("warning", setting, f"{where} is used over the network without a password.")
        if login.security is None:
            yield Finding("warning", setting, f"{where} is used over the network without TLS. Write rediss://.")
        elif login.security["ssl_cert_reqs"] == "none":
            yield Finding("warning", setting, f"{where}: nobody looks at its certificate (ssl_cert_reqs=none).")
        return  # what holds for one of a list holds for all


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
