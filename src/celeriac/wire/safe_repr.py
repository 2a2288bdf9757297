"""A repr for logs, events and the ``argsrepr`` header: short, shallow, printable, never raising.

Looks like Celery's ``saferepr``: strings in single quotes, containers below ``max_levels`` as ``{...}``, at most about
``max_length`` characters. Unlike it, control characters are escaped, since the text ends in logs and terminals.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

#: of these Python's own repr is what we want, unless it had to escape or to switch quotes
_SCALARS = frozenset({str, int, bool, float, type(None)})
_ELLIPSIS = "..."
#: fast path: containers longer than this are cut by the slow one
_FAST_ITEMS = 32


def safe_repr(value: Any, max_length: int = 1024, max_levels: int = 3) -> str:
    """``value`` as text of about ``max_length`` characters (0: unlimited), ``max_levels`` containers deep."""
    kind = type(value)
    if (kind is tuple or kind is list or kind is dict) and max_levels > 0:
        if not value:
            return "()" if kind is tuple else "[]" if kind is list else "{}"
        if len(value) <= _FAST_ITEMS:
            text = _fast(value, kind, max_length)
            if text is not None:
                return text
    writer = _Writer(max_length or 1 << 62, max_levels)
    writer.write_value(value, 0)
    return "".join(writer.pieces)


def _fast(value: Any, kind: type, max_length: int) -> str | None:
    """Python's repr of a flat container, when it says what ours would; else None."""
    if kind is dict:
        if not _SCALARS.issuperset(map(type, value)):
            return None
        items: Iterable[Any] = value.values()
    else:
        items = value
    for item in items:
        item_kind = type(item)
        if item_kind is str:
            if len(item) > max_length:
                return None
        elif item_kind not in _SCALARS:
            return None
    try:
        text = repr(value)
    except ValueError:  # an integer of more than 4,300 digits
        return None
    if len(text) > max_length or "\\" in text or '"' in text:
        return None
    return text


class _Full(Exception):
    """The text has reached its length."""


class _Writer:
    """Collects pieces until the length is used up, then closes what is open."""

    def __init__(self, max_length: int, max_levels: int) -> None:
        self.pieces: list[str] = []
        self._left = max_length
        self._max_length = max_length
        self._max_levels = max_levels
        self._path: set[int] = set()  # ids of the open containers, to notice cycles

    def write_value(self, value: Any, level: int) -> None:
        try:
            self._write(value, level)
        except _Full:
            return

    def _put(self, text: str) -> None:
        self.pieces.append(text)
        self._left -= len(text)

    def _write(self, value: Any, level: int) -> None:
        if isinstance(value, dict):
            self._write_container(value, level, "{", "}", dict)
        elif isinstance(value, list):
            self._write_container(value, level, "[", "]", list)
        elif isinstance(value, tuple):
            self._write_container(value, level, "(", ")", tuple)
        elif isinstance(value, set | frozenset):
            self._write_set(value, level)
        else:
            self._put(_scalar(value, min(self._max_length, max(self._left, 16))))

    def _write_set(self, value: Any, level: int) -> None:
        kind = type(value)
        if not value:
            self._put(f"{kind.__name__}()")
        elif kind is set:
            self._write_container(value, level, "{", "}", set)
        else:
            self._write_container(value, level, f"{kind.__name__}({{", "})", set)

    def _write_container(self, value: Any, level: int, opening: str, closing: str, shape: type) -> None:
        if level >= self._max_levels or id(value) in self._path:  # empty ones too: as Celery has it
            self._put(opening + _ELLIPSIS + closing)
            return
        if not value:
            self._put(opening + closing)
            return
        self._path.add(id(value))
        self._put(opening)
        try:
            self._write_items(value, level, shape)
        finally:
            self._path.discard(id(value))
            self._put(closing)

    def _write_items(self, value: Any, level: int, shape: type) -> None:
        first = True
        for key in list(value) if shape is set else value:
            if not first:
                self._put(", ")
            first = False
            if self._left <= 0:
                self.pieces.append(_ELLIPSIS)
                raise _Full
            self._write(key, level + 1)
            if shape is dict:
                self._put(": ")
                self._write(value[key], level + 1)
        if shape is tuple and len(value) == 1:
            self._put(",")


def _scalar(value: Any, room: int) -> str:
    if isinstance(value, str):
        return _quoted(value, room)
    if isinstance(value, bytes):
        return f"b{_quoted(_bytes_text(value, room), room)}"
    try:
        text = repr(value) if isinstance(value, Decimal) or not isinstance(value, int | float) else str(value)
    except ValueError:
        return f"<{type(value).__name__} with too many digits>"
    except Exception as error:
        return f"<unrepresentable {type(value).__name__}: {type(error).__name__}>"
    return _printable(_cut(text, room))


def _bytes_text(value: bytes, room: int) -> str:
    head = value[: room + 1]
    try:
        return head.decode("utf-8")
    except UnicodeDecodeError:
        return head.hex()


def _quoted(text: str, room: int) -> str:
    return "'" + _printable(_cut(text, room)).replace("'", "\\'") + "'"


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[:room] + _ELLIPSIS


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape", "replace").decode() for char in text)
