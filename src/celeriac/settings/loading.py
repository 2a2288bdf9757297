"""Where configuration comes from: ``Configuration`` is what ``app.conf`` is, a mapping over several sources.

Values are passed on as they were given; ``settings`` is the same, checked, typed and frozen. Strongest first: command
line, environment (addresses and the event loop), changes at run time, keywords of the app, added defaults, the
configuration object, defaults. This package alone reads the environment.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple

from celeriac.errors import CeleryWarning, ImproperlyConfigured
from celeriac.settings import Settings
from celeriac.settings.base import Declaration, suggestion
from celeriac.settings.censor import censored
from celeriac.settings.overrides import parse_overrides
from celeriac.settings.places import embedded_path, local_zone, state_home, zone
from celeriac.settings.sources import DECLARATIONS, MISSING, NAME_OF_OLD, Source, open_source
from celeriac.settings.values import Mismatch, coerce

if TYPE_CHECKING:
    from celeriac.settings.attributes import ConfigurationAttributes
else:
    ConfigurationAttributes = object  # attributes are looked up by name; their types are for the reader alone

#: setting → environment variables that win over every file; the first one that is set and not empty counts
ENVIRONMENT: Mapping[str, tuple[str, str]] = {
    name: (f"CELERIAC_{name.upper()}", f"CELERY_{name.upper()}")
    for name in ("broker_url", "broker_read_url", "broker_write_url", "result_backend", "worker_loop")
}

#: what is looked at while the setting is None; TIME_ZONE is Django's
_FALL_BACK: Mapping[str, str] = {
    "broker_url": "broker_host",
    "broker_read_url": "broker_url",
    "broker_write_url": "broker_url",
    "task_default_exchange": "task_default_queue",
    "task_default_routing_key": "task_default_queue",
    "timezone": "TIME_ZONE",
}

_AT_RUN_TIME = "changed at run time"
_KEYWORD = "keyword of the app"
_COMMAND_LINE = "command line"
_DEFAULT = "default"


class Explanation(NamedTuple):
    """Why a setting has its value."""

    name: str
    value: Any
    shown: Any  #: the value with secrets masked, for printing
    source: str
    default: Any
    doc: str
    was: str | None


class Option(NamedTuple):
    """A setting found by part of its name."""

    namespace: str
    key: str
    option: Declaration


class _Given(NamedTuple):
    value: Any
    source: str


def from_environment(*names: str) -> str:
    """The first of these variables that is set and not empty; else empty."""
    return next((text for name in names if (text := os.environ.get(name))), "")


class Configuration(MutableMapping[str, Any], ConfigurationAttributes):
    """The configuration of one app. Sources are opened on first reading; writing never opens them.

    Names may be new, old, or in the namespace, as keys or as attributes. Not safe to change from several threads.
    """

    def __init__(
        self, keywords: Mapping[str, Any] | None = None, *, namespace: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        state = self.__dict__
        state["namespace"] = namespace or None
        state["_environ"] = os.environ if environ is None else environ
        state["_overrides"] = {}
        state["_changes"] = {}
        state["_added"] = []
        state["_pending"] = None
        state["_source"] = None
        state["_own_defaults"] = {}
        state["_settings"] = None
        for key, value in (keywords or {}).items():
            self._change(key, value, _KEYWORD)

    namespace: str | None
    _environ: Mapping[str, str]
    _overrides: dict[str, Any]
    _changes: dict[str, _Given]
    _added: list[Source | Callable[[], Mapping[str, Any]]]
    _pending: tuple[Any, bool] | None
    _source: Source | None
    _own_defaults: dict[str, Any]
    _settings: Settings | None

    # ── sources ──────────────────────────────────────────────────────────────────────────────────────────────

    def config_from_object(
        self, given: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> None:
        """Read configuration from a module (or its name), class, object or mapping, on first use or now (``force``).

        ``silent``: a name that cannot be imported counts as empty. Changes made so far stay in force.
        """
        state = self.__dict__
        state["_pending"] = (given, silent)
        state["_source"] = state["_settings"] = None
        if namespace:
            state["namespace"] = namespace
        if force:
            self._open()

    def config_from_envvar(
        self, variable: str, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> bool:
        """Read configuration from the module named by an environment variable; False if unset and ``silent``."""
        name = self._environ.get(variable)
        if not name:
            if silent:
                return False
            raise ImproperlyConfigured(
                f"The environment variable {variable} is not set; it must name the module that holds the configuration"
            )
        self.config_from_object(name, silent=silent, force=force, namespace=namespace)
        return True

    def add_defaults(self, given: Mapping[str, Any] | Callable[[], Mapping[str, Any]]) -> None:
        """Put values under the changes but over the configuration object; a function is called on first reading."""
        self._added.insert(0, given if callable(given) else Source(given, "added defaults", self.namespace))
        self._forget()

    def override(self, values: Mapping[str, Any]) -> None:
        """Set what the command line says: it wins over everything."""
        for key, value in values.items():
            self._overrides[self._name_of(key)] = value
        self._forget()

    def finalize(self) -> "Configuration":
        """Open the sources now, so that their faults show."""
        self._open()
        return self

    def _open(self) -> None:
        if self._pending is not None:
            given, silent = self._pending
            if isinstance(given, Configuration):
                given = given.without_defaults()
            self.__dict__["_source"] = open_source(given, self.namespace, silent)
            self.__dict__["_pending"] = None
        for index, added in enumerate(self._added):
            if not isinstance(added, Source):
                self._added[index] = Source(added(), "added defaults", self.namespace)

    def _sources(self) -> Iterator[Source]:
        self._open()
        yield from (added for added in self._added if isinstance(added, Source))
        if self._source is not None:
            yield self._source

    def _forget(self) -> None:
        self.__dict__["_settings"] = None

    # ── looking up ───────────────────────────────────────────────────────────────────────────────────────────

    def _name_of(self, key: str) -> str:
        if key in DECLARATIONS:
            return key
        if self.namespace and key.startswith(f"{self.namespace}_"):
            name = key[len(self.namespace) + 1 :].lower()
            if name in DECLARATIONS:
                return name
        return NAME_OF_OLD.get(key, key)

    def _given(self, name: str) -> _Given | None:
        """What was set, and where; defaults aside."""
        if name in self._overrides:
            return _Given(self._overrides[name], _COMMAND_LINE)
        for variable in ENVIRONMENT.get(name, ()):
            if text := self._environ.get(variable):
                return _Given(text, f"environment variable {variable}")
        if name in self._changes:
            return self._changes[name]
        for source in self._sources():
            value, key = source.find(name)
            if value is not MISSING:
                return _Given(value, source.label if key == name else f"{source.label}, as {key}")
        return None

    def _default(self, name: str) -> Any:
        default = DECLARATIONS[name].default
        if not isinstance(default, dict):
            return default
        return self._own_defaults.setdefault(name, {**default})  # users add to them in place

    def __getitem__(self, key: str) -> Any:
        name = self._name_of(key)
        given = self._given(name)
        if given is None and name not in DECLARATIONS:
            raise KeyError(key)
        value = self._default(name) if given is None else given.value
        if value is None and name in _FALL_BACK:
            return self.get(_FALL_BACK[name])
        return value

    def __getattr__(self, key: str) -> Any:
        if key.startswith("_") or key in Configuration.__annotations__:  # not yet there: being copied or unpickled
            raise AttributeError(key)
        try:
            return self[key]
        except KeyError:
            close = suggestion(key, DECLARATIONS)
            hint = f" Did you mean {close!r}?" if close else ""
            raise AttributeError(f"The configuration has no setting {key!r}.{hint}") from None

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        name = self._name_of(key)
        return name in DECLARATIONS or self._given(name) is not None

    def __iter__(self) -> Iterator[str]:
        yield from DECLARATIONS
        yield from (name for name in self._names() if name not in DECLARATIONS)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _names(self) -> list[str]:
        """Every name that is set somewhere, the user's own keys too."""
        found = dict.fromkeys([*self._overrides, *self._changes])
        for name in ENVIRONMENT:
            if name not in found and self._given(name) is not None:
                found[name] = None
        for source in self._sources():
            found.update(dict.fromkeys(source.names()))
        return list(found)

    def first(self, *keys: str) -> Any:
        """The first of these settings that is not None, else None."""
        return next((value for value in map(self.get, keys) if value is not None), None)

    # ── changing ─────────────────────────────────────────────────────────────────────────────────────────────

    def _change(self, key: str, value: Any, source: str) -> None:
        self._changes[self._name_of(key)] = _Given(value, source)
        self._forget()

    def __setitem__(self, key: str, value: Any) -> None:
        self._change(key, value, _AT_RUN_TIME)

    def __setattr__(self, key: str, value: Any) -> None:
        if key.startswith("_") or hasattr(type(self), key):
            raise AttributeError(f"{key!r} is a part of the configuration itself; use conf[{key!r}] for a key of yours")
        self[key] = value

    def __delitem__(self, key: str) -> None:
        name = self._name_of(key)
        if name not in self._changes:
            raise KeyError(key)
        del self._changes[name]
        self._forget()

    def __delattr__(self, key: str) -> None:
        try:
            del self[key]
        except KeyError:
            raise AttributeError(f"{key!r} was not changed, so there is nothing to take back") from None

    def pop(self, key: str, *default: Any) -> Any:
        """Take back a change (or keyword) and return it; nothing else is removed."""
        found = self._changes.pop(self._name_of(key), None)
        self._forget()
        if found is not None:
            return found.value
        if default:
            return default[0]
        raise KeyError(key)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Set what nobody has set yet."""
        if self._given(self._name_of(key)) is None:
            self[key] = default
        return self[key]

    def clear(self) -> None:
        """Take back all changes."""
        self._changes.clear()
        self._forget()

    @property
    def changes(self) -> dict[str, Any]:
        """Keywords of the app and changes at run time."""
        return {name: given.value for name, given in self._changes.items()}

    def copy(self) -> "Configuration":
        """Another one over the same sources, whose changes are its own."""
        twin = Configuration(namespace=self.namespace, environ=self._environ)
        twin._changes.update(self._changes)
        twin._overrides.update(self._overrides)
        twin._added.extend(self._added)
        twin.__dict__["_pending"] = self._pending
        twin.__dict__["_source"] = self._source
        return twin

    # ── the typed side ───────────────────────────────────────────────────────────────────────────────────────

    @property
    def settings(self) -> Settings:
        """Everything, checked and frozen; the same object until something changes.

        Raises ``ImproperlyConfigured`` that names every value of a wrong type and where it came from.
        """
        if self._settings is None:
            self.__dict__["_settings"] = self._resolve()
        found = self._settings
        assert found is not None
        return found

    def _resolve(self) -> Settings:
        values, wrong = self._read_all()
        if wrong:
            raise ImproperlyConfigured("; ".join(wrong.values()))
        return Settings(**values)

    def wrong_values(self) -> dict[str, str]:
        """Settings whose values are not of their type → what to say about each."""
        return self._read_all()[1]

    def _read_all(self) -> tuple[dict[str, Any], dict[str, str]]:
        values: dict[str, Any] = {}
        wrong: dict[str, str] = {}
        for name, declared in DECLARATIONS.items():
            given = self._given(name)
            if given is None or (name == "timezone" and given.value is None):
                if isinstance(declared.default, dict):
                    values[name] = self._default(name)
                elif name == "timezone" and self.get("TIME_ZONE"):
                    values[name] = self.get("TIME_ZONE")
                continue
            try:
                values[name] = coerce(given.value, declared.annotation)
            except Mismatch:
                wrong[name] = declared.complaint(given.value, given.source)
        return values, wrong

    def refresh(self) -> None:
        """Notice that a configuration object, which is read live, has changed."""
        self._forget()

    # ── telling ──────────────────────────────────────────────────────────────────────────────────────────────

    def explain(self, key: str) -> Explanation:
        """The value of a setting, where it came from, and what it means. Raises ``KeyError``."""
        name = self._name_of(key)
        declared, given = DECLARATIONS.get(name), self._given(name)
        value = self[name]
        source = _DEFAULT if given is None else given.source
        if (given is None or given.value is None) and value is not None and name in _FALL_BACK:
            source = f"{_FALL_BACK[name]}, since {name} is not set"
        shown = censored({name: value}, DECLARATIONS)[name]
        if declared is None:
            return Explanation(name, value, shown, source, None, "A key of your own; celeriac does not read it.", None)
        return Explanation(name, value, shown, source, declared.default, declared.doc, declared.was)

    def without_defaults(self) -> dict[str, Any]:
        """What was set, by whatever means."""
        found = ((name, self._given(name)) for name in self._names())
        return {name: given.value for name, given in found if given is not None}

    def value_set_for(self, key: str) -> bool:
        """Whether the setting has another value than its default because somebody gave one."""
        return self._given(self._name_of(key)) is not None

    def given_keys(self) -> dict[str, Any]:
        """What was set, under the very keys it was given, for ``check``."""
        found: dict[str, Any] = {}
        for source in reversed(list(self._sources())):
            found.update({key: source.read(key) for key in source.names().values()})
            found.update({key: source.read(key) for key in source.old_names()})
        return {**found, **self.changes, **self._overrides}

    def table(self, with_defaults: bool = False, censored: bool = True) -> dict[str, Any]:
        """Settings by name for showing; secrets are masked unless ``censored`` is off."""
        values = dict(self) if with_defaults else self.without_defaults()
        values = {key: value for key, value in values.items() if not key.startswith("_")}
        return _censored(values) if censored else values

    def humanize(self, with_defaults: bool = False, censored: bool = True) -> str:
        """The table as lines of text."""
        from pprint import pformat

        shown = self.table(with_defaults, censored)
        return "\n".join(f"{key}: {pformat(value, width=50)}" for key, value in shown.items())

    def __repr__(self) -> str:
        return f"<Configuration {self.table()!r}>"

    def find_option(self, name: str, namespace: str = "") -> Option:
        """The setting called ``name`` in the namespace, or else in any. Raises ``KeyError``."""
        name = name.lower()
        declared = DECLARATIONS.get(f"{namespace}_{name}") or DECLARATIONS.get(name)
        if declared is None:
            declared = next((d for d in DECLARATIONS.values() if d.name.partition("_")[2] == name), None)
        if declared is None:
            raise KeyError(name)
        if declared.group == "general":
            return Option("", declared.name, declared)
        prefix, _, key = declared.name.partition("_")
        return Option(prefix, key, declared)

    def find_value_for_key(self, name: str, namespace: str = "celery") -> Any:
        """The value of what ``find_option`` finds."""
        return self.get_by_parts(*self.find_option(name, namespace)[:2])

    def get_by_parts(self, *parts: str) -> Any:
        """``get_by_parts("task", "acks_late")`` is ``conf["task_acks_late"]``."""
        return self["_".join(part for part in parts if part)]

    @property
    def deprecated_settings(self) -> dict[str, str]:
        """Old names in use → the names that replace them."""
        found: dict[str, str] = {}
        for source in self._sources():
            if not source.namespace:
                found.update(source.old_names())
        return found

    def maybe_warn_deprecated_settings(self) -> bool:
        """Warn once about old names, if there are any."""
        renames = self.deprecated_settings
        if renames:
            advice = ", ".join(f"{old} -> {new}" for old, new in sorted(renames.items()))
            warnings.warn(f"Old names of settings; rename: {advice}", CeleryWarning, stacklevel=2)
        return bool(renames)


def _censored(values: Mapping[str, Any]) -> dict[str, Any]:
    return censored(values, DECLARATIONS)


def load(
    given: Any = None, *, namespace: str | None = None, environ: Mapping[str, str] | None = None, **values: Any
) -> Configuration:
    """A configuration from one object (see ``config_from_object``) and keywords."""
    configuration = Configuration(values, namespace=namespace, environ=environ)
    if given is not None:
        configuration.config_from_object(given)
    return configuration


__all__ = [
    "ENVIRONMENT", "Configuration", "Explanation", "Option", "embedded_path", "load", "local_zone", "parse_overrides",
    "state_home", "zone",
]  # fmt: skip
