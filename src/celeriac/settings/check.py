"""Looking for mistakes in a configuration before they cost work: ``check``, and what differs from Celery.

Owns findings and everything about names; the rules about values are in ``check_rules.py``.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

from celeriac.errors import ImproperlyConfigured
from celeriac.settings import Settings
from celeriac.settings.base import suggestion

if TYPE_CHECKING:
    from celeriac.settings.loading import Configuration

Level = Literal["error", "warning", "note"]


class Finding(NamedTuple):
    """Something about a configuration that its owner should know.

    error: cannot work; warning: works, and will be regretted; note: has another effect than it seems.
    """

    level: Level
    setting: str
    text: str


@runtime_checkable
class Examines(Protocol):
    """Optional, on brokers and result stores: looks whether the server is fit for its use."""

    def examine(self) -> Sequence[Finding]:
        """Blocking, some seconds at most. An ``error`` among the findings: it must not be used this way.

        Raises what the driver raises when the server cannot be reached.
        """
        ...


class Difference(NamedTuple):
    """A default that is not, or does not mean, what Celery's does."""

    name: str
    ours: str
    celerys: str
    why: str


_ORDER: Mapping[str, int] = {"error": 0, "warning": 1, "note": 2}

#: keys without a declaration that something of ours reads all the same (Django's settings)
_READ_ELSEWHERE = frozenset(("TIME_ZONE", "CELERY_DB_REUSE_MAX", "DB_REUSE_MAX"))

#: how keys begin that are certainly meant for us
_OURS = (
    *{f"{name.partition('_')[0]}_" for name, d in Settings.declarations.items() if d.group != "general"},
    "CELERY_", "CELERYD_", "CELERYBEAT_", "CELERYMON_", "BROKER_",
)  # fmt: skip


def check(settings: Settings, given: Mapping[str, Any], namespace: str | None = None) -> list[Finding]:
    """What is wrong or doubtful, the worst first. ``given``: what was set, under the keys it was set with."""
    from celeriac.settings.check_rules import RULES

    found = [*_check_names(given, namespace), *_check_mixing(given, namespace)]
    for rule in RULES:
        found.extend(rule(settings))
    return sorted(found, key=lambda finding: _ORDER[finding.level])


def check_configuration(configuration: "Configuration") -> list[Finding]:
    """The same for ``app.conf``; what would be raised when it is read is a finding like others."""
    try:
        configuration.finalize()
    except (ImproperlyConfigured, ImportError) as error:
        return [Finding("error", "configuration", str(error))]
    given, wrong = configuration.given_keys(), configuration.wrong_values()
    if wrong:  # what can be said without a valid whole
        return [
            *(Finding("error", name, text) for name, text in wrong.items()),
            *_check_names(given, configuration.namespace),
        ]
    return check(configuration.settings, given, configuration.namespace)


def differences() -> list[Difference]:
    """Every default that differs from Celery's, and why."""
    return [
        Difference(
            declared.name,
            declared.differs.ours or f"`{declared.default!r}`",
            declared.differs.celery if isinstance(declared.differs.celery, str) else f"`{declared.differs.celery!r}`",
            declared.differs.why,
        )
        for declared in Settings.declarations.values()
        if declared.differs is not None
    ]


def _check_names(given: Mapping[str, Any], namespace: str | None) -> Iterator[Finding]:
    """Keys that nobody declared. Old names and keys in the namespace are known; what is neither may be the user's."""
    declarations = Settings.declarations
    old_names = {declared.was: declared.name for declared in declarations.values() if declared.was}
    prefix = f"{namespace}_" if namespace else ""
    own: list[str] = []
    for key in given:
        in_namespace = bool(prefix) and key.startswith(prefix)
        bare = key.removeprefix(prefix).lower() if in_namespace else key
        if bare in declarations or key in _READ_ELSEWHERE:
            continue
        if key in old_names:
            yield _old_name(key, old_names[key], prefix)
        elif in_namespace:
            close = suggestion(bare, declarations)
            yield _unknown(key, f"{prefix}{close.upper() if prefix.isupper() else close}" if close else None)
        elif key.startswith(_OURS) and not prefix:
            yield _unknown(key, suggestion(key, (*declarations, *old_names)))
        elif close := suggestion(key, declarations, cutoff=0.85):
            yield _unknown(key, close)
        else:
            own.append(key)
    if own:
        shown = ", ".join(own[:8]) + (f" and {len(own) - 8} more" if len(own) > 8 else "")
        yield Finding("note", own[0], f"No settings of celeriac, and kept for you: {shown}.")


def _unknown(key: str, close: str | None) -> Finding:
    if close:
        return Finding("warning", key, f"There is no setting {key!r}. Did you mean {close!r}?")
    return Finding("warning", key, f"There is no setting {key!r}; nothing of celeriac reads it.")


def _old_name(key: str, name: str, prefix: str) -> Finding:
    if prefix:
        return Finding(
            "warning", key, f"{key} is the old name of {name} and is not read here: with a namespace write "
            f"{prefix}{name.upper() if prefix.isupper() else name}.",
        )  # fmt: skip
    return Finding("note", key, f"{key} is the old name of {name}.")


def _check_mixing(given: Mapping[str, Any], namespace: str | None) -> Iterator[Finding]:
    """Old and new names together; one source that has both was refused already, several sources were not."""
    if namespace:
        return
    declarations = Settings.declarations
    old = [d.was for d in declarations.values() if d.was in given and d.was is not None]
    new = [key for key in given if key in declarations]
    if old and new:
        yield Finding(
            "note", old[0], f"Old names ({', '.join(old[:3])}{' …' if len(old) > 3 else ''}) and new names "
            f"({', '.join(new[:3])}{' …' if len(new) > 3 else ''}) are mixed; one module may use only one kind.",
        )  # fmt: skip
