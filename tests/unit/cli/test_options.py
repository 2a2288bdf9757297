"""Values of options: what is taken, and what is said about the rest."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
import pytest

from celeriac.cli.options import (
    COMMA_LIST,
    CONCURRENCY,
    JSON_LIST,
    JSON_OBJECT,
    LOG_LEVEL,
    MOMENT,
    MOMENT_OR_SECONDS,
)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (JSON_LIST, "[1, null]", [1, None]),
        (JSON_OBJECT, '{"a": 1}', {"a": 1}),
        (COMMA_LIST, "a, b,,c", ["a", "b", "c"]),
        (MOMENT, "2030-01-02T03:04:05+00:00", datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (MOMENT_OR_SECONDS, "60", 60.0),
        (MOMENT_OR_SECONDS, "2030-01-02", datetime(2030, 1, 2)),
        (LOG_LEVEL, "info", "INFO"),
        (LOG_LEVEL, "fatal", "CRITICAL"),
        (CONCURRENCY, "auto", 0),
        (CONCURRENCY, "8", 8),
    ],
)
def test_taken(kind: click.ParamType, text: str, value: Any):
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (JSON_LIST, "[1", "is not JSON"),
        (JSON_LIST, "{}", "must be JSON like"),
        (JSON_OBJECT, "[]", "must be JSON like"),
        (MOMENT, "tomorrow", "is not a time"),
        (MOMENT_OR_SECONDS, "soon", "is not a time"),
        (LOG_LEVEL, "loud", "is not a log level"),
        (CONCURRENCY, "-1", "neither a number from 0 nor"),
        (CONCURRENCY, "many", "neither a number from 0 nor"),
    ],
)
def test_refused(kind: click.ParamType, text: str, words: str):
    with pytest.raises(click.BadParameter, match=words):
        kind.convert(text, None, None)
