"""The seam of the executors: what runs tasks, what goes in and what comes out.

The worker's parent process hands over :class:`Request` batches and collects :class:`Outcome` batches; it never
decodes a body and never runs user code. Requests and outcomes cross a socket as msgpack, so both are flat structs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import msgspec

from celeriac.rules.limit import BoundLimit
from celeriac.rules.limit_keys import Parameters
from celeriac.wire.envelope import Envelope, Outgoing
from celeriac.wire.result_record import ResultRecord
from celeriac.wire.sealed import opened

if TYPE_CHECKING:
    from celeriac.executors.context import Context

__all__ = [
    "Cancel", "Condition", "Divided", "Envelope", "Examinable", "Executor", "Failed", "Ignored", "InWork",
    "Inspectable", "Loader", "LogOptions", "Lost", "Outcome", "Outgoing", "PoolOptions", "Recalls", "Registry",
    "Rejected", "Renewable", "Request", "Resizable", "ResultRecord", "Runnable", "RunnableOptions", "Succeeded",
    "WantsRetry",
]  # fmt: skip


class Request(msgspec.Struct, array_like=True, gc=False):
    """One attempt at one task, as the parent hands it to a child."""

    id: str
    task: str
    #: Headers already in protocol-2 form, body still serialized; or the whole message as kombu's JSON, which is that
    #: of a sender who follows the protocol. ``envelope`` opens it.
    message: Envelope | bytes
    queue: str
    exchange: str
    routing_key: str
    redelivered: bool
    #: which start of this message this is, from 1; 0 when the broker does not count
    delivery: int
    hard_limit: float | None  #: seconds, resolved: call > task > setting
    soft_limit: float | None
    #: protocol 1: the body is one mapping, args and embed inside
    protocol: int = 2
    #: The parent's word that the attempt has failed, an exception as data: it is not to be run but concluded, with
    #: hooks, error callbacks and record, for which the body must be read. With ``retry_in`` (seconds) it has not
    #: failed for good but is to be retried.
    failure: dict[str, Any] | None = None

    @property
    def envelope(self) -> Envelope:
        """The message, opened. What has unreadable headers is shown with none."""
        message = self.message
        if type(message) is bytes:
            message = self.message = opened(message)
        return message  # type: ignore[return-value]  # narrowing by type() is cheaper


class Succeeded(msgspec.Struct, array_like=True, tag=0, gc=False):
    id: str
    record: ResultRecord | None  #: None: results are ignored
    sends: list[Outgoing]  #: callbacks and the next step of a chain
    runtime: float  #: seconds
    shown: str  #: the result, shortened, for the log and events


class Failed(msgspec.Struct, array_like=True, tag=1, gc=False):
    id: str
    record: ResultRecord | None
    sends: list[Outgoing]  #: errbacks
    runtime: float
    error: str  #: ``ValueError('boom')``, shortened
    traceback: str
    expected: bool  #: listed in ``throws``: logged without traceback
    #: the message itself is bad (undecodable body, wrong arity counts as the task's own TypeError): quarantine it
    quarantine: str | None = None


class WantsRetry(msgspec.Struct, array_like=True, tag=2, gc=False):
    id: str
    record: ResultRecord | None
    sends: list[Outgoing]  #: the message of the next attempt
    runtime: float
    error: str  #: why
    shown: str  #: ``in 5s``


class Ignored(msgspec.Struct, array_like=True, tag=3, gc=False):
    id: str
    sends: list[Outgoing]
    runtime: float


class Rejected(msgspec.Struct, array_like=True, tag=4, gc=False):
    id: str
    requeue: bool
    reason: str
    record: ResultRecord | None
    runtime: float
    sends: list[Outgoing] = []  #: errbacks


class Lost(msgspec.Struct, array_like=True, tag=5, gc=False):
    """Not from a child: the parent's word on a request whose process is gone."""

    id: str
    #: True: the user's function may have been entered; False: it certainly was not
    started: bool
    cause: Literal["died", "hard_limit", "revoked", "stopped", "not_started"]
    detail: str  #: ``signal 9 (SIGKILL)``, ``exit status 1``
    #: False: others ran in that process, and any of them may have been the cause
    alone: bool = True


Outcome = Succeeded | Failed | WantsRetry | Ignored | Rejected | Lost


class RunnableOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker and the runner need to know of a task; ``None``: the setting decides (already resolved)."""

    ignore_result: bool
    store_errors_even_if_ignored: bool
    acks_late: bool
    acks_on_failure: bool
    acks_on_timeout: bool
    reject_on_worker_lost: bool | None  #: None: our default, retried within the crash budget
    retry_on_worker_lost: bool
    track_started: bool
    time_limit: float | None
    soft_time_limit: float | None
    rate_limit: str | float | None
    max_retries: int | None
    default_retry_delay: float
    throws: tuple[type[BaseException], ...] = ()
    result_serializer: str = "json"
    result_expires: float | None = None
    result_extended: bool = False
    resultrepr_maxsize: int = 1024
    accept_content: frozenset[str] = frozenset({"json", "application/json"})
    limits: tuple[BoundLimit, ...] = ()  #: of the whole cluster
    parameters: Parameters | None = None  #: of the function, where a limit may ask for arguments
    pool: str | None = None  #: where a worker has several; None: by the kind of its function


class Runnable(Protocol):
    """What the worker needs of a task. ``app.task.Task`` satisfies it."""

    name: str

    @property
    def runnable_options(self) -> RunnableOptions: ...
    @property
    def is_coroutine(self) -> bool: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body (``bind`` already applied). A coroutine function returns its coroutine."""
        ...

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None: ...
    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None: ...
    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None: ...
    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None: ...
    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None: ...


class Registry(Protocol):
    """What a child loads: the user's tasks, and the way their follow-ups are addressed and encoded."""

    @property
    def tasks(self) -> Mapping[str, Runnable]: ...

    def retry_message(self, context: Context, retry: Any) -> Outgoing:
        """The message of the next attempt that a raised ``errors.Retry`` asks for (same id, retries + 1)."""
        ...

    def follow_ups(self, context: Context, retval: Any) -> list[Outgoing]:
        """After success: the callbacks and the next step of the chain, with ``retval`` prepended."""
        ...

    def errbacks(self, context: Context, exc: BaseException) -> list[Outgoing]:
        """After failure: the ``link_error`` signatures, called with Celery's arguments."""
        ...

    def set_up_child(self, name: str) -> None:
        """A child that has loaded this registry begins. Logging is set up already."""
        ...

    def tear_down_child(self) -> None:
        """The child has run its last task."""
        ...

    def store(self, record: ResultRecord) -> None:
        """Write a state in mid-run (STARTED, custom states) at once. Blocking."""
        ...


class Loader(msgspec.Struct, frozen=True):
    """How a child gets its :class:`Registry`.

    ``resolve(target)(argument)`` builds it in a fresh interpreter; ``call`` is used instead where the nursery was
    forked from this very process (an app that was built in a test or a notebook has no importable name).
    """

    target: str  #: ``celeriac.app.loading:load_registry``
    argument: str  #: what the user gave to ``-A``; "" when only ``call`` can do it
    call: Callable[[], Registry] | None = None


WORKER_FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
TASK_FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"


class LogOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``worker_log_*``, ``worker_redirect_stdouts*`` and the options of the command line."""

    level: str | int = "WARNING"
    file: str | None = None
    format: str = WORKER_FORMAT
    task_format: str = TASK_FORMAT
    date_format: str | None = None
    task_date_format: str | None = None
    color: bool | None = None  #: None: on a terminal
    hijack_root: bool = True
    redirect: bool = True  #: what tasks print becomes log lines
    redirect_level: str | int = "WARNING"


class PoolOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The shape of a pool. Every executor is constructed as ``Driver(options, loader)``."""

    pool: str = "prefork"
    hostname: str = "celery@localhost"
    children: int = 2  #: processes
    slots_per_child: int = 1  #: threads or coroutines in each
    max_tasks_per_child: int | None = None
    max_memory_per_child_kib: int | None = None
    #: seconds until a child must have reported ready
    start_timeout: float = 30.0
    #: fork where it is safe, else spawn
    start_method: Literal["fork", "spawn"] = "fork"
    #: the event loop of coroutine tasks: ``asyncio``, ``uvloop``, or ``auto``: uvloop where it is installed
    loop: str = "auto"
    #: at most this many requests are handed to a child beyond its slots, and only while its tasks are short
    look_ahead: int = 256
    #: of every task that has none of its own, in seconds; for executors that have to refuse one
    hard_limit: float | None = None
    #: seconds between the soft and the hard end of a task that is made to stop
    kill_grace: float = 3.0
    #: a shortened repr of results, for logs and events, is only made when somebody reads it
    show_results: bool = True
    #: how children log; None: to stderr, leaving loggers alone that are set up already
    logs: LogOptions | None = None
    #: bounds for decoding task bodies (wire.limits.Limits as a mapping), applied in the child
    limits: dict[str, int] = {}


#: ``soft``: an exception is raised in the task; ``hard``: its process is killed; ``unstarted``: only if the task has
#: not begun
Cancel = Literal["soft", "hard", "unstarted"]


class Executor(Protocol):
    """Runs requests. One owner, on one asyncio loop; never raises for a task's own faults."""

    @property
    def slots(self) -> int:
        """How many requests can run at one time."""
        ...

    async def start(self) -> None:
        """Returns when every slot can take work. Raises ``ImproperlyConfigured`` when the user's code can't load."""
        ...

    def room(self) -> int:
        """How many requests :meth:`submit` takes now without piling up (free slots plus look-ahead)."""
        ...

    def submit(self, batch: Sequence[Request]) -> None:
        """Take the batch; its outcomes will come. Does not block."""
        ...

    async def outcomes(self) -> Sequence[Outcome]:
        """Wait for at least one outcome and return all there are."""
        ...

    def cancel(self, task_id: str, how: Cancel) -> bool:
        """Make it end, or not begin. False: not here. What begins in this moment may be met or missed."""
        ...

    async def stop(self, grace: float) -> Sequence[Request]:
        """Stop: the unstarted are returned, the running get ``grace`` seconds, then are killed (outcome Lost)."""
        ...


class InWork(msgspec.Struct, frozen=True):
    """A request that runs now."""

    id: str
    pid: int  #: of the process it runs in
    since: float  #: ``time.monotonic()`` of its start


@runtime_checkable
class Inspectable(Protocol):
    """Optional, on an Executor: for people who look."""

    def in_work(self) -> Sequence[InWork]:
        """What runs at this moment; microseconds per child. May contain what has just ended."""
        ...

    def processes(self) -> Sequence[int]:
        """The process ids of the children."""
        ...


class Condition(msgspec.Struct, frozen=True):
    """How a pool is, at one moment."""

    processes: int  #: that work or take work
    #: of these, how many have been given work, run nothing, and have not been heard of for a moment
    stalled: int


@runtime_checkable
class Examinable(Protocol):
    """Optional, on an Executor: for probes."""

    def condition(self) -> Condition:
        """Microseconds per child. A single ``stalled`` means nothing, one that lasts means that a process hangs."""
        ...


@runtime_checkable
class Resizable(Protocol):
    """Optional, on an Executor whose number of processes can change while it runs."""

    def resize(self, children: int) -> None:
        """Have so many processes from now on; what runs in those that go is let end. Does not block."""
        ...


@runtime_checkable
class Recalls(Protocol):
    """Optional, on an Executor that takes requests before it can run them."""

    async def recall(self) -> Sequence[Request]:
        """Start nothing more from now on; what has not started, at once. :meth:`Executor.stop` is still to come."""
        ...


@runtime_checkable
class Spares(Protocol):
    """Optional, on an Executor that takes requests before it can run them."""

    def spare(self, is_wanted: Callable[[Request], bool]) -> Sequence[Request]:
        """Of what waits in it and no child has, what is wanted, the next one first; the executor is rid of it."""
        ...


@runtime_checkable
class Divided(Protocol):
    """Optional, on an Executor of several pools: every task has its own among them, and waits only for that."""

    names: Sequence[str]
    pools: Sequence[Executor]

    def place(self, task: str) -> int:
        """Which of the pools runs tasks of this name."""
        ...

    def rooms(self) -> list[int]:
        """:meth:`Executor.room` of every pool."""
        ...


@runtime_checkable
class Renewable(Protocol):
    """Optional, on an Executor whose processes can be replaced while it runs."""

    def renew(self, reload: bool) -> None:
        """Replace them one by one; what runs in those that go is let end. Does not block.

        ``reload``: by processes that import the user's code anew; raises ``ImproperlyConfigured`` where they can't.
        """
        ...
