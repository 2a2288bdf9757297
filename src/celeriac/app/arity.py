"""Does a call fit the function? Asked on the caller's side, before anything is sent.

Reads the code object instead of ``inspect``, which would double the cost of importing the package and is slow per
call; callables without one are asked through ``inspect.signature``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from celeriac.rules.limit_keys import Parameters

#: bits of ``co_flags`` (Python's data model): the function takes ``*args``, ``**kwargs``
_VARARGS: Final = 0x04
_VARKEYWORDS: Final = 0x08

Checker = Callable[[Sequence[Any], Mapping[str, Any]], None]


class Arity:
    """The shape of a function's parameters; calling it raises ``TypeError`` for arguments that do not fit."""

    __slots__ = ("_defaults", "accepts_any_keyword", "keyword_only", "maximum", "name", "positional",
                 "positional_only", "required", "required_keywords", "simple")  # fmt: skip

    def __init__(self, function: Any, skip: int) -> None:
        code = function.__code__
        flags = code.co_flags
        names = code.co_varnames
        count = code.co_argcount
        self.name: str = function.__name__
        #: parameters that may be given by position, without the ``skip`` leading ones (``self`` of a bound task)
        self.positional: tuple[str, ...] = names[skip:count]
        self.positional_only = frozenset(names[skip : max(skip, code.co_posonlyargcount)])
        self.keyword_only: tuple[str, ...] = names[count : count + code.co_kwonlyargcount]
        self.required = max(0, len(self.positional) - len(function.__defaults__ or ()))
        given = function.__kwdefaults__ or {}
        self.required_keywords = tuple(name for name in self.keyword_only if name not in given)
        self.maximum: int | None = None if flags & _VARARGS else len(self.positional)
        self.accepts_any_keyword = bool(flags & _VARKEYWORDS)
        self.simple = not self.required_keywords and self.maximum is not None
        self._defaults = (function.__defaults__ or (), given)

    def __call__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        if not kwargs and self.simple and self.required <= len(args) <= len(self.positional):
            return
        self._check(args, kwargs)

    def parameters(self) -> Parameters:
        """As limits are counted by them."""
        by_position, by_name = self._defaults
        positional = self.positional
        defaults = dict(zip(positional[len(positional) - len(by_position) :], by_position, strict=False))
        return Parameters(
            positional=positional, keyword_only=self.keyword_only, defaults={**defaults, **by_name},
            takes_more=self.maximum is None, takes_any_keyword=self.accepts_any_keyword,
        )  # fmt: skip

    def _check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        if self.maximum is not None and len(args) > self.maximum:
            raise TypeError(self._too_many(len(args)))
        by_position = self.positional[: len(args)]
        for name in kwargs:
            if name in self.positional and name not in self.positional_only:
                if name in by_position:
                    raise TypeError(f"{self.name}() got multiple values for argument {name!r}")
            elif name not in self.keyword_only and not self.accepts_any_keyword:
                raise TypeError(f"{self.name}() got an unexpected keyword argument {name!r}")
        required = self.positional[len(args) : self.required]
        missing = [name for name in required if name not in kwargs or name in self.positional_only]
        if missing:
            raise TypeError(f"{self.name}() {_missing(missing, 'positional')}")
        missing = [name for name in self.required_keywords if name not in kwargs]
        if missing:
            raise TypeError(f"{self.name}() {_missing(missing, 'keyword-only')}")

    def _too_many(self, given: int) -> str:
        most = len(self.positional)
        takes = f"{most}" if self.required == most else f"from {self.required} to {most}"
        plural = "" if most == 1 else "s"
        were = "was" if given == 1 else "were"
        return f"{self.name}() takes {takes} positional argument{plural} but {given} {were} given"

    def room_for_more_than(self, count: int, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether it takes more than ``count`` positional arguments besides these."""
        if self.maximum is None:
            return True
        by_name = sum(name in kwargs for name in self.positional[len(args) :])
        return self.maximum - len(args) - by_name > count


def _missing(names: Sequence[str], kind: str) -> str:
    plural = "" if len(names) == 1 else "s"
    return f"missing {len(names)} required {kind} argument{plural}: {' and '.join(map(repr, names))}"


def arity_of(function: Any, skip: int = 0) -> Checker:
    """What checks a call of ``function``; ``skip``: how many leading parameters the caller does not give."""
    if getattr(function, "__func__", None) is not None:  # asked first: a method shows its function's __code__ too
        return Arity(function.__func__, skip + 1)
    if getattr(function, "__code__", None) is not None:
        return Arity(function, skip)
    return _by_inspection(function, skip)


def _by_inspection(function: Any, skip: int) -> Checker:
    import inspect

    try:
        found = inspect.signature(function)
    except (TypeError, ValueError):  # a builtin that does not say
        return lambda args, kwargs: None
    found = found.replace(parameters=list(found.parameters.values())[skip:])
    name = getattr(function, "__name__", type(function).__name__)

    def check(args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        try:
            found.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}() {error}") from None

    return check
