"""One place that configuration comes from: a dict, module, class or object, read live under new and old names.

Owns importing it by name, the two families of names and the rule against mixing them. Values are passed on untouched.
"""

import importlib
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, Final

from celeriac.errors import ImproperlyConfigured
from celeriac.settings import Settings
from celeriac.settings.base import SettingsGroup
from celeriac.settings.values import is_mapping

DECLARATIONS = Settings.declarations

#: upper-case name of Celery 3 → name
NAME_OF_OLD: Mapping[str, str] = {declared.was: name for name, declared in DECLARATIONS.items() if declared.was}

MISSING: Final = object()  #: no such key; None is a value


class Source:
    """A configuration object with its names understood. Reads through, so later changes to the object are seen."""

    def __init__(self, given: Any, label: str, namespace: str | None = None) -> None:
        self.label = label
        self.namespace = namespace
        self._object = given
        self._mapping: Mapping[str, Any] | None = given if is_mapping(given) else None
        self._prefix = f"{namespace}_" if namespace else ""

    def read(self, key: str) -> Any:
        """The value under this very key, or ``MISSING``."""
        if self._mapping is not None:
            return self._mapping.get(key, MISSING)
        return getattr(self._object, key, MISSING)

    def find(self, name: str) -> tuple[Any, str]:
        """The value of a setting (or of a user's own key) and the key it stands under; ``MISSING`` if it has none."""
        for key in self.candidates(name):
            value = self.read(key)
            if value is not MISSING:
                return value, key
        return MISSING, name

    def candidates(self, name: str) -> Iterator[str]:
        """The keys that ``name`` may stand under, the strongest first."""
        if self._prefix and not name.startswith(self._prefix):
            yield self.prefixed(name)
        yield name
        declared = DECLARATIONS.get(name)
        if declared is not None and declared.was and not self._prefix:
            yield declared.was

    def prefixed(self, name: str) -> str:
        """``name`` in the source's namespace, in the case of the namespace."""
        return f"{self._prefix}{name.upper() if self._prefix.isupper() else name}"

    def keys(self) -> list[str]:
        """Every public key, settings or not."""
        if self._mapping is not None:
            return [str(key) for key in self._mapping]
        if isinstance(self._object, ModuleType):
            return [key for key in vars(self._object) if not key.startswith("_")]
        return [key for key in dir(self._object) if not key.startswith("_")]

    def names(self) -> dict[str, str]:
        """What is set here: name of the setting, or the user's own key → key in the source.

        With a namespace only keys in it count as the user's own, and code (imports, functions) never does.
        """
        found: dict[str, str] = {}
        for key in self.keys():
            name = self.name_of(key)
            if name in DECLARATIONS:
                found[name] = self.find(name)[1]
            elif (not self._prefix or key.startswith(self._prefix)) and self._holds_data(key):
                found[key] = key
        return found

    def name_of(self, key: str) -> str:
        """The setting that ``key`` stands for, or ``key`` itself."""
        if self._prefix:
            rest = key[len(self._prefix) :].lower() if key.startswith(self._prefix) else key
            return rest if rest in DECLARATIONS else key
        return NAME_OF_OLD.get(key, key)

    def old_names(self) -> dict[str, str]:
        """Old names in use → the names that replace them."""
        return {key: NAME_OF_OLD[key] for key in self.keys() if key in NAME_OF_OLD and not self._is_prefixed_name(key)}

    def _is_prefixed_name(self, key: str) -> bool:
        return bool(self._prefix) and key.startswith(self._prefix) and key[len(self._prefix) :].lower() in DECLARATIONS

    def _holds_data(self, key: str) -> bool:
        if self._mapping is not None:
            return True
        value = self.read(key)
        return value is not MISSING and not (isinstance(value, ModuleType | type) or _is_routine(value))

    def refuse_mixed_names(self) -> None:
        """Old and new names in one source are a mistake waiting to happen, unless a setting is given under both.

        Raises ``ImproperlyConfigured`` with the renaming that makes the source consistent; a tie is for new names.
        """
        if self._prefix:
            return
        keys = set(self.keys())
        new = {key for key in keys if key in DECLARATIONS}
        old = {key for key in keys if key in NAME_OF_OLD}
        if len(old) > len(new):
            renames = {key: DECLARATIONS[key].was or f"no old name for {key}" for key in new}
        else:
            renames = {key: NAME_OF_OLD[key] for key in old}
        needed = {key: other for key, other in sorted(renames.items()) if other not in keys}
        if needed:
            advice = ", ".join(f"{key} -> {other}" for key, other in needed.items())
            raise ImproperlyConfigured(
                f"{self.label} mixes old upper-case and new lower-case names of settings. "
                f"Most are {'old' if len(old) > len(new) else 'new'}, so rename: {advice}"
            )


def open_source(given: Any, namespace: str | None, silent: bool) -> Source | None:
    """The source that ``given`` (a name, mapping, module, class or object) stands for; None if missing and ``silent``.

    Raises ``ImportError`` if the name leads nowhere, ``ImproperlyConfigured`` if names are mixed.
    """
    label = _label(given)
    if isinstance(given, SettingsGroup):
        given = given.given()
    if isinstance(given, str):
        try:
            given = import_configuration(given)
        except ImportError:
            if silent:
                return None
            raise
    source = Source(given, label, namespace)
    source.refuse_mixed_names()
    return source


def _is_routine(value: object) -> bool:
    import inspect  # dear to import, and only objects with attributes need it

    return inspect.isroutine(value)


def _label(given: Any) -> str:
    if isinstance(given, str):
        return given
    if isinstance(given, ModuleType):
        return f"module {given.__name__}"
    if isinstance(given, type):
        return f"class {given.__module__}.{given.__qualname__}"
    if isinstance(given, dict):
        return "the configuration dict"
    return f"the configuration object {type(given).__name__}"


def import_configuration(name: str) -> Any:
    """The module, or attribute of a module, called ``name``: ``package.module``, ``module:attr`` or ``module.Class``.

    An ``ImportError`` from within that module is not mistaken for its absence.
    """
    module_name, colon, attribute = name.partition(":")
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not _is_part_of(error.name, module_name):
            raise
        if module_name.endswith(".py"):
            raise ImproperlyConfigured(
                f"{name!r} is a file name; the configuration is named like a module: {module_name[:-3]!r}"
            ) from error
        parent, dot, last = module_name.rpartition(".")
        if colon or not dot:
            error.add_note(f"The configuration was to be read from {name!r}.")
            raise
        return _attribute(importlib.import_module(parent), last, name)
    return _attribute(found, attribute, name) if colon else found


def _is_part_of(missing: str | None, module_name: str) -> bool:
    return missing is not None and (module_name == missing or module_name.startswith(f"{missing}."))


def _attribute(found: Any, path: str, name: str) -> Any:
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise ImportError(f"no configuration at {name!r}: {found!r} has no {part!r}") from error
    return found
