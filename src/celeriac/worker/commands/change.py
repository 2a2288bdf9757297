"""Commands that change what the worker does. Replies are ``{"ok": text}`` or ``{"error": text}``, in Celery's words."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from celeriac.errors import BackendError, ImproperlyConfigured, OperationalError
from celeriac.executors.base import Divided, Renewable, Resizable
from celeriac.executors.placing import place_of
from celeriac.ids import is_safe_id
from celeriac.rules.limit import BoundLimit, LimitChange
from celeriac.transports.base import QueueSpec
from celeriac.wire.revocation import PARDON, revoked_ids, revoked_stamps, signal_name, stamp_values
from celeriac.worker.commands.inspect import command
from celeriac.worker.commands.marking import mark_revoked
from celeriac.worker.limited import described

if TYPE_CHECKING:
    from celeriac.wire.control_message import ControlRequest
    from celeriac.worker.commands.state import WorkerState

logger = logging.getLogger("celeriac.worker")

_MOST_IDS = 10_000
_MOST_TASKS = 100_000
_QUEUE_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,255}\Z")
#: seconds that changing the queues may take
_PATIENCE = 10.0
#: characters of the name of a limit
_LIMIT_NAME = 500

Reply = dict[str, Any]


def ok(value: Any) -> Reply:
    return {"ok": value}


def nok(value: Any) -> Reply:
    return {"error": value}


# ── revoking ─────────────────────────────────────────────────────────────────────────────────────────────────


@command("control", variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
async def revoke(
    state: WorkerState, task_id: str | Sequence[str], terminate: bool = False, signal: Any = None, **_: Any
) -> Reply:
    """Keep tasks from being run, by id."""
    ids = _ids(task_id)
    named = signal_name(signal)
    dropped, ended = state.cancel(revoked_ids(ids, named if terminate else ""))
    # what was dropped or ended here is recorded with all that is known of it
    await mark_revoked(state, set(ids).difference(dropped))
    if terminate:
        return ok(f"terminate: {', '.join(ended)}" if ended else "terminate: tasks unknown")
    logger.info("tasks flagged as revoked: %s", ", ".join(ids[:10]))
    return ok(f"tasks {set(ids)} flagged as revoked")


@command("control", variadic="task_id", args=(("signal", str),), signature="<signal> [id1 [id2 [... [idN]]]]")
async def terminate(state: WorkerState, signal: Any, task_id: str | Sequence[str], **_: Any) -> Reply:
    """End tasks that run, and keep them from being run again."""
    reply: Reply = await revoke(state, task_id, terminate=True, signal=signal)
    return reply


@command("control", variadic="headers", signature="[key1=value1 [key2=value2 [... [keyN=valueN]]]]",
         sees_request=True)  # fmt: skip
def revoke_by_stamped_headers(
    state: WorkerState, headers: Any, terminate: bool = False, signal: Any = None,
    request: ControlRequest | None = None, **_: Any,
) -> Reply:  # fmt: skip
    """Keep tasks from being run, by a header they are stamped with."""
    stamps = stamp_values(headers)
    named = signal_name(signal)
    entries = revoked_stamps(stamps, named if terminate else "")
    ended = state.cancel(entries, lasting=_is_for_all(request)).running
    if not terminate:
        return ok(f"headers {headers!r} flagged as revoked, but not terminated")
    return ok(f"headers {stamps!r} revoked" if ended else f"headers {stamps!r} were not terminated")


@command("control", variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def unrevoke(state: WorkerState, task_id: str | Sequence[str], **_: Any) -> Reply:
    """Take revocations back, by id: messages that come from now on are run."""
    ids = _ids(task_id)
    known = [one for one in ids if one in state.cancelling.revoked]
    state.pardon(revoked_ids(ids, PARDON))
    logger.info("tasks no longer revoked: %s", ", ".join(ids[:10]))
    return ok(f"{len(ids)} tasks no longer revoked, {len(known)} of them were here")


@command("control", variadic="headers", signature="[key1=value1 [key2=value2 [... [keyN=valueN]]]]",
         sees_request=True)  # fmt: skip
def unrevoke_by_stamped_headers(
    state: WorkerState, headers: Any, request: ControlRequest | None = None, **_: Any
) -> Reply:
    """Take revocations back, by a header that tasks are stamped with."""
    stamps = stamp_values(headers)
    state.pardon(revoked_stamps(stamps, PARDON), lasting=_is_for_all(request))
    return ok(f"headers {stamps!r} no longer revoked")


def _is_for_all(request: ControlRequest | None) -> bool:
    """Told to some workers alone, it is a matter of theirs."""
    return request is not None and request.destination is None and not request.pattern


def _ids(given: Any) -> list[str]:
    if not isinstance(given, str | list | tuple):
        raise TypeError("task_id is an id, or a list of ids")
    ids = [given] if isinstance(given, str) else list(given)
    if len(ids) > _MOST_IDS:
        raise ValueError(f"{len(ids)} ids at one time; the limit is {_MOST_IDS}")
    if not ids or not all(map(is_safe_id, ids)):
        raise ValueError("task ids are 1 to 255 characters of A-Za-z0-9_.:@-")
    return ids


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────


@command(
    "control",
    args=(("task_name", str), ("rate_limit", str)),
    signature="<task_name> <rate_limit (e.g., 5/s | 5/m | 5/h)>",
)
def rate_limit(state: WorkerState, task_name: str, rate_limit: Any, **_: Any) -> Reply:
    """Set how often tasks of one name may start here."""
    if task_name not in state.tasks:
        logger.error("rate limit attempt for an unknown task")
        return nok("unknown task")
    if rate_limit is not None and (not isinstance(rate_limit, int | float | str) or len(str(rate_limit)) > 50):
        return nok("Invalid rate limit string: a rate is like 10/s, 10/m or 10/h")
    try:
        state.pacing.limit(task_name, rate_limit)
    except ValueError as error:
        return nok(f"Invalid rate limit string: {error!r}")
    if not state.plan.rate_limits:
        return nok("rate limits are off here (worker_disable_rate_limits)")
    with contextlib.suppress(AttributeError):
        state.tasks[task_name].rate_limit = rate_limit or None  # type: ignore[attr-defined]  # ``registered`` shows it
    if not rate_limit:
        logger.info("rate limits disabled for tasks of type %s", task_name)
        return ok("rate limit disabled successfully")
    logger.info("new rate limit for tasks of type %s: %s", task_name, rate_limit)
    return ok("new rate limit set successfully")


@command(
    "control",
    args=(("task_name", str), ("soft", float), ("hard", float)),
    signature="<task_name> <soft_secs> [hard_secs]",
)
def time_limit(state: WorkerState, task_name: str, hard: Any = None, soft: Any = None, **_: Any) -> Reply:
    """Set the time limits of tasks of one name, from their next start on."""
    for limit in (hard, soft):
        if limit is not None and (type(limit) not in (int, float) or not 0 < limit < 1e9):
            raise ValueError(f"a time limit is a number of seconds above 0, not {str(limit)[:20]!r}")
    facts = state.facts.get(task_name)
    if facts is None:
        logger.error("time limit attempt for an unknown task")
        return nok("unknown task")
    if hard is not None and state.plan.pool == "solo":
        return nok("-P solo cannot enforce hard time limits")
    state.facts[task_name] = msgspec.structs.replace(facts, hard_limit=hard, soft_limit=soft)
    logger.info("new time limits for tasks of type %s: soft=%s hard=%s", task_name, soft, hard)
    return ok("time limits set successfully")


@command("control", name="limit", args=(("limit", str),), variadic="values",
         signature="<task|limit> [rate=10/m|none] [concurrency=5|none] [burst=1|none]")  # fmt: skip
async def change_limit(state: WorkerState, limit: Any, values: Any = None, **_: Any) -> Reply:
    """Change a limit of the whole cluster, for all workers and until reset_limit."""
    change = _limit_change(values)
    given = change.given()
    if not given:
        raise ValueError("say what to change: rate=10/m, concurrency=5, burst=1; none lifts it")

    def merged(one: BoundLimit) -> LimitChange:
        return LimitChange(**((one.change.given() if one.change else {}) | given))

    return await _set_limit(state, limit, merged, given)


@command("control", args=(("limit", str),), signature="<task|limit>")
async def reset_limit(state: WorkerState, limit: Any, **_: Any) -> Reply:
    """Give a limit of the whole cluster the numbers that the code has."""
    return await _set_limit(state, limit, lambda _: None, ())


async def _set_limit(
    state: WorkerState, name: Any, change_of: Callable[[BoundLimit], LimitChange | None], fields: Collection[str]
) -> Reply:
    if state.gate is None:
        return nok("nothing here has limits over all workers")
    one = state.gate.limited.find(str(name)[:_LIMIT_NAME], fields)
    change = change_of(one)
    try:
        after = one.changed(change)
        async with asyncio.timeout(_PATIENCE):
            await state.gate.change(one.counter, None if change is None else msgspec.json.encode(change))
    except ImproperlyConfigured as error:
        raise ValueError(str(error)) from None
    except TimeoutError:
        return nok("what counts for the limits has not answered yet")
    except (OperationalError, BackendError) as error:
        return nok(f"what counts for the limits does not answer: {error}")
    logger.info("limit %s changed by remote control: %s", one.handle, described(after.values))
    return ok(f"limit {one.handle}: {described(after.values)}, for all workers")


def _limit_change(given: Any) -> LimitChange:
    """From a mapping, or ``["rate=10/m", …]`` of a command line. Raises ``ValueError``."""
    if isinstance(given, list | tuple):
        words = [str(word).partition("=") for word in given]
        given = {name: value for name, _, value in words}
    if not isinstance(given, dict):
        raise ValueError("values is a mapping of rate, concurrency and burst to numbers")
    values: dict[str, Any] = {}
    for field, value in given.items():
        if isinstance(value, str) and value.lower() in ("none", ""):
            value = None
        if field in ("concurrency", "burst") and isinstance(value, str) and value.isdecimal() and len(value) < 10:
            value = int(value)
        values[str(field)] = value
    try:
        return msgspec.convert(values, LimitChange)
    except msgspec.ValidationError as error:
        raise ValueError(f"a limit has a rate such as 10/m, a concurrency and a burst: {error}") from None


# ── queues ───────────────────────────────────────────────────────────────────────────────────────────────────


@command("control", args=(("queue", str), ("exchange", str), ("exchange_type", str), ("routing_key", str)),
         signature="<queue> [exchange [type [routing_key]]]")  # fmt: skip
async def add_consumer(
    state: WorkerState, queue: str, exchange: str | None = None, exchange_type: str | None = None,
    routing_key: str | None = None, options: Any = None, **_: Any,
) -> Reply:  # fmt: skip
    """Take messages from one more queue."""
    _check_names(queue, exchange, exchange_type, routing_key)
    if exchange is None and routing_key is None and exchange_type in (None, "direct"):
        spec = state.find_queue(queue)
    else:
        spec = QueueSpec(
            name=queue, exchange=exchange or queue, exchange_type=exchange_type or "direct",
            routing_key=routing_key or queue,
        )  # fmt: skip
    return await _change(
        state, lambda now: [*(known for known in now if known.name != queue), spec], f"add consumer {queue}"
    )


@command("control", args=(("queue", str),), signature="<queue>")
async def cancel_consumer(state: WorkerState, queue: str, **_: Any) -> Reply:
    """Take no more messages from a queue."""
    _check_names(queue)
    return await _change(
        state, lambda now: [known for known in now if known.name != queue], f"no longer consuming from {queue}"
    )


def _check_names(*names: Any) -> None:
    for name in names:
        if name is not None and (not isinstance(name, str) or _QUEUE_NAME.match(name) is None):
            raise ValueError("names of queues and exchanges are 1 to 255 printable characters")


async def _change(state: WorkerState, change: Any, done: str) -> Reply:
    try:
        async with asyncio.timeout(_PATIENCE):
            await state.session.change_queues(change)
    except TimeoutError:
        return nok("the broker has not answered yet; the queues change as soon as it does")
    except OperationalError as error:
        return nok(f"the broker refuses: {error}")
    logger.info("%s", done)
    return ok(done)


# ── pool ─────────────────────────────────────────────────────────────────────────────────────────────────────


@command("control", args=(("n", int), ("pool", str)), signature="[N=1 [POOL]]")
def pool_grow(state: WorkerState, n: int = 1, pool: str | None = None, **_: Any) -> Reply:
    """Run more tasks at one time, in the first pool or the one that is named."""
    return _resize(state, n, pool, "pool will grow")


@command("control", args=(("n", int), ("pool", str)), signature="[N=1 [POOL]]")
def pool_shrink(state: WorkerState, n: int = 1, pool: str | None = None, **_: Any) -> Reply:
    """Run fewer tasks at one time, in the first pool or the one that is named."""
    return _resize(state, -n, pool, "pool will shrink")


def _resize(state: WorkerState, by: int, name: str | None, done: str) -> Reply:
    if type(by) is not int or not 0 < abs(by) <= 1000:
        raise ValueError("n is a whole number from 1 to 1000")
    place = 0 if name is None else place_of(name, state.plan.pool.split(","))
    shape = state.plan.shape(place)
    executor = state.executor.pools[place] if isinstance(state.executor, Divided) else state.executor
    if not isinstance(executor, Resizable):
        return nok(f"pool {shape.pool!r} cannot change its size")
    now = executor.slots // shape.slots_per_child
    if now + by < 1:
        raise ValueError(f"the pool has {now} processes; it cannot shrink by {-by}")
    if state.autoscaler is not None and place == 0:
        state.autoscaler.change(by)
    else:
        executor.resize(now + by)
    return ok(done)


@command("control", args=(("max", int), ("min", int)), signature="[max [min]]")
def autoscale(state: WorkerState, max: int | None = None, min: int | None = None, **_: Any) -> Reply:  # noqa: A002
    """Set the limits between which the pool sizes itself."""
    if state.autoscaler is None:
        raise ValueError("Autoscale not enabled")
    for limit in (max, min):
        if limit is not None and (type(limit) is not int or not 0 <= limit <= _MOST_TASKS):
            raise ValueError(f"max and min are whole numbers up to {_MOST_TASKS}")
    most, least = state.autoscaler.update(max, min)
    return ok(f"autoscale now max={most} min={least}")


@command("control", variadic="modules", signature="[<module1> [... [<moduleN>]]]")
def pool_restart(
    state: WorkerState, modules: Any = None, reload: bool = False, reloader: Any = None, **_: Any
) -> Reply:
    """Replace the pool's processes, one by one; with ``reload`` or modules, by ones that import all code anew."""
    if not state.settings.worker_pool_restarts:
        raise ValueError("Pool restarts not enabled")
    if not isinstance(state.executor, Renewable):
        return nok(f"pool {state.plan.pool!r} has no processes that could be replaced")
    state.executor.renew(bool(reload or modules))
    logger.warning("the pool's processes are replaced, as told by remote control")
    return ok("reload started")


# ── the worker itself ────────────────────────────────────────────────────────────────────────────────────────


@command("control")
def enable_events(state: WorkerState, **_: Any) -> Reply:
    """Send task events."""
    return ok("task events enabled" if state.events.enable() else "task events already enabled")


@command("control")
def disable_events(state: WorkerState, **_: Any) -> Reply:
    """Send no task events."""
    return ok("task events disabled" if state.events.disable() else "task events already disabled")


@command("control")
async def heartbeat(state: WorkerState, **_: Any) -> None:
    """Send a sign of life now."""
    await state.pulse.answer()


@command("control", args=(("id", str), ("topic", str), ("action", str)), signature="<id> <topic> <action>")
def election(state: WorkerState, id: Any = None, topic: Any = None, action: Any = None, **_: Any) -> None:  # noqa: A002
    """Hold an election: celeriac's workers take no part in it."""


@command("control")
def shutdown(state: WorkerState, msg: Any = None, **_: Any) -> None:
    """Stop the worker, warm."""
    logger.warning("told to shut down by remote control")
    state.stop()
