"""Tables that look like earlier ones: what they share is compared as bytes instead of being read again.

Two messages of one task differ in an id or two among twenty headers. From two tables of one length a shape is learned:
runs of bytes that were the same in both, with their values, and between them texts that differed. A shape is only a
short cut: whatever does not match it byte by byte is read as if there were none. Knows nothing of types on the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, NamedTuple

_UINT32 = Struct(">I").unpack_from
#: the type of long strings
_TEXT = ord("S")

#: lengths for which a shape is kept, and how often one is learned anew before what does not match is left alone
_LENGTHS, _LESSONS = 256, 16


class _Step(NamedTuple):
    run: bytes  #: entries that repeat; then name and type of the text that follows, if one does
    size: int
    values: dict[str, Any]
    fresh: tuple[tuple[str, Any], ...]  #: those of them that a receiver could change, to be copied
    name: str | None  #: of the text that follows


class _Slot:
    """What is known of tables of one length."""

    __slots__ = ("lessons", "previous", "steps", "varying")

    def __init__(self) -> None:
        self.lessons = 0
        self.previous: dict[str, Any] | None = None
        self.varying: set[str] = set()
        self.steps: tuple[_Step, ...] = ()


class Shapes:
    """The shapes seen by this process. Thread-safe: a shape is replaced whole."""

    def __init__(self) -> None:
        self._slots: dict[int, _Slot] = {}

    def read(self, data: bytes, text: str) -> dict[str, Any] | None:
        """The table, if it matches a shape. ``text``: ``data`` as Latin-1. Raises ``struct.error`` at a cut end."""
        slot = self._slots.get(len(data))
        if slot is None or not slot.steps:
            return None
        found: dict[str, Any] = {}
        at = 0
        for run, size, values, fresh, name in slot.steps:
            if not data.startswith(run, at):
                return None
            found.update(values)
            for key, container in fresh:
                found[key] = container.copy()
            at += size
            if name is not None:
                start = at + 4
                at = start + _UINT32(data, at)[0]
                value = text[start:at]
                if not value.isascii():
                    return None
                found[name] = value
        return found if at == len(data) else None

    def learn(self, data: bytes, found: dict[str, Any], ends: Callable[[], Sequence[int]]) -> None:
        """Take note of a table that had to be read. ``ends``: where each of its entries ends."""
        slot = self._slots.get(len(data))
        if slot is None:
            if len(self._slots) >= _LENGTHS:
                return
            slot = self._slots[len(data)] = _Slot()
        if slot.lessons >= _LESSONS:
            return
        slot.lessons += 1
        previous, slot.previous = slot.previous, dict(found)
        if previous is None or list(previous) != list(found):
            slot.varying = set()
            return
        slot.varying |= {name for name, value in found.items() if previous[name] != value}
        slot.steps = _steps(data, found, slot.varying, ends())


def _steps(data: bytes, found: dict[str, Any], varying: set[str], ends: Sequence[int]) -> tuple[_Step, ...]:
    """Empty where no shape can be made of it: names twice, containers in containers, other things than text vary."""
    if len(ends) != len(found):
        return ()
    steps: list[_Step] = []
    values: dict[str, Any] = {}
    since = at = 0
    for (name, value), end in zip(found.items(), ends, strict=True):
        if name in varying:
            head = at + data[at] + 2
            if data[head - 1] != _TEXT or not isinstance(value, str):
                return ()
            steps.append(_step(data[since:head], values, name))
            values, since = {}, end
        elif _is_deep(value):
            return ()
        else:
            values[name] = value
        at = end
    steps.append(_step(data[since:], values, None))
    return tuple(steps)


def _step(run: bytes, values: dict[str, Any], name: str | None) -> _Step:
    # the first table that had them is in its receiver's hands
    fresh = tuple((key, value.copy()) for key, value in values.items() if isinstance(value, dict | list))
    return _Step(run, len(run), values, fresh, name)


def _is_deep(value: Any) -> bool:
    if not isinstance(value, dict | list):
        return False
    return any(isinstance(item, dict | list) for item in (value.values() if isinstance(value, dict) else value))
