"""What a setting is and what a group of settings is: declared once, read by everybody.

A group is a frozen, typed value whose attributes carry Celery's flat names. From the declarations come validation,
command-line overrides, old names, ``check``, ``explain`` and the reference page. Knows no setting by name.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, ClassVar, NoReturn, Self, TypeVar, cast, dataclass_transform

from celeriac.errors import ImproperlyConfigured, UnknownSetting
from celeriac.settings.values import MaybeSeconds, Mismatch, Seconds, Url, coerce, describe

T = TypeVar("T")


class Differs:
    """Where a default of ours is not, or does not mean, what Celery's is."""

    __slots__ = ("celery", "ours", "why")

    def __init__(self, celery: Any, why: str, ours: str | None = None) -> None:
        self.celery = celery  #: Celery's default, or its meaning in words
        self.why = why
        self.ours = ours  #: the meaning of our default in words, when its value does not say it


class Declaration:
    """One setting: its default, type and meaning. ``name`` and the rest of the place are filled in by the group."""

    __slots__ = ("annotation", "default", "derive", "differs", "doc", "group", "name", "ours", "secret", "was")

    def __init__(
        self, default: Any, doc: str, *, was: str | None, differs: Differs | None, ours: bool, secret: bool,
        derive: "str | Callable[[Any], Any] | None",
    ) -> None:  # fmt: skip
        self.name = ""
        self.group = ""
        self.annotation: Any = None
        self.default = default  #: as declared, so a timedelta stays one
        self.doc = doc
        self.was: str | None = was  #: the upper-case name of Celery 3, None if there was none
        self.differs = differs
        self.ours = ours  #: Celery has no such setting
        self.secret = secret
        self.derive = derive  #: where the value comes from while it is None: a setting's name or a function

    @property
    def initial(self) -> Any:
        """The default in the declared type. Not checked, for the sake of import time; a test does that."""
        default, annotation = self.default, self.annotation
        if annotation is Seconds or annotation is MaybeSeconds:
            if isinstance(default, timedelta):
                return default.total_seconds()
            return None if default is None else float(default)
        return default

    @property
    def type_text(self) -> str:
        return describe(self.annotation)

    def coerced(self, value: Any) -> Any:
        """``value`` in the declared type. Raises ``ImproperlyConfigured`` naming setting, value and type."""
        try:
            return coerce(value, self.annotation)
        except Mismatch:
            raise ImproperlyConfigured(self.complaint(value)) from None

    def complaint(self, value: Any, source: str = "") -> str:
        from celeriac.settings.censor import censored

        shown = "a hidden value" if self.secret else _short(censored({self.name: value}, {self.name: self})[self.name])
        origin = f" (from {source})" if source else ""
        return f"{self.name} must be {self.type_text}, not {shown} of type {type(value).__name__}{origin}"

    def __repr__(self) -> str:
        return f"<setting {self.name}: {self.type_text} = {self.default!r}>"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


#: Says that the old name follows from the pattern of the group.
BY_PATTERN = "{pattern}"


def setting(
    default: T, doc: str, *, was: str | None = BY_PATTERN, differs: Differs | None = None, ours: bool = False,
    secret: bool = False, derive: str | Callable[[Any], Any] | None = None,
) -> T:  # fmt: skip
    """Declare a setting of the annotated type. ``was``: its old name where the group's pattern does not give it."""
    was = None if ours else was
    declared = Declaration(default, doc, was=was, differs=differs, ours=ours, secret=secret, derive=derive)
    return cast("T", declared)


def seconds(
    default: float | timedelta, doc: str, *, was: str | None = BY_PATTERN, ours: bool = False,
) -> Seconds:  # fmt: skip
    """Declare a duration."""
    return cast("Seconds", setting(default, doc, was=was, ours=ours))


def maybe_seconds(
    default: float | timedelta | None, doc: str, *, was: str | None = BY_PATTERN, differs: Differs | None = None,
    derive: str | None = None,
) -> MaybeSeconds:  # fmt: skip
    """Declare a duration that may be None."""
    return cast("MaybeSeconds", setting(default, doc, was=was, differs=differs, derive=derive))


def url(
    doc: str, *, was: str | None = BY_PATTERN, differs: Differs | None = None, ours: bool = False,
    derive: str | Callable[[Any], Any] | None = None,
) -> Url:  # fmt: skip
    """Declare an address: one URL or several, None by default."""
    return cast("Url", setting(None, doc, was=was, differs=differs, ours=ours, derive=derive))


@dataclass_transform(kw_only_default=True)
class SettingsGroup:
    """A frozen set of settings. Build it with keywords, change it with ``replace``."""

    #: every setting of the class by name, those of its bases included
    declarations: ClassVar[Mapping[str, Declaration]] = {}
    _derived: ClassVar[tuple[Declaration, ...]] = ()
    _mutable: ClassVar[tuple[str, ...]] = ()

    _given: dict[str, Any]

    def __init_subclass__(cls, *, title: str = "", was: str = "") -> None:
        """``was``: pattern of old names, with ``{name}`` for the upper-cased name and ``{rest}`` without its prefix."""
        found: dict[str, Declaration] = {}
        for base in cls.__bases__:
            found.update(getattr(base, "declarations", {}))
        for name, annotation in dict(cls.__annotations__).items():
            declared = cls.__dict__.get(name)
            if not isinstance(declared, Declaration):
                continue
            declared.name, declared.annotation, declared.group = name, annotation, title
            if declared.was == BY_PATTERN:
                rest = name.partition("_")[2].upper()
                declared.was = was.format(name=name.upper(), rest=rest) if was else None
            setattr(cls, name, declared.initial)
            found[name] = declared
        cls.declarations = found
        cls._derived = tuple(d for d in found.values() if d.derive is not None)
        cls._mutable = tuple(d.name for d in found.values() if isinstance(d.default, dict))

    def __init__(self, **values: Any) -> None:
        given: dict[str, Any] = {}
        wrong: list[str] = []
        for name, value in values.items():
            declared = self.declarations.get(name)
            if declared is None:
                raise unknown_setting(name, self.declarations, type(self).__name__)
            try:
                given[name] = coerce(value, declared.annotation)
            except Mismatch:
                wrong.append(declared.complaint(value))
        if wrong:
            raise ImproperlyConfigured("; ".join(wrong))
        self._fill(given)

    def _fill(self, given: dict[str, Any]) -> None:
        state = self.__dict__
        state["_given"] = given
        for name in self._mutable:  # a default is never shared, so changing one changes nobody else's
            state[name] = dict(self.declarations[name].default)
        state.update(given)
        for declared in self._derived:
            if getattr(self, declared.name) is None:
                state[declared.name] = _derive(declared, self)

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed; what was derived from them is derived again."""
        return type(self)(**{**self._given, **changes})

    __replace__ = replace

    def given(self) -> dict[str, Any]:
        """What was set explicitly."""
        return dict(self._given)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"settings are frozen; use replace({name}=...) to get a changed copy")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"settings are frozen; {name} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.declarations)

    __hash__ = None  # type: ignore[assignment]  # values may be dicts

    def __repr__(self) -> str:
        from celeriac.settings.censor import censored

        changed = {name: value for name, value in self._given.items() if value != self.declarations[name].initial}
        shown = censored(changed, self.declarations)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


def _derive(declared: Declaration, settings: SettingsGroup) -> Any:
    if isinstance(declared.derive, str):
        return getattr(settings, declared.derive, None)
    assert declared.derive is not None
    return declared.derive(settings)


def suggestion(name: str, known: Iterable[str], cutoff: float = 0.75) -> str | None:
    """The known name that ``name`` is most likely a slip of."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return close[0] if close else None


def unknown_setting(name: str, known: Mapping[str, Declaration], where: str) -> UnknownSetting:
    """The error for a name that nobody declared, with the most likely cure."""
    for declared in known.values():
        if declared.was == name:
            return UnknownSetting(f"{where} has no setting {name!r}: it is the old name of {declared.name!r}")
    close = suggestion(name, known)
    hint = f"Did you mean {close!r}?" if close else "See the settings reference for all names."
    return UnknownSetting(f"{where} has no setting {name!r}. {hint}")
