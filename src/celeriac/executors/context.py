"""What a task sees as ``self.request``: the message it came from, under Celery's names.

Built once per attempt on the hot path, so almost everything is computed from the headers when it is first asked for
and then kept as a plain attribute. Source of the names and defaults: Celery 5.7, ``celery.app.task.Context``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.executors.base import Outgoing, Request
    from celeriac.wire.task_message import TaskBody

#: attributes that are simply the header of the same name, and what they are when it is missing
_FROM_HEADERS: dict[str, Any] = {
    "lang": None, "shadow": None, "eta": None, "expires": None, "retries": 0, "root_id": None, "parent_id": None,
    "group": None, "group_index": None, "argsrepr": None, "kwargsrepr": None, "origin": None, "utc": None,
    "replaced_task_nesting": 0, "stamped_headers": None, "stamps": None, "timelimit": None, "taskset": None,
    "compression": None, "ignore_result": False,
}  # fmt: skip

#: what the remaining attributes are when no message stands behind the context
_DEFAULTS: dict[str, Any] = {
    "id": None, "task": None, "args": None, "kwargs": None, "callbacks": None, "errbacks": None, "chain": None,
    "chord": None, "hostname": None, "is_eager": False, "called_directly": True, "logfile": None, "loglevel": None,
    "delivery": 0, "override_max_retries": None,
}  # fmt: skip

#: headers that are never shown in ``headers``: they are attributes, or the message's own business
_NOT_CUSTOM = frozenset(_FROM_HEADERS) | frozenset(_DEFAULTS) | {
    "time_limit", "soft_time_limit", "reply_to", "correlation_id", "delivery_info", "properties", "headers",
    "children", "sends",
}  # fmt: skip


class Context:
    """One attempt at a task, as the task sees it. Also usable without a message: ``Context(id=..., args=...)``.

    Any attribute may be set; what is neither set, nor a header of the message, nor a name of Celery's raises
    AttributeError.
    """

    if TYPE_CHECKING:
        id: str | None
        task: str | None
        args: Any
        kwargs: Any
        callbacks: Any
        errbacks: Any
        chain: Any
        chord: Any
        lang: str | None
        shadow: str | None
        eta: Any
        expires: Any
        retries: int
        root_id: str | None
        parent_id: str | None
        group: str | None
        group_index: int | None
        taskset: str | None
        argsrepr: str | None
        kwargsrepr: str | None
        origin: str | None
        utc: bool | None
        replaced_task_nesting: int
        stamped_headers: Any
        stamps: Any
        timelimit: Any
        time_limit: float | None
        soft_time_limit: float | None
        compression: str | None
        ignore_result: bool
        headers: dict[str, Any] | None
        properties: dict[str, Any]
        delivery_info: dict[str, Any]
        reply_to: str | None
        correlation_id: str | None
        hostname: str | None
        is_eager: bool
        called_directly: bool
        logfile: str | None
        loglevel: Any
        delivery: int
        override_max_retries: int | None
        #: results of the tasks that this one sent
        children: list[Any]
        #: messages that leave together with this attempt's outcome, whatever it is
        sends: list[Outgoing]

    _request: Request | None = None

    def __init__(self, *mappings: Any, **values: Any) -> None:
        self.update(*mappings, **values)

    @classmethod
    def from_request(cls, request: Request, body: TaskBody, hostname: str, entered: bool = False) -> Context:
        """The context of one attempt that a worker makes. ``entered``: the body is called, and not the task."""
        self = cls.__new__(cls)
        args, kwargs, callbacks, errbacks, chain, chord = body
        # One mapping instead of a dozen attribute writes: this runs for every task.
        values = {
            "_request": request, "id": request.id, "task": request.task, "args": args, "kwargs": kwargs,
            "callbacks": callbacks, "errbacks": errbacks, "chain": chain, "chord": chord, "hostname": hostname,
            "called_directly": False,
        }  # fmt: skip
        if entered:
            values["_entered"] = True
        self.__dict__ = values
        return self

    def __getattr__(self, name: str) -> Any:
        """Compute ``name`` on first use; only called for what is not yet a plain attribute."""
        if name in _FROM_HEADERS:
            default = _FROM_HEADERS[name]
            request = self.__dict__.get("_request")
            value = None if request is None else request.envelope.headers.get(name)
            if value is None:
                value = default
        elif name in _COMPUTED:
            value = _COMPUTED[name](self)
        elif name in _DEFAULTS:
            return _DEFAULTS[name]
        else:
            value = self._custom_header(name)
        self.__dict__[name] = value
        return value

    def _custom_header(self, name: str) -> Any:
        """Celery's tasks read headers of their own as attributes."""
        request = self.__dict__.get("_request")
        if request is None or name.startswith("_") or name not in request.envelope.headers:
            raise AttributeError(f"the request has no attribute {name!r}")
        return request.envelope.headers[name]

    def get(self, key: str, default: Any = None) -> Any:
        return getattr(self, key, default)

    def update(self, *mappings: Any, **values: Any) -> None:
        self.__dict__.update(*mappings, **values)

    def clear(self) -> None:
        self.__dict__.clear()

    def as_execution_options(self) -> dict[str, Any]:
        """The options with which ``apply_async`` would send this very attempt again."""
        hard, soft = self.timelimit or (None, None)
        options: dict[str, Any] = {
            "task_id": self.id,
            "root_id": self.root_id,
            "parent_id": self.parent_id,
            "group_id": self.group,
            "group_index": self.group_index,
            "shadow": self.shadow,
            "chord": self.chord,
            "chain": self.chain,
            "link": self.callbacks,
            "link_error": self.errbacks,
            "expires": self.expires,
            "time_limit": hard,
            "soft_time_limit": soft,
            "headers": self.headers,
            "retries": self.retries,
            "reply_to": self.reply_to,
            "replaced_task_nesting": self.replaced_task_nesting,
            "origin": self.origin,
        }
        if self.stamped_headers is not None and self.stamps is not None:
            options["stamped_headers"] = self.stamped_headers
            options.update(self.stamps)
        return options

    def __repr__(self) -> str:
        shown = {name: value for name, value in self.__dict__.items() if not name.startswith("_")}
        return f"<Context: {shown!r}>"


def _custom_headers(context: Context) -> dict[str, Any] | None:
    request = context.__dict__.get("_request")
    if request is None:
        return None
    stamps = context.stamped_headers or ()
    custom = {
        name: value
        for name, value in request.envelope.headers.items()
        if name not in _NOT_CUSTOM and name not in stamps
    }
    return custom or None


def _properties(context: Context) -> dict[str, Any]:
    request = context.__dict__.get("_request")
    return {} if request is None else dict(request.envelope.properties)


def _delivery_info(context: Context) -> dict[str, Any]:
    request = context.__dict__.get("_request")
    if request is None:
        return {}
    return {
        "exchange": request.exchange,
        "routing_key": request.routing_key,
        "priority": request.envelope.properties.get("priority"),
        "redelivered": request.redelivered,
    }


def _property(name: str) -> Callable[[Context], Any]:
    def read(context: Context) -> Any:
        request = context.__dict__.get("_request")
        return None if request is None else request.envelope.properties.get(name)

    return read


def _limit(position: int) -> Callable[[Context], Any]:
    def read(context: Context) -> Any:
        request = context.__dict__.get("_request")
        if request is not None:  # what applies is known: call, task and setting are already merged
            return request.hard_limit if position == 0 else request.soft_limit
        limits = context.timelimit
        return limits[position] if limits else None

    return read


def _delivery(context: Context) -> int:
    request = context.__dict__.get("_request")
    return 0 if request is None else int(request.delivery)


_COMPUTED: dict[str, Callable[[Context], Any]] = {
    "headers": _custom_headers,
    "properties": _properties,
    "delivery_info": _delivery_info,
    "reply_to": _property("reply_to"),
    "correlation_id": _property("correlation_id"),
    "time_limit": _limit(0),
    "soft_time_limit": _limit(1),
    "delivery": _delivery,
    "children": lambda context: [],
    "sends": lambda context: [],
}
