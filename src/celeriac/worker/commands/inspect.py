"""Commands that only look. Their replies have Celery's shapes, so that Celery's tools and Flower read them."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from celeriac.ids import is_safe_id
from celeriac.settings.censor import censored
from celeriac.worker.commands import shapes
from celeriac.worker.commands.panel import PANEL, Entry, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from celeriac.worker.commands.state import WorkerState

#: what ``registered`` shows of a task, where it is set (Celery's choice)
_SHOWN_OF_TASK = ("exchange", "routing_key", "rate_limit")
_MOST_IDS = 1000


def command(kind: Kind, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register one of our own."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        text = (function.__doc__ or "").strip().partition("\n")[0]
        name = options.pop("name", function.__name__)
        PANEL.add(Entry(name=name, kind=kind, function=function, help=text, is_ours=True, **options))
        return function

    return register


@command("inspect", default_timeout=0.2)
def ping(state: WorkerState, **_: Any) -> dict[str, str]:
    """Ask who is there."""
    return {"ok": "pong"}


@command("inspect")
def clock(state: WorkerState, **_: Any) -> dict[str, int]:
    """Show the logical clock."""
    return {"clock": state.lamport.value}


@command("inspect")
def report(state: WorkerState) -> dict[str, str]:
    """Show versions, platform and settings, for bug reports."""
    from celeriac import __version__

    lines = [
        "",
        f"software -> celeriac:{__version__} py:{platform.python_version()}",
        f"platform -> system:{platform.system()} arch:{platform.machine()} imp:{platform.python_implementation()}",
        f"settings -> transport:{state.broker} results:{state.results}",
        "",
        *(f"{name}: {value!r}" for name, value in _settings(state, False).items()),
    ]
    return {"ok": "\n".join(lines) + "\n"}


@command("inspect", name="conf", alias="dump_conf", signature="[include_defaults=False]",
         args=(("with_defaults", lambda text: str(text).lower() in ("1", "true", "yes", "on")),))  # fmt: skip
def conf(state: WorkerState, with_defaults: bool = False, **_: Any) -> dict[str, Any]:
    """Show the configuration; secrets are masked."""
    return {name: _plain(value) for name, value in _settings(state, bool(with_defaults)).items()}


def _settings(state: WorkerState, with_defaults: bool) -> dict[str, Any]:
    settings = state.settings
    declared = settings.declarations
    given = {name: value for name, value in settings.given().items() if value != declared[name].initial}
    if with_defaults:
        given = {name: getattr(settings, name) for name in declared}
    return censored(given, settings.declarations)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return repr(value)


@command("inspect")
def stats(state: WorkerState, **_: Any) -> dict[str, Any]:
    """Show counts, pool, broker and resources."""
    sized = {} if state.autoscaler is None else {"autoscaler": state.autoscaler.info()}
    return sized | {
        "total": dict(state.claims.totals),
        "pid": os.getpid(),
        "clock": str(state.lamport.value),
        "uptime": round(state.clock.monotonic() - state.started_at),
        "pool": shapes.pool(state),
        "broker": shapes.broker(state),
        "prefetch_count": state.plan.prefetch_multiplier * state.executor.slots,
        "rusage": _resources(),
        "control": {"answered": state.counts.answered, "refused": state.counts.refused},
    }


def _resources() -> dict[str, Any]:
    try:
        import resource
    except ImportError:  # not on every system
        return {}
    used = resource.getrusage(resource.RUSAGE_SELF)
    names = ("utime", "stime", "maxrss", "ixrss", "idrss", "isrss", "minflt", "majflt", "nswap", "inblock", "oublock",
             "msgsnd", "msgrcv", "nsignals", "nvcsw", "nivcsw")  # fmt: skip
    return {name: getattr(used, f"ru_{name}") for name in names}


@command("inspect", alias="dump_active")
def active(state: WorkerState, safe: bool | None = False, **_: Any) -> list[dict[str, Any]]:
    """List the tasks that run."""
    return shapes.infos(state, shapes.sorted_by_progress(state)[0], bool(safe))


@command("inspect", alias="dump_reserved")
def reserved(state: WorkerState, **_: Any) -> list[dict[str, Any]]:
    """List the tasks that wait here for a free slot."""
    return shapes.infos(state, shapes.sorted_by_progress(state)[1])


@command("inspect", alias="dump_schedule")
def scheduled(state: WorkerState, **_: Any) -> list[dict[str, Any]]:
    """List the tasks that wait here for their time."""
    return shapes.scheduled(state)


@command("inspect")
def limits(state: WorkerState, **_: Any) -> list[dict[str, Any]]:
    """List the limits of the whole cluster that tasks wait for here, or have permits of."""
    return shapes.limits(state)


@command("inspect")
def declared_limits(state: WorkerState, **_: Any) -> list[dict[str, Any]]:
    """List the limits of the whole cluster that are declared here, with their numbers of today and in the code."""
    return shapes.declared_limits(state)


@command("inspect", alias="dump_revoked")
def revoked(state: WorkerState, **_: Any) -> list[str]:
    """List the ids of tasks that are not to run any more."""
    return state.admission.revoked.newest()


@command("inspect")
def revoked_stamps(state: WorkerState, **_: Any) -> dict[str, list[str]]:
    """List the stamped headers by whose values tasks are not to run any more."""
    revoked = state.admission.revoked
    revoked.tidy()
    return {header: list(values)[-_MOST_IDS:] for header, values in revoked.stamps.items()}


@command("inspect", alias="dump_tasks", variadic="taskinfoitems", signature="[attribute1 ... [attributeN]]")
def registered(
    state: WorkerState, taskinfoitems: Sequence[str] | None = None, builtins: bool = False, **_: Any
) -> list[str]:
    """List the registered tasks."""
    wanted = list(map(str, taskinfoitems or _SHOWN_OF_TASK))[:20]
    names = sorted(name for name in state.tasks if builtins or not name.startswith(("celery.", "celeriac.")))
    return [_described(state.tasks[name], name, wanted) for name in names]


def _described(task: Any, name: str, wanted: Sequence[str]) -> str:
    found = {item: getattr(task, item, None) for item in wanted if not item.startswith("_")}
    shown = [f"{item}={value}" for item, value in found.items() if value is not None and not callable(value)]
    return f"{name} [{' '.join(shown)}]" if shown else name


@command("inspect")
def active_queues(state: WorkerState) -> list[dict[str, Any]]:
    """List the queues that messages are taken from."""
    return [shapes.queue(spec) for spec in state.queues]


@command("inspect", variadic="ids", signature="[id1 [id2 [... [idN]]]]")
def query_task(state: WorkerState, ids: str | Sequence[str], **_: Any) -> dict[str, list[Any]]:
    """Show tasks by id, and whether they run, wait or are kept until their time."""
    wanted = {one for one in ([ids] if isinstance(ids, str) else ids)[:_MOST_IDS] if is_safe_id(one)}
    running, waiting = shapes.sorted_by_progress(state)
    working = shapes.in_work(state)
    found: dict[str, list[Any]] = {}
    later = [claim for _, claim in state.claims.later()] + [claim for _, claim, _ in shapes.lined(state)]
    for kind, claims in (("scheduled", later), ("reserved", waiting), ("active", running)):
        for claim in claims:
            if claim.id in wanted:
                found[claim.id] = [kind, shapes.info(state, claim, working)]
    return found


@command("inspect", visible=False)
def hello(state: WorkerState, from_node: str, revoked: Any = None, **_: Any) -> dict[str, Any] | None:
    """Exchange what is revoked with a worker that has just started."""
    if from_node == state.hostname:
        return None
    if isinstance(revoked, dict | list | tuple):
        state.learn(revoked)
    return {"revoked": state.admission.revoked.newest(), "clock": state.lamport.forward()}


@command("inspect")
def memsample(state: WorkerState, **_: Any) -> str | None:
    """Show how much memory the worker's own process uses."""
    return _memory()


@command("inspect", signature="[n_samples=10]", args=(("samples", int),))
def memdump(state: WorkerState, samples: int = 10, **_: Any) -> str:
    """Show how much memory the worker's own process uses, as text."""
    return f"- rss {_memory() or 'unknown'}\n"


def _memory() -> str | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return f"{pages * os.sysconf('SC_PAGE_SIZE') / (1 << 20):.2f}MB"


@command("inspect", default_timeout=60.0, signature="[object_type=Request] [num=200 [max_depth=10]]",
         args=(("type", str), ("num", int), ("max_depth", int)))  # fmt: skip
def objgraph(state: WorkerState, **_: Any) -> dict[str, str]:
    """Draw a graph of objects: not part of celeriac."""
    return {"error": "celeriac draws no object graphs; a profiler such as memray shows what holds memory"}
