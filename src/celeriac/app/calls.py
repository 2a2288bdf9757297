"""From ``apply_async``'s arguments to a call ready to encode: options checked, defaults filled in, lineage inherited.

What can be known before the call is known once: a :class:`Plan` per task holds everything that does not change from
call to call, so ``delay(2, 2)`` only fills in the arguments and a fresh id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from celeriac import current
from celeriac.app.arity import Checker
from celeriac.client.sender import PublishPolicy, encode_call
from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import InvalidTaskError
from celeriac.ids import is_safe_id
from celeriac.ids import task_id as new_id
from celeriac.results.base import Replies
from celeriac.signals import before_task_publish
from celeriac.transports.base import QueueSpec
from celeriac.wire import stencil
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.stencil import Stencil
from celeriac.wire.task_message import TaskCall, timestamp_of

if TYPE_CHECKING:
    from celeriac.app.celery import Celeriac
    from celeriac.executors.context import Context

#: task attributes that are options of every call of the task, unless the call says otherwise
EXEC_OPTIONS: Final = (
    "queue", "routing_key", "exchange", "exchange_type", "priority", "expires", "serializer", "delivery_mode",
    "compression", "time_limit", "soft_time_limit", "immediate", "mandatory",
)  # fmt: skip

#: options that choose Celery's means of sending; our sender has its own and needs none of them
_IDLE_OPTIONS: Final = (
    "connection", "producer", "publisher", "declare", "event_dispatcher", "immediate", "mandatory", "router",
    "result_cls", "task_type", "timelimit",
)  # fmt: skip

#: options that are a field of the call under the same name and go there as they are
_PLAIN_FIELDS: Final = (
    "group_id", "group_index", "root_id", "parent_id", "shadow", "chain", "chord", "origin", "argsrepr", "kwargsrepr",
)  # fmt: skip

#: attributes of kombu's ``Queue`` beyond name and binding, and what our declaration calls them
_QUEUE_ATTRIBUTES: Final = {
    "durable": "durable", "auto_delete": "auto_delete", "exclusive": "exclusive", "max_priority": "max_priority",
    "expires": "expires", "message_ttl": "message_ttl", "queue_arguments": "arguments",
    "binding_arguments": "binding_arguments",
}  # fmt: skip

_DELIVERY_MODES: Final = {"persistent": 2, "transient": 1, 2: 2, 1: 1, "2": 2, "1": 1}


class Plan(msgspec.Struct, kw_only=True, gc=False):
    """What every call of one task name has in common, as long as neither the task nor a setting changes."""

    edition: object  #: the app's edition of its settings that this was made from
    name: str
    task: Any = None
    check: Checker | None = None  #: raises TypeError for arguments that do not fit
    options: dict[str, Any] = {}  #: what the task's attributes say
    #: the call with every default filled in; ``None`` when even a plain call has something to compute
    template: dict[str, Any] | None = None
    stencil: Stencil | None = None  #: of the messages of plain calls, if id and arguments are all they differ in
    route: Route | None = None  #: where plain calls go; ``None``: it has to be asked each time
    queue: QueueSpec | None = None
    serializer: str = "json"
    compression: str | None = None
    priority: int | None = None
    delivery_mode: int = 2
    ignore_result: bool | None = None
    repr_levels: int = 3
    protocol: int = 2
    origin: str = ""
    policy: PublishPolicy = PublishPolicy()
    always_eager: bool = False
    replies: Replies | None = None  #: the result store, if it wants results to be sent to this process


class Draft(msgspec.Struct, gc=False):
    """A call and where it goes."""

    call: TaskCall
    route: Route
    queue: QueueSpec
    policy: PublishPolicy
    add_to_parent: bool


def plan_for(app: Celeriac, name: str, task: Any = None, by_name: bool = False) -> Plan:
    """The plan of a task, or of a name that need not have a task here.

    ``by_name``: the caller knows the name only, so the worker's task decides about arguments and results.
    """
    if not by_name:
        app.finalize(auto=True)
    settings = app.settings
    options: dict[str, Any] = {}
    check = None
    ignore_result = None
    if task is not None:
        options = {
            option: value for option in EXEC_OPTIONS if (value := getattr(task, option, None)) is not None
        }  # fmt: skip
        if not by_name:
            check = task.__header__ if task.strict_typing else None
            ignore_result = task.runnable_options.ignore_result
    priority = options.get("priority")
    plan = Plan(
        edition=app.edition,
        name=name,
        task=task,
        check=check,
        options=options,
        serializer=options.get("serializer") or settings.task_serializer,
        compression=options.get("compression") or settings.task_compression,
        priority=settings.task_default_priority if priority is None else priority,
        delivery_mode=_delivery_mode(settings.task_default_delivery_mode, name),
        ignore_result=ignore_result,
        repr_levels=settings.task_repr_maxlevels or 1000,
        protocol=settings.task_protocol,
        origin=app.origin,
        policy=app.publish_policy,
        always_eager=settings.task_always_eager,
        replies=app.replies,
    )
    if app.routes_are_static:
        _complete(plan, app)
    return plan


def _complete(plan: Plan, app: Celeriac) -> None:
    """Work out plain calls once: a draft without arguments is the template of all of them."""
    if "expires" in plan.options:
        return  # counted from each call
    draft = draft_of(app, plan, (), {}, {}, None)
    call = draft.call
    plan.template = {
        field: value
        for field in TaskCall.__struct_fields__
        if field not in ("id", "args", "kwargs", "reply_to") and (value := getattr(call, field)) != _DEFAULTS.get(field)
    }
    plan.route, plan.queue, plan.policy = draft.route, draft.queue, draft.policy
    plan.stencil = Stencil(call) if stencil.fits(call) else None


def plain_message(plan: Plan, route: Route, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, Envelope]:
    """Id and message of a call without options. ``route``: the plan's."""
    task_id = new_id()
    reply_to = None if plan.replies is None else plan.replies.reply_address()
    if plan.stencil is not None and not before_task_publish.receivers:
        return task_id, plan.stencil.write(task_id, args, kwargs, reply_to)
    call = TaskCall(id=task_id, args=args, kwargs=kwargs, **(plan.template or {}))
    if reply_to is not None:
        call.reply_to = reply_to
    return task_id, encode_call(call, route, SYSTEM_CLOCK.time())


_BARE_CALL = TaskCall(task="", id="")
_DEFAULTS = {field: getattr(_BARE_CALL, field) for field in TaskCall.__struct_fields__ if field not in ("task", "id")}


def draft_of(
    app: Celeriac, plan: Plan, args: Sequence[Any], kwargs: Mapping[str, Any], given: Mapping[str, Any],
    parent: Context | None,
) -> Draft:  # fmt: skip
    """Resolve a call with options. ``parent``: the request of the task that makes it.

    Raises ``TypeError`` or ``ValueError`` for an option that makes no sense, naming it.
    """
    name = plan.name
    options = {**plan.options, **given} if plan.options else dict(given)
    if parent is not None:
        _inherit(options, parent, app)
    route_name = options.pop("route_name", None)
    for option in _IDLE_OPTIONS:
        options.pop(option, None)
    if "queue" in options:
        options["queue"] = queue_option(options["queue"])
    routed = app.router.route(options, route_name or name, args, kwargs, plan.task)
    take = routed.options.pop
    policy = _policy(plan.policy, take)
    add_to_parent = take("add_to_parent", True)
    fields = {field: value for field in _PLAIN_FIELDS if (value := take(field, None)) is not None}
    fields.update(_times(app, name, take))
    fields.update(_limits(name, take))
    fields.update(_stamps(take))
    callbacks, errbacks = take("link", None), take("link_error", None)
    if callbacks is not None:
        fields["callbacks"] = signatures(callbacks, "link", name)
    if errbacks is not None:
        fields["errbacks"] = signatures(errbacks, "link_error", name)
    if fields.get("chain") is not None:
        fields["chain"] = signatures(fields["chain"], "chain", name)
    ignore_result = take("ignore_result", None)
    mode = take("delivery_mode", None)
    fields.setdefault("origin", plan.origin)
    call = TaskCall(
        task=name,
        id=_task_id(take("task_id", None), name),
        args=args,
        kwargs=kwargs,
        retries=take("retries", 0),
        replaced_task_nesting=take("replaced_task_nesting", 0),
        ignore_result=plan.ignore_result if ignore_result is None else bool(ignore_result),
        serializer=take("serializer", plan.serializer),
        compression=take("compression", plan.compression),
        priority=_priority(take("priority", plan.priority), name),
        delivery_mode=plan.delivery_mode if mode is None else _delivery_mode(mode, name),
        reply_to=take("reply_to", None) or ("" if plan.replies is None else plan.replies.reply_address()),
        headers=_mapping(take("headers", None), "headers", name),
        properties=routed.options or None,
        repr_levels=plan.repr_levels,
        protocol=plan.protocol,
        **fields,
    )
    return Draft(call, routed.route, routed.queue, policy, bool(add_to_parent))


def running_request() -> Context | None:
    """The request of the task that a worker runs here, if any; tasks that were called as functions do not count."""
    top = current.running()
    if top is None or top.request.called_directly:
        return None
    found: Context = top.request
    return found


def _inherit(options: dict[str, Any], parent: Context, app: Celeriac) -> None:
    if not options.get("root_id"):
        options["root_id"] = parent.root_id or parent.id
    if not options.get("parent_id"):
        options["parent_id"] = parent.id
    if options.get("priority") is None and app.settings.task_inherit_parent_priority:
        priority = parent.delivery_info.get("priority")
        if priority is not None:
            options["priority"] = priority
    if parent.stamped_headers and parent.stamps:
        known = list(options.get("stamped_headers") or ())
        options["stamped_headers"] = [*known, *(name for name in parent.stamped_headers if name not in known)]
        for stamp in parent.stamped_headers:
            options.setdefault(stamp, parent.stamps.get(stamp))


def check_name(name: Any) -> None:
    """Raise ``TypeError`` for what is no task's name."""
    if not isinstance(name, str) or not name:
        raise TypeError(f"send_task takes the name of a task, not {name!r}")


def check_shape(args: Any, kwargs: Any, name: str) -> None:
    """Raise ``TypeError`` where ``args`` is no list of arguments or ``kwargs`` no mapping of them."""
    if not isinstance(args, list | tuple):
        raise TypeError(f"args of {name} must be a list or tuple of arguments, such as ({args!r},), not {args!r}")
    if not isinstance(kwargs, Mapping) or not all(isinstance(key, str) for key in kwargs):
        raise TypeError(f"kwargs of {name} must be a mapping of parameter names, not {kwargs!r}")


# ── one option at a time ─────────────────────────────────────────────────────────────────────────────────────


def _task_id(task_id: Any, name: str) -> str:
    if task_id is None:
        return new_id()
    text = task_id if isinstance(task_id, str) else str(task_id)  # UUID objects and numbers are common
    if not is_safe_id(text):
        raise ValueError(f"task_id of {name} must be 1 to 255 characters of A-Za-z0-9_.:@-, not {text[:300]!r}")
    return text


def _times(app: Celeriac, name: str, take: Any) -> dict[str, Any]:
    countdown, eta, expires = take("countdown", None), take("eta", None), take("expires", None)
    found: dict[str, Any] = {}
    if countdown is not None:
        found["eta"] = app.now() + _duration(countdown, "countdown", name)
    elif eta is not None:
        found["eta"] = _moment(app, eta, "eta", name)
    if isinstance(expires, int | float | timedelta) and not isinstance(expires, bool):
        found["expires"] = app.now() + _duration(expires, "expires", name)
    elif expires is not None:
        found["expires"] = _moment(app, expires, "expires", name)
    return found


def _duration(value: Any, option: str, name: str) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str) and option == "countdown":
        value = _number(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{option} of {name} must be a number of seconds, not {value!r}")
    try:
        return timedelta(seconds=value)
    except (OverflowError, ValueError):
        raise ValueError(f"{option} of {name} is out of range: {value!r} seconds") from None


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _moment(app: Celeriac, value: Any, option: str, name: str) -> datetime | str:
    """A moment as it travels: text as it was given, a datetime with its zone (the app's, if it has none)."""
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.replace(tzinfo=app.timezone)
    if not isinstance(value, str):
        raise TypeError(f"{option} of {name} must be a datetime or ISO-8601 text, not {value!r}")
    try:
        timestamp_of(value)
    except InvalidTaskError:
        raise ValueError(f"{option} of {name} is not ISO-8601 text: {value!r}") from None
    return value


def _limits(name: str, take: Any) -> dict[str, float | None]:
    hard, soft = take("time_limit", None), take("soft_time_limit", None)
    for option, value in (("time_limit", hard), ("soft_time_limit", soft)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value <= 0):
            raise ValueError(f"{option} of {name} must be a number of seconds above 0, not {value!r}")
    check_limits(soft, hard, name)
    return {"time_limit": hard, "soft_time_limit": soft}


def check_limits(soft: float | None, hard: float | None, name: str) -> None:
    """Raise ``ValueError`` when the soft limit could never be reached."""
    if soft and hard and soft > hard:
        raise ValueError(f"soft_time_limit of {name} must not be above time_limit: {soft} > {hard}")


def _stamps(take: Any) -> dict[str, Any]:
    names = take("stamped_headers", None)
    ready = take("stamps", None)
    if not names:
        return {}
    stamps = dict(ready or {})
    for stamp in names:
        value = take(stamp, None)
        if value is not None or stamp not in stamps:
            stamps[stamp] = value
    return {"stamped_headers": list(names), "stamps": stamps}


def signatures(value: Any, option: str, name: str) -> list[Any]:
    """``value`` as a list of signatures."""
    found = list(value) if isinstance(value, list | tuple) else [value]
    for item in found:
        if not isinstance(item, Mapping) or "task" not in item:
            raise TypeError(f"{option} of {name} takes signatures, such as other.s(), not {item!r}")
    return found


def _priority(value: Any, name: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 255:
        raise ValueError(f"priority of {name} must be a whole number from 0 to 255, not {value!r}")
    return value


def _delivery_mode(value: Any, name: str) -> int:
    try:
        return _DELIVERY_MODES[value]
    except (KeyError, TypeError):
        raise ValueError(
            f"delivery_mode of {name} must be 2 or 'persistent', 1 or 'transient', not {value!r}"
        ) from None


def _mapping(value: Any, option: str, name: str) -> dict[str, Any] | None:
    if not value:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"{option} of {name} must be a mapping, not {value!r}")
    return dict(value)


def queue_option(value: Any) -> Any:
    """A queue by name, as our declaration, or as an object with kombu's attributes (``Queue``)."""
    if value is None or isinstance(value, str | QueueSpec):
        return value
    queue_name = getattr(value, "name", None)
    if not isinstance(queue_name, str) or not queue_name:
        raise TypeError(f"queue must be a queue's name or a Queue, not {value!r}")
    exchange = getattr(value, "exchange", None)
    more = {
        ours: found for theirs, ours in _QUEUE_ATTRIBUTES.items() if (found := getattr(value, theirs, None)) is not None
    }
    return QueueSpec(
        name=queue_name,
        exchange=getattr(exchange, "name", exchange) or "",
        exchange_type=getattr(exchange, "type", None) or "direct",
        routing_key=getattr(value, "routing_key", None) or queue_name,
        **more,
    )


def _policy(policy: PublishPolicy, take: Any) -> PublishPolicy:
    retry, changes, timeout = take("retry", None), take("retry_policy", None), take("timeout", None)
    confirm = take("confirm_timeout", None)
    if retry is None and changes is None and timeout is None and confirm is None:
        return policy
    if retry is False:
        policy = msgspec.structs.replace(policy, max_retries=0)
    elif changes:
        policy = publish_policy(changes, policy)
    if timeout is not None or confirm is not None:
        policy = msgspec.structs.replace(policy, timeout=float(timeout if timeout is not None else confirm))
    return policy


def publish_policy(changes: Mapping[str, Any], base: PublishPolicy) -> PublishPolicy:
    """``base`` with what a ``retry_policy`` mapping says; what it says beyond our terms is not ours to obey."""
    known = {name: value for name, value in changes.items() if name in PublishPolicy.__struct_fields__}
    for name, value in known.items():
        if value is None and name == "max_retries":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ValueError(f"{name} of retry_policy must be a number of at least 0, not {value!r}")
    return msgspec.structs.replace(base, **known)
