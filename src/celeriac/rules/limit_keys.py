"""What a limit is counted by: a tiny language of paths into a call's arguments and headers, and what it finds there.

``args.tenant``, ``args[0]``, ``kwargs.order["customer"].id``, ``headers.tenant``. A path is compiled against the
task's parameters, so it finds the same value whether the caller gave it by position, by name or not at all. Nothing is
evaluated: a step looks up a key of a mapping or an item of a list. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

_ROOTS: Final = ("args", "kwargs", "headers")
_ROOT = re.compile(r"[A-Za-z_]\w*")
_STEP = re.compile(
    r"""\.(?P<name>[A-Za-z_]\w*)|\[(?P<index>\d{1,9})\]|\["(?P<double>[^"\]]+)"\]|\['(?P<single>[^'\]]+)'\]"""
)
#: values longer than this, or with characters that do not belong in keys and log lines, are counted by their hash
_LONGEST = 64
_PLAIN = re.compile(r"[\w.@:+\-/ ]*", re.ASCII)
#: what stands for a value in a body that the worker's own process may not or cannot read
UNREADABLE: Final = "(unreadable)"


class Path(msgspec.Struct, frozen=True):
    """A path as written, taken apart."""

    text: str
    root: str
    steps: tuple[str | int, ...]


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a task's function, as far as calls can name them."""

    positional: tuple[str, ...] = ()
    keyword_only: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = {}
    takes_more: bool = False  #: ``*args``
    takes_any_keyword: bool = False  #: ``**kwargs``


class Selector(msgspec.Struct, frozen=True):
    """A path that knows its task: where the value is, and what it is when the call does not say."""

    position: int | None  #: among the positional arguments
    name: str | None  #: among the keyword arguments, or of the header
    default: Any
    steps: tuple[str | int, ...]
    is_header: bool = False

    def find(self, args: Sequence[Any], kwargs: Mapping[str, Any], headers: Mapping[str, Any]) -> Any:
        """The value; None where the path leads nowhere."""
        if self.is_header:
            value = headers.get(self.name or "")
        elif self.position is not None and self.position < len(args):
            value = args[self.position]
        else:
            value = self.default if self.name is None else kwargs.get(self.name, self.default)
        for step in self.steps:
            value = _step(value, step)
        return value


def _step(value: Any, step: str | int) -> Any:
    if isinstance(value, Mapping):
        return value.get(step)
    if isinstance(value, list | tuple) and isinstance(step, int):
        return value[step] if step < len(value) else None
    return None


def parse_path(text: object) -> Path:
    """Take a path apart. Raises ``ValueError`` that says what is wrong with it."""
    if not isinstance(text, str) or not text:
        raise ValueError(f"a limit's key is text such as 'args.tenant', 'args[0]' or 'headers.tenant', not {text!r}")
    found = _ROOT.match(text)
    root = found[0] if found else ""
    if root not in _ROOTS:
        hint = f" (did you mean 'args.{text}'?)" if root == text else ""
        raise ValueError(f"key {text!r} must begin with args, kwargs or headers{hint}")
    steps: list[str | int] = []
    position = len(root)
    while position < len(text):
        step = _STEP.match(text, position)
        if step is None:
            raise ValueError(
                f'key {text!r} cannot be read from {text[position:]!r} on; steps are .name, [0] and ["name"]'
            )
        named = step["name"] or step["double"] or step["single"]
        steps.append(int(step["index"]) if named is None else named)
        position = step.end()
    if not steps:
        raise ValueError(f"key {text!r} names no {'header' if root == 'headers' else 'argument'}; write {root}.NAME")
    if root != "args" and isinstance(steps[0], int):
        raise ValueError(f"key {text!r}: {root} have names and no numbers; write {root}.NAME")
    return Path(text, root, tuple(steps))


def select(path: Path, parameters: Parameters | None) -> Selector:
    """Compile a path for a task. ``parameters`` None: they are not known, a builtin does not say.

    Raises ``ValueError`` when no call of the task could have such an argument.
    """
    first, rest = path.steps[0], path.steps[1:]
    if path.root == "headers":
        return Selector(None, str(first), None, rest, is_header=True)
    if parameters is None:
        return Selector(
            first if isinstance(first, int) else None, first if isinstance(first, str) else None, None, rest
        )
    positional = parameters.positional
    if isinstance(first, int):
        if first < len(positional):
            return Selector(first, positional[first], parameters.defaults.get(positional[first]), rest)
        if parameters.takes_more:
            return Selector(first, None, None, rest)
        raise ValueError(f"key {path.text!r}: the task takes {len(positional)} positional arguments")
    if first in positional:
        return Selector(positional.index(first), first, parameters.defaults.get(first), rest)
    if first in parameters.keyword_only or parameters.takes_any_keyword:
        return Selector(None, first, parameters.defaults.get(first), rest)
    known = ", ".join((*positional, *parameters.keyword_only)) or "none"
    raise ValueError(f"key {path.text!r}: the task has no argument {first!r}; it has: {known}")


def text_of(value: Any) -> str:
    """A value as part of a counter's name: short, printable, the same for equal values.

    A number and its digits are one value: what one caller sends as ``7`` another sends as ``"7"``.
    """
    if type(value) is str:
        text = value
    elif value is None or isinstance(value, bool | int | float | dict | list | tuple):
        import json

        try:
            text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
        except (TypeError, ValueError, RecursionError):
            text = repr(value)
    else:
        text = str(value)
    if len(text) <= _LONGEST and _PLAIN.fullmatch(text):
        return text
    import hashlib

    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
    readable = "".join(letter for letter in text[:20] if _PLAIN.fullmatch(letter))
    return f"{readable}#{digest}"
