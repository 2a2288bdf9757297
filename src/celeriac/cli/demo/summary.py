"""What the demo found: totals, the largest modules, the failures with their reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from celeriac.cli.demo.measure import Measures


class Failed(msgspec.Struct, frozen=True):
    file: str
    reason: str


class Summary:
    """Collects the results of a run as they come in."""

    def __init__(self) -> None:
        self.measured: dict[str, Measures] = {}
        self.failed: list[Failed] = []

    def add(self, file: str, meta: Mapping[str, Any]) -> None:
        """Take the stored result of the task for ``file``."""
        if meta["status"] == "SUCCESS":
            self.measured[file] = msgspec.convert(meta["result"], Measures)
        else:
            error = meta["result"]
            self.failed.append(Failed(file, str(error) or type(error).__name__))

    @property
    def lines(self) -> int:
        return sum(found.lines for found in self.measured.values())

    @property
    def functions(self) -> int:
        return sum(found.functions for found in self.measured.values())

    @property
    def classes(self) -> int:
        return sum(found.classes for found in self.measured.values())

    def largest(self, count: int) -> list[tuple[str, Measures]]:
        return sorted(self.measured.items(), key=lambda item: (-item[1].lines, item[0]))[:count]
