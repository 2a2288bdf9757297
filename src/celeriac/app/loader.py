"""Loaders: an app's class for reading settings and for being told of a worker's moments (``Celeriac(loader=…)``).

Celery's names. The hooks are connected to signals, and only those that a loader overrides.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from celeriac import signals
from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import ImproperlyConfigured
from celeriac.settings.loading import from_environment

if TYPE_CHECKING:
    from types import ModuleType

    from celeriac.app.celery import Celeriac


class BaseLoader:
    """Override the hooks that you need."""

    builtin_modules: Iterable[str] = frozenset()
    override_backends: Mapping[str, str] = {}
    worker_initialized = False

    def __init__(self, app: Celeriac, **options: Any) -> None:
        self.app = app
        self.task_modules: set[str] = set()

    # ── hooks ────────────────────────────────────────────────────────────────────────────────────────────────

    def read_configuration(self, env: str = "CELERY_CONFIG_MODULE") -> Mapping[str, Any] | None:
        """Settings, under those that the app changes and over its configuration object."""
        return None

    def on_task_init(self, task_id: str, task: Any) -> None:
        """Before each task; in the process that runs it."""

    def on_process_cleanup(self) -> None:
        """After each task; in the process that ran it."""

    def on_worker_init(self) -> None:
        """Before a worker begins, in its own process."""

    def on_worker_shutdown(self) -> None:
        """After it has ended, in its own process."""

    def on_worker_process_init(self) -> None:
        """When a child begins, in that."""

    # ── what the hooks are called by ─────────────────────────────────────────────────────────────────────────

    def init_worker(self) -> None:
        if not self.worker_initialized:
            self.worker_initialized = True
            self.import_default_modules()
            self.on_worker_init()

    def shutdown_worker(self) -> None:
        self.on_worker_shutdown()

    def init_worker_process(self) -> None:
        self.on_worker_process_init()

    # ── what they may use ────────────────────────────────────────────────────────────────────────────────────

    @property
    def conf(self) -> Any:
        return self.app.conf

    def now(self, utc: bool = True) -> datetime:
        moment = SYSTEM_CLOCK.now()
        return (moment if utc else moment.astimezone()).replace(tzinfo=None)

    def import_module(self, module: str, package: str | None = None) -> ModuleType:
        return importlib.import_module(module, package)

    import_from_cwd = import_module

    def import_task_module(self, module: str) -> ModuleType:
        self.task_modules.add(module)
        return self.import_module(module)

    def import_default_modules(self) -> list[ModuleType]:
        """Everything that is to hold tasks, and :attr:`builtin_modules`."""
        return [*map(self.import_module, self.builtin_modules), *self.app.import_default_modules()]

    def config_from_object(self, obj: Any, silent: bool = False) -> bool:
        self.app.config_from_object(obj, silent=silent)
        return True

    def autodiscover_tasks(self, packages: Iterable[str], related_name: str | None = "tasks") -> None:
        self.app.autodiscover_tasks(packages, related_name, force=True)


class AppLoader(BaseLoader):
    """What an app has unless it names another."""


class Loader(BaseLoader):
    """Reads the module ``celeryconfig``, or the one that ``CELERY_CONFIG_MODULE`` names, where there is one."""

    def read_configuration(self, env: str = "CELERY_CONFIG_MODULE") -> Mapping[str, Any] | None:
        named = from_environment(env)
        name = named or "celeryconfig"
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name or named:
                raise
            return None
        return {key: value for key, value in vars(module).items() if not key.startswith("_")}


def loader_of(app: Celeriac, given: Any) -> BaseLoader:
    """Make the loader from a class or its path. Raises ``ImproperlyConfigured``."""
    from celeriac.plugins import resolve

    if given in (None, "app"):
        return AppLoader(app)
    if given == "default":
        return Loader(app)
    cls = resolve(given) if isinstance(given, str) else given
    if not isinstance(cls, type):
        raise ImproperlyConfigured(f"loader: {given!r} is not a class")
    made: BaseLoader = cls(app)
    return made


def connect(loader: BaseLoader) -> None:
    """Have the hooks that it overrides be called in this process and those that are forked from it."""
    uid = f"loader-{id(loader)}"
    for hooks, signal, call in (
        (("init_worker", "on_worker_init"), signals.worker_init, lambda **_: loader.init_worker()),
        (("shutdown_worker", "on_worker_shutdown"), signals.worker_shutdown, lambda **_: loader.shutdown_worker()),
        (
            ("init_worker_process", "on_worker_process_init"), signals.worker_process_init,
            lambda **_: loader.init_worker_process(),
        ),
        (
            ("on_task_init",), signals.task_prerun,
            lambda task_id, task, **_: loader.on_task_init(task_id, task),
        ),
        (("on_process_cleanup",), signals.task_postrun, lambda **_: loader.on_process_cleanup()),
    ):  # fmt: skip
        if any(getattr(type(loader), hook, None) is not getattr(BaseLoader, hook) for hook in hooks):
            signal.connect(call, weak=False, dispatch_uid=uid)
