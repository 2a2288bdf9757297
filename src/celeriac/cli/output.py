"""What commands print: tables for people (rich on a terminal, plain text in a pipe), JSON for programs.

Everything that came out of a message, a result or a setting is escaped here, so that nothing a stranger sent can
drive the terminal.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

#: C0 and C1 controls, line separators, and the marks that turn the writing direction around
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    return _NAMED.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def one_line(value: object) -> str:
    """``value`` as text that stays on one line and is only text."""
    return _UNSAFE.sub(_escape, str(value))


def lines(value: object) -> str:
    """As :func:`one_line`, for text of several lines: a traceback, a report."""
    return "\n".join(one_line(line.expandtabs()) for line in str(value).split("\n"))


def as_json(value: Any) -> str:
    """JSON as programs read it; what JSON lacks becomes its ``str()``."""
    return msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode()


def say(text: str) -> None:
    """A line on stdout; the caller has escaped what is not its own."""
    click.echo(text)


def note(text: str) -> None:
    """A remark on stderr, which does not disturb a pipe."""
    click.echo(text, err=True)


def console(color: bool) -> Console:
    from rich.console import Console

    return Console(no_color=not color, highlight=False)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "", color: bool = True) -> None:
    """Print a table; numbers stand on the right."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    numeric = [
        bool(rows) and all(isinstance(row[index], int | float) or row[index] in ("", "-") for row in rows)
        for index in range(len(columns))
    ]
    if sys.stdout.isatty():
        _rich_table(columns, cells, numeric, title, color)
    else:
        _plain_table(columns, cells, numeric, title)


def _plain_table(columns: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool], title: str) -> None:
    if title:
        say(title)
    widths = [max([len(name), *(len(row[index]) for row in cells)]) for index, name in enumerate(columns)]
    for row in (columns, *cells):
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        say("  ".join(padded).rstrip())


def _rich_table(
    columns: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool], title: str, color: bool
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=Text(title) if title else None, title_justify="left", box=SIMPLE_HEAD)
    for name, right in zip(columns, numeric, strict=True):
        drawn.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row))
    console(color).print(drawn)
