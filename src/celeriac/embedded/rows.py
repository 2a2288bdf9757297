"""Many rows in one statement: ``INSERT … VALUES (…),(…)`` of a few cached sizes.

One statement is one release of the interpreter lock and, without BEGIN, one transaction. Batches are padded with
NULL rows up to a power of two, so that seven prepared statements serve every size.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: rows in the largest statement
WIDEST = 64


class Insert:
    """``INSERT INTO target(columns)`` for any number of rows; a row of NULLs must do nothing.

    ``source`` may filter the ``{values}``; ``then`` is what follows them.
    """

    def __init__(self, target: str, columns: str, source: str = "{values}", then: str = "") -> None:
        width = columns.count(",") + 1
        row = "(" + ",".join("?" * width) + ")"
        self._empty = (None,) * width
        self._sizes = [1 << power for power in range(WIDEST.bit_length())]
        self._sql = {
            size: f"INSERT INTO {target} ({columns}) {source.format(values='VALUES ' + ','.join([row] * size))} {then}"
            for size in self._sizes
        }

    def statements(self, rows: Sequence[Sequence[Any]]) -> Iterator[tuple[str, list[Any]]]:
        """The statements and their parameters that insert ``rows``; one for up to 64 rows."""
        for start in range(0, len(rows), WIDEST):
            part = rows[start : start + WIDEST]
            size = next(size for size in self._sizes if size >= len(part))
            parameters = list(chain.from_iterable(part))
            if size > len(part):
                parameters.extend(self._empty * (size - len(part)))
            yield self._sql[size], parameters
