"""Tasks, queues, pool and broker in the shapes in which Celery's replies have them."""

from __future__ import annotations

import contextlib
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from celeriac.errors import CeleriacError, ImproperlyConfigured, MessageError
from celeriac.executors.base import Divided, Inspectable
from celeriac.rules.claim import LOST, RUNNING
from celeriac.transports.url import parse_many
from celeriac.wire.task_message import read_body

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from celeriac.executors.base import InWork
    from celeriac.transports.base import QueueSpec
    from celeriac.worker.claims import Claim
    from celeriac.worker.commands.state import WorkerState

#: bodies of more bytes are not read for the sake of showing them
_SHOWN_BODY = 16 << 10
#: tasks of one reply; a worker that keeps ten thousand for later need not list them all
MOST_SHOWN = 1000


def in_work(state: WorkerState) -> dict[str, InWork]:
    """What runs at this moment, by id."""
    if not isinstance(state.executor, Inspectable):
        return {}
    return {work.id: work for work in state.executor.in_work()}


def sorted_by_progress(state: WorkerState) -> tuple[list[Claim], list[Claim]]:
    """What runs, and what waits for a slot."""
    working = in_work(state)
    knows = isinstance(state.executor, Inspectable)
    active: list[Claim] = []
    reserved: list[Claim] = []
    for claim in state.claims.held.values():
        if claim.state in (RUNNING, LOST):
            (active if not knows or claim.id in working else reserved).append(claim)
    reserved.extend(state.claims.waiting())
    return active[:MOST_SHOWN], reserved[:MOST_SHOWN]


def infos(state: WorkerState, claims: Iterable[Claim], safe: bool = False) -> list[dict[str, Any]]:
    working = in_work(state)
    return [info(state, claim, working, safe) for claim in claims]


def info(state: WorkerState, claim: Claim, working: Mapping[str, InWork], safe: bool = False) -> dict[str, Any]:
    """One task, as ``active`` and its kin show it. ``safe``: arguments as text."""
    request = claim.request
    headers = request.envelope.headers
    work = working.get(claim.id)
    args, kwargs = _arguments(claim, safe)
    since = None if work is None else state.clock.time() - state.clock.monotonic() + work.since
    late = claim.facts is not None and claim.facts.late
    return {
        "id": claim.id,
        "name": request.task,
        "args": args,
        "kwargs": kwargs,
        "type": headers.get("shadow") or request.task,
        "hostname": state.hostname,
        "time_start": since,
        "acknowledged": work is not None and not late,
        "delivery_info": {
            "exchange": request.exchange,
            "routing_key": request.routing_key,
            "priority": request.envelope.properties.get("priority"),
            "redelivered": request.redelivered,
        },
        "worker_pid": None if work is None else work.pid,
    }


def _arguments(claim: Claim, safe: bool) -> tuple[Any, Any]:
    """The arguments themselves where they are short and plain JSON; else the text that the sender made of them."""
    envelope = claim.request.envelope
    if not safe and claim.request.protocol == 2 and len(envelope.body) <= _SHOWN_BODY:
        with contextlib.suppress(MessageError):
            body = read_body(envelope, None)
            return body.args, body.kwargs
    return envelope.headers.get("argsrepr"), envelope.headers.get("kwargsrepr")


def scheduled(state: WorkerState) -> list[dict[str, Any]]:
    """What waits here for its time, and what waits for a limit, which is named."""
    found: list[dict[str, Any]] = [
        {"eta": datetime.fromtimestamp(until, UTC).isoformat(), "priority": 6, "request": info(state, claim, {})}
        for until, claim in state.claims.later()[:MOST_SHOWN]
    ]
    offset = state.clock.time() - state.clock.monotonic()
    for at, claim, key in lined(state)[: MOST_SHOWN - len(found)]:
        until = datetime.fromtimestamp(offset + max(at, state.clock.monotonic()), UTC).isoformat()
        found.append({"eta": until, "priority": 6, "request": info(state, claim, {}), "limit": key})
    return found


def lined(state: WorkerState) -> list[tuple[float, Claim, str]]:
    """What waits here for a limit."""
    return [] if state.gate is None else state.gate.lined()


def limits(state: WorkerState) -> list[dict[str, Any]]:
    """The counters that were full here of late, and those of which this worker has permits."""
    if state.gate is None:
        return []
    waiting = Counter(key for _, _, key in state.gate.lined())
    return [
        {"key": key, "waiting": waiting[key], "sent_back": line.sent_back, "held": held}
        for key, line, held in state.gate.keys()[:MOST_SHOWN]
    ]


def declared_limits(state: WorkerState) -> list[dict[str, Any]]:
    """The limits over all workers that this one knows, as they are and as the code has them."""
    if state.gate is None:
        return []
    return [
        {
            "limit": one.handle, **one.values, "key": one.limit.key,
            "in_code": one.changed(None).values if one.change else None,
        }
        for one in state.gate.limited.all()[:MOST_SHOWN]
    ]  # fmt: skip


def queue(spec: QueueSpec) -> dict[str, Any]:
    """A queue as kombu describes it."""
    return {
        "name": spec.name,
        "exchange": {
            "name": spec.exchange, "type": spec.exchange_type, "arguments": None, "durable": spec.durable,
            "passive": False, "auto_delete": False, "delivery_mode": None, "no_declare": False,
        },
        "routing_key": spec.routing_key,
        "queue_arguments": spec.arguments or None,
        "binding_arguments": spec.binding_arguments or None,
        "consumer_arguments": None,
        "durable": spec.durable,
        "exclusive": spec.exclusive,
        "auto_delete": spec.auto_delete,
        "no_ack": False,
        "alias": None,
        "bindings": [],
        "no_declare": None,
        "expires": spec.expires,
        "message_ttl": spec.message_ttl,
        "max_length": None,
        "max_length_bytes": None,
        "max_priority": spec.max_priority,
    }  # fmt: skip


def pool(state: WorkerState) -> dict[str, Any]:
    """All pools as one, which is what Celery's readers know; several also one by one."""
    plan = state.plan
    executor = state.executor
    several: dict[str, Any] = {}
    if isinstance(executor, Divided):
        works = in_work(state)
        running = Counter(
            executor.place(state.claims.held[one].request.task) for one in works if one in state.claims.held
        )
        several["pools"] = {
            name: {
                "max-concurrency": one.slots,
                "processes": list(one.processes()) if isinstance(one, Inspectable) else [],
                "running": running[place],
            }
            for place, (name, one) in enumerate(zip(executor.names, executor.pools, strict=True))
        }
    return several | {
        "implementation": f"celeriac.executors:{plan.pool}",
        "max-concurrency": executor.slots,
        "processes": list(executor.processes()) if isinstance(executor, Inspectable) else [],
        "max-tasks-per-child": plan.max_tasks_per_child or "N/A",
        "put-guarded-by-semaphore": False,
        "timeouts": [state.settings.task_soft_time_limit or 0, state.settings.task_time_limit or 0],
    }


def broker(state: WorkerState) -> dict[str, Any]:
    """The connection as kombu describes it, without its secrets."""
    settings = state.settings
    try:
        urls = parse_many(str(settings.broker_read_url or settings.broker_url or state.transport.engine_key[0]))
    except (ImproperlyConfigured, CeleriacError):
        return {"transport": state.transport.engine_key[0]}
    url = urls[0]
    return {
        "hostname": url.host,
        "userid": url.username,
        "virtual_host": url.path or None,
        "port": url.port,
        "insist": False,
        "ssl": bool(settings.broker_use_ssl) or url.scheme in ("amqps", "rediss"),
        "transport": url.scheme,
        "connect_timeout": settings.broker_connection_timeout,
        "transport_options": {},
        "login_method": settings.broker_login_method,
        "uri_prefix": None,
        "heartbeat": settings.broker_heartbeat,
        "failover_strategy": str(settings.broker_failover_strategy),
        "alternates": [str(other) for other in urls[1:]],
        "credential_provider": None,
    }
