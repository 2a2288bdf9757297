"""What a command line adds to an app: modules and settings, for this process and for those that load the app anew."""

from __future__ import annotations

import importlib
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

from celeriac.cli.failures import Failure, describe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celeriac.app.celery import Celeriac
    from celeriac.executors.base import Loader, Registry


class Additions(NamedTuple):
    """What the command line adds to an app; the worker's children load the app anew and need the same."""

    include: tuple[str, ...]
    settings: tuple[str, ...]  #: as written after ``--``

    def apply(self, app: Celeriac) -> None:
        """Import the modules, and set the settings over every other source of them."""
        from celeriac.settings.overrides import parse_overrides

        if self.settings:
            app.conf.override(parse_overrides(self.settings, "worker"))
        for module in self.include:
            importlib.import_module(module)

    def loader(self, target: str) -> Loader:
        """How children get the same tasks."""
        from celeriac.executors.base import Loader

        if self == NOTHING_ADDED:
            return Loader("celeriac.app.loading:load_registry", target)
        words = [target, *(f"-I{module}" for module in self.include), "--", *self.settings]
        return Loader("celeriac.cli.additions:load_registry", shlex.join(words))


NOTHING_ADDED = Additions((), ())


def load_registry(argument: str) -> Registry:
    """In a child: the tasks of an app with what the command line added (see :meth:`Additions.loader`)."""
    from celeriac.app.loading import find_app, load_registry

    target, *words = shlex.split(argument)
    end = words.index("--")
    additions = Additions(tuple(word.removeprefix("-I") for word in words[:end]), tuple(words[end + 1 :]))
    additions.apply(find_app(target))
    return load_registry(target)


def add(app: Celeriac, additions: Additions) -> None:
    try:
        additions.apply(app)
    except ImportError as error:
        raise Failure(f"-I: {describe(error)}") from error


def additions_of(options: Mapping[str, Any]) -> Additions:
    settings = list(options["settings"])
    if options["pool_start_method"]:
        settings.append(f"worker_pool_start_method={options['pool_start_method']}")
    if options["disable_prefetch"]:
        settings.append("worker_disable_prefetch=true")
    if options["task_events"]:
        settings.append("worker_send_task_events=true")
    return Additions(tuple(options["include"] or ()), tuple(settings))
