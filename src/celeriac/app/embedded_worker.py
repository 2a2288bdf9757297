"""``app.Worker(...)``: a worker inside the calling process, for tests and scripts.

The one file of the façade that knows the engine, because Celery's API demands it (ARCHITECTURE, section 2.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from celeriac.errors import ImproperlyConfigured
from celeriac.executors.base import Loader
from celeriac.ids import node_name

if TYPE_CHECKING:
    from celeriac.app.celery import Celeriac
    from celeriac.transports.base import QueueSpec
    from celeriac.worker.options import UserSteps


def worker_of(app: Celeriac, options: Mapping[str, Any]) -> Any:
    """Build a worker for ``app``; ``hostname``, ``queues`` and the fields of ``WorkerOptions`` are its options."""
    from celeriac.worker.assembly import build_worker
    from celeriac.worker.options import WorkerOptions

    given = dict(options)
    hostname = node_name(given.pop("hostname", None))
    queues = _chosen(app, given.pop("queues", None))
    level = given.pop("loglevel", None)
    if level is not None:
        given["log_level"] = level
    unknown = sorted(set(given) - set(WorkerOptions.__struct_fields__))
    if unknown:
        raise ImproperlyConfigured(f"a worker has no option {', '.join(unknown)}")
    registry = app.worker_registry()
    target = app.import_target() or ""
    loader = Loader("celeriac.app.loading:load_registry", target, call=lambda: registry)
    return build_worker(
        WorkerOptions(hostname=hostname, queues=queues, app_name=app.name, **given), app.settings, registry.tasks,
        loader, app.reading_transport, app.store, outlet=app.transport,
        find_queue=app.router.queue, steps=user_steps(app, {}), open_limiter=app.open_limiter,
    )  # fmt: skip


def user_steps(app: Celeriac, options: Mapping[str, Any]) -> UserSteps:
    """What the app adds to its workers; ``options``: the values of its own options of the command line."""
    from celeriac.app.wiring import declared_queue
    from celeriac.worker.options import UserSteps

    return UserSteps(
        app, tuple(app.steps.get("worker", ())), tuple(app.steps.get("consumer", ())), dict(options),
        lambda given: app.router.queue(given) if isinstance(given, str) else declared_queue(given, app.settings),
    )  # fmt: skip


def _chosen(app: Celeriac, names: str | Iterable[str] | None) -> tuple[QueueSpec, ...]:
    if names is None:
        return tuple(app.queues.values())
    wanted = names.split(",") if isinstance(names, str) else list(names)
    return tuple(app.router.queue(name) for name in wanted)
