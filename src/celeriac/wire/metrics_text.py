"""Prometheus' text format, version 0.0.4: families of numbers in, text out.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]
Kind = Literal["counter", "gauge"]

#: of a label's value: what a message or a configuration has named; more is cut off
_LONGEST = 200


class MetricsText:
    """Collects families; each name may be used once."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"

    def add(self, name: str, kind: Kind, text: str, samples: float | Iterable[tuple[Labels, float]]) -> None:
        """A family: one number, or one for each set of labels."""
        self._head(name, kind, text)
        pairs: Iterable[tuple[Labels, float]] = [({}, samples)] if isinstance(samples, int | float) else samples
        self._lines += [f"{name}{_labels(labels)} {_number(value)}" for labels, value in pairs]

    def add_histogram(
        self, name: str, text: str, bounds: Sequence[float], samples: Iterable[tuple[Labels, Sequence[int], float]]
    ) -> None:
        """``samples``: labels, how many in each bucket (one more than bounds, not yet added up), and the sum."""
        self._head(name, "histogram", text)
        edges = [*map(_number, bounds), "+Inf"]
        for labels, counts, total in samples:
            below = 0
            for edge, count in zip(edges, counts, strict=True):
                below += count
                self._lines.append(f"{name}_bucket{_labels({**labels, 'le': edge})} {below}")
            self._lines.append(f"{name}_sum{_labels(labels)} {_number(total)}")
            self._lines.append(f"{name}_count{_labels(labels)} {below}")

    def _head(self, name: str, kind: str, text: str) -> None:
        self._lines += [f"# HELP {name} {_escape(text)}", f"# TYPE {name} {kind}"]


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    inner = ",".join(f'{name}="{_escape(value[:_LONGEST], quotes=True)}"' for name, value in labels.items())
    return "{" + inner + "}"


def _escape(text: str, quotes: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n").encode("utf-8", "replace").decode("utf-8")
    return text.replace('"', '\\"') if quotes else text


def _number(value: float) -> str:
    if value == math.inf:
        return "+Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
