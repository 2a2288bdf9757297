"""From the words after ``celeriac multi COMMAND`` to nodes' names and options. Pure.

``-c 3`` is for all nodes; ``-c:1-3 5``, ``-c:1,4 5``, ``-c:image,data 5`` and ``--loglevel:image=DEBUG`` are for some.
Nodes count from 1, in the order given. What stands after ``--`` is passed on.
"""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import msgspec

from celeriac.cli.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: an option's name (with its dashes) → its value, or None where it has none; in the order given
Options = dict[str, str | None]


class Wish(msgspec.Struct):
    """What was asked of ``celeriac multi``."""

    names: list[str]
    options: Options
    #: (which nodes, option, value)
    some: list[tuple[str, str, str | None]]
    passed_on: list[str]


def parse(words: Sequence[str], takes_value: Callable[[str], bool]) -> Wish:
    """``takes_value``: whether the word after an option like ``-c`` or ``--concurrency`` belongs to it."""
    wish = Wish([], {}, [], [])
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            wish.passed_on = rest
            break
        if not word.startswith("-") or word == "-":
            wish.names.append(word)
            continue
        option, equals, value = word.partition("=")
        option, colon, which = option.partition(":")
        given: str | None = value if equals else None
        if not equals and not option.startswith("--") and len(option) > 2 and takes_value(option[:2]):
            option, given = option[:2], option[2:]  # -c3
        elif not equals and takes_value(option):
            if not rest:
                raise Failure(f"{word} needs a value.")
            given = rest.pop(0)
        if colon:
            wish.some.append((which, option, given))
        else:
            wish.options[option] = given
    return wish


def take_signal(words: Sequence[str], default: int) -> tuple[list[str], int]:
    """The words without the last one that is a signal (``-9``, ``-QUIT``, ``-SIGTERM``), and that."""
    end = words.index("--") if "--" in words else len(words)
    for place in reversed(range(end)):
        found = re.fullmatch(r"-(\d{1,2}|(?:SIG)?[A-Z]{3,}[12]?)", words[place])
        if found is None:
            continue
        try:
            number = int(found[1]) if found[1].isdigit() else signal.Signals[f"SIG{found[1].removeprefix('SIG')}"]
            chosen = signal.Signals(number)
        except (KeyError, ValueError):
            continue
        return [*words[:place], *words[place + 1 :]], chosen
    return list(words), default


def node_names(given: Sequence[str], host: str, *, prefix: str, suffix: str | None, range_prefix: str) -> list[str]:
    """Full node names: one number makes so many, words are taken as they are."""
    if len(given) == 1 and given[0].isdigit():
        given = [f"{range_prefix}{number}" for number in range(1, int(given[0]) + 1)]
        prefix = ""
    where = host if suffix is None else suffix.strip("\"'")
    return [name if "@" in name else f"{prefix}{name}@{where}" for name in (_expanded(one, host) for one in given)]


def _expanded(name: str, host: str) -> str:
    return name.replace("%h", host).replace("%d", host.partition(".")[2])


def chosen(which: str, names: Sequence[str], prefix: str = "") -> list[int]:
    """The places, from 0, of the nodes that ``1-3``, ``1,4`` or ``image,data`` means."""
    places: list[int] = []
    shorts = [name.partition("@")[0].removeprefix(prefix) for name in names]
    for part in which.split(","):
        span = re.fullmatch(r"(\d+)-(\d+)", part)
        if part in names:
            places.append(names.index(part))
        elif part in shorts:
            places.append(shorts.index(part))
        elif part.isdigit() and 1 <= int(part) <= len(names):
            places.append(int(part) - 1)
        elif span and 1 <= int(span[1]) <= int(span[2]) <= len(names):
            places.extend(range(int(span[1]) - 1, int(span[2])))
        else:
            raise Failure(f"There is no node {part!r} among {', '.join(names) or 'none'} (an option is for {which}).")
    return places
