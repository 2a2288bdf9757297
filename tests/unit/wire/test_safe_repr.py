"""The shortened repr: length, depth, and values that misbehave. Likeness to Celery's: tests/wire."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.wire.safe_repr import safe_repr


class Loud:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Long:
    def __repr__(self) -> str:
        return "L" * 1_000_000


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((), "()"), ([], "[]"), ({}, "{}"), ((1,), "(1,)"), ({"a": 1}, "{'a': 1}"),
        (("it's", 'say "x"'), "('it\\'s', 'say \"x\"')"),
        (("line\nbreak", "\x1b[31m"), "('line\\nbreak', '\\x1b[31m')"),
        ({"a": [1, (2, {3: 4})]}, "{'a': [1, (2, {...})]}"),
    ],
)  # fmt: skip
def test_looks(value: Any, text: str) -> None:
    assert safe_repr(value) == text


def test_levels_can_be_chosen() -> None:
    assert safe_repr([[[[1]]]], max_levels=1) == "[[...]]"
    assert safe_repr([1], max_levels=0) == "[...]"


@pytest.mark.parametrize(
    "value",
    [
        ("x" * 10_000_000,), {"k": b"y" * 10_000_000}, list(range(1_000_000)), {n: n for n in range(100_000)},
        (Long(),), [[["x" * 5000] * 5000] * 3] * 3, {"x" * 5000: 1}, set(range(100_000)), "z" * 5000,
        [{"k" * 500: "v" * 500}] * 50, [Long()] * 20, "\x1b" * 10_000_000, ("\x00" * 5000,),
    ],
    ids=range(13),
)  # fmt: skip
def test_length_is_bounded(value: Any) -> None:
    text = safe_repr(value, max_length=200)
    assert len(text) < 1000
    assert "..." in text


def test_cut_containers_are_closed() -> None:
    text = safe_repr([list(range(1000))], max_length=20)
    assert text.startswith("[[0, 1, 2")
    assert text.endswith("...]]")


def test_misbehaving_values_do_not_raise() -> None:
    assert "Loud" in safe_repr((Loud(),))
    assert "too many digits" in safe_repr((10**5000,))
    own: list[Any] = [1]
    own.append(own)
    assert safe_repr(own) == "[1, [...]]"


def test_unlimited_length() -> None:
    assert len(safe_repr(("x" * 5000,), max_length=0)) == 5005
