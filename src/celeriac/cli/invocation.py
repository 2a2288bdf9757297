"""What the global options said, and the app that a command works on.

The only file of the command line that finds apps; every way in which that can fail is told in one line.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click
import msgspec

from celeriac.cli.failures import Failure, describe
from celeriac.cli.origin import Origin
from celeriac.errors import ImproperlyConfigured

if TYPE_CHECKING:
    from celeriac.app.celery import Celeriac
else:
    Celeriac = object


class Invocation(msgspec.Struct, kw_only=True):
    """One run of ``celeriac``."""

    app_target: str | None
    broker: str | None
    config_module: str | None
    color: bool
    quiet: bool
    origin: Origin = msgspec.field(default_factory=Origin.of_this_process)
    #: the app of ``-A``, or why there is none; each is found out once
    found: Celeriac | Failure | None = None

    def apply(
        self, *, broker: str | None, result_backend: str | None, config_module: str | None, loader: str | None,
        workdir: str | None,
    ) -> None:  # fmt: skip
        """Make the options true for this process and those it starts, as Celery does: through the environment."""
        for name, value in (
            ("CELERIAC_BROKER_URL", broker),
            ("CELERIAC_RESULT_BACKEND", result_backend),
            ("CELERIAC_CONFIG_MODULE", config_module),
            ("CELERIAC_LOADER", loader),
        ):
            if value:
                os.environ[name] = value
        if workdir:
            os.chdir(workdir)
        here = os.getcwd()
        if here not in sys.path:
            sys.path.insert(0, here)

    def pool_name(self, given: str | None) -> str | None:
        """The pool that ``-P`` means: for ``custom``, as with Celery, the class that a variable names."""
        if given != "custom":
            return given
        path = os.environ.get("CELERY_CUSTOM_WORKER_POOL")
        if not path:
            raise Failure("-P custom: the variable CELERY_CUSTOM_WORKER_POOL must name a class (module:Class).")
        return path

    @property
    def autoscale_quiet(self) -> float:
        """Seconds of less need before a pool shrinks (``AUTOSCALE_KEEPALIVE``, Celery's variable)."""
        text = os.environ.get("AUTOSCALE_KEEPALIVE", "30")
        try:
            return float(text)
        except ValueError:
            raise Failure(f"AUTOSCALE_KEEPALIVE: {text!r} is not a number of seconds.") from None

    @property
    def term_is_cold(self) -> bool:
        """Whether SIGTERM is to mean what SIGQUIT means, as platforms ask for that send nothing but SIGTERM."""
        return os.environ.get("REMAP_SIGTERM") == "SIGQUIT"

    def app(self) -> Celeriac:
        """The app of ``-A``; without it, when a broker is named, an app without tasks of its own."""
        if self.app_target:
            return self._load(self.app_target)
        if self.broker:
            from celeriac.app.celery import Celeriac

            return Celeriac("default")
        raise Failure("Which app? Say celeriac -A MODULE …, or name a broker: celeriac -b URL …")

    def app_with_tasks(self) -> tuple[Celeriac, str]:
        """The app of ``-A``, which the command cannot do without, and its name."""
        if not self.app_target:
            raise Failure("Which app? Say celeriac -A MODULE worker, where MODULE is the module that holds it.")
        return self._load(self.app_target), self.app_target

    def _load(self, target: str) -> Celeriac:
        if self.found is None:
            try:
                self.found = self._find(target)
            except Failure as failure:
                self.found = failure
        if isinstance(self.found, Failure):
            raise self.found
        return self.found

    def _find(self, target: str) -> Celeriac:
        """The app with its configuration read, since the module of that may be missing or broken too."""
        from celeriac.settings.sources import import_configuration

        app = load(target)
        try:
            if self.config_module:
                import_configuration(self.config_module)
            app.conf.finalize()
        except ImproperlyConfigured:
            raise
        except Exception as error:
            raise Failure(f"Cannot read the configuration of {target!r}: {describe(error)}") from error
        return app


def load(target: str) -> Celeriac:
    """Find the app. Ends the command with one line when that fails, whatever the user's module does."""
    from celeriac.app.loading import find_app

    try:
        return find_app(target)
    except ModuleNotFoundError as error:
        missing = error.name or str(error)
        if target.partition(":")[0].startswith(missing):
            where = f"there is no module {missing!r} in {os.getcwd()} or on the path"
        else:
            where = f"it imports {missing!r}, which is not installed"
        raise Failure(f"Cannot load the app {target!r}: {where}.") from error
    except (ImproperlyConfigured, AttributeError) as error:
        raise Failure(f"Cannot load the app {target!r}: {error}") from error
    except Exception as error:
        module = target.partition(":")[0]
        raise Failure(
            f"Cannot load the app {target!r}: {describe(error)}. The whole traceback: python -c 'import {module}'"
        ) from error


pass_invocation = click.make_pass_decorator(Invocation)
