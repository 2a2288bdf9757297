"""From what the user typed after ``-A`` to the app, and from the app to the modules that hold its tasks."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from celeriac.app.celery import Celeriac
from celeriac.errors import ImproperlyConfigured

if TYPE_CHECKING:
    from celeriac.app.registry import AppRegistry


def find_app(target: str) -> Celeriac:
    """The app that ``target`` names: ``module``, ``module:attribute``, ``package.module.attribute``.

    In a module the app is called ``app`` or ``celery``; else, in a package, its sub-module ``celery`` is asked; else
    any app among the module's values will do. The working directory is searched first.
    Raises ``ModuleNotFoundError`` for a module that is missing (its own or one it imports: see ``.name``),
    ``ImproperlyConfigured`` where there is a module but no app; whatever the module raises comes through.
    """
    if not target or not target.strip():
        raise ImproperlyConfigured("no app was named: give its module, for example -A hello")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    module_name, colon, attribute = target.partition(":")
    found = _attribute(_import(module_name), attribute, target) if colon and attribute else _by_dots(module_name)
    if isinstance(found, ModuleType):
        found = _app_in(found, target)
    if not isinstance(found, Celeriac):
        raise ImproperlyConfigured(f"{target} is not an app but a {type(found).__name__}")
    return found


def load_registry(target: str) -> AppRegistry:
    """The app of ``target`` with every task module imported: what a worker's child runs tasks from."""
    app = find_app(target)
    app.set_current()
    return app.worker_registry()


def _import(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ImproperlyConfigured(f"{name!r} is not the name of a module")
    return importlib.import_module(name)


def _by_dots(path: str) -> Any:
    """A module, or the longest importable front of ``path`` with the rest as attributes."""
    try:
        return _import(path)
    except ModuleNotFoundError as error:
        # only the absence of a part of the path itself means that the part may be an attribute
        if error.name is None or not (path == error.name or path.startswith(f"{error.name}.")) or "." not in path:
            raise
        front, _, last = path.rpartition(".")
        try:
            owner = _by_dots(front)
        except ModuleNotFoundError:
            raise error from None
        return _attribute(owner, last, path)


def _attribute(owner: Any, attribute: str, target: str) -> Any:
    found = owner
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            where = f"module {found.__name__!r}" if isinstance(found, ModuleType) else f"{found!r}"
            raise ImproperlyConfigured(f"{where} has no attribute {part!r} (looking for {target})") from None
    return found


def _app_in(module: ModuleType, target: str) -> Any:
    for name in ("app", "celery"):
        found = getattr(module, name, None)
        if isinstance(found, Celeriac):
            return found
    # a package whose attribute of that name is the sub-module that holds the app
    if hasattr(module, "__path__"):
        submodule = f"{module.__name__}.celery"
        if submodule in sys.modules or importlib.util.find_spec(submodule) is not None:
            return _app_in(importlib.import_module(submodule), target)
    for value in vars(module).values():
        if isinstance(value, Celeriac):
            return value
    raise ImproperlyConfigured(
        f"module {module.__name__!r} holds no app: expected {module.__name__}.app = Celeriac(...) "
        f"(looking for {target})"
    )


def import_task_modules(names: Iterable[str]) -> Iterator[ModuleType]:
    """Import the modules that the settings ``imports`` and ``include`` name."""
    for name in names:
        yield importlib.import_module(name)


def discover(packages: Iterable[str], related_name: str | None) -> None:
    """Import ``package.related_name`` of each package; a package that has none is passed over.

    An import error from inside such a module is not swallowed.
    """
    for package in packages:
        name = package if related_name is None else f"{package}.{related_name}"
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            if related_name is not None:
                importlib.import_module(package)  # a typo in the package's own name must not pass silently
