"""The kinds of values that options take, with errors that say what was expected."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # older clicks have no parameter for it

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL")


class JsonValue(ParamType):
    """A JSON document of one kind."""

    def __init__(self, kind: type, example: str) -> None:
        self.kind = kind
        self.example = example
        self.name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            found = msgspec.json.decode(value)
        except msgspec.DecodeError as error:
            self.fail(f"{value!r} is not JSON ({error}); expected something like {self.example}", param, ctx)
        if not isinstance(found, self.kind):
            self.fail(f"{value!r} must be JSON like {self.example}", param, ctx)
        return found


class CommaList(ParamType):
    """Names with commas between them."""

    name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        if not isinstance(value, str):
            return list(value)
        return [part.strip() for part in value.split(",") if part.strip()]


class Autoscale(ParamType):
    """The most and the fewest tasks at one time, in either order; one number is the most."""

    name = "max,min"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = [int(part) for part in str(value).split(",")]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 2) or min(numbers) < 0 or max(numbers) < 1:
            self.fail(f"{value!r} is not like 10,3: the most and the fewest tasks at one time", param, ctx)
        return max(numbers), min(numbers) if len(numbers) == 2 else 0


class Moment(ParamType):
    """A date and time in ISO 8601."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a time like 2030-12-31T23:59:00+00:00", param, ctx)


class MomentOrSeconds(ParamType):
    """A date and time in ISO 8601, or seconds from now."""

    name = "time|seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime | float:
        if isinstance(value, datetime | int | float):
            return value
        try:
            return float(value)
        except ValueError:
            return MOMENT.convert(value, param, ctx)


class LogLevel(ParamType):
    """A log level, in any case."""

    name = "level"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        level = str(value).upper()
        if level not in LOG_LEVELS:
            self.fail(f"{value!r} is not a log level; there are {', '.join(LOG_LEVELS)}", param, ctx)
        return "CRITICAL" if level == "FATAL" else level


class Concurrency(ParamType):
    """How many: a number, or ``auto`` (also 0) for the number of processors."""

    name = "number|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value == "auto":
            return 0
        try:
            number = int(value)
        except ValueError:
            number = -1
        if number < 0:
            self.fail(f"{value!r} is neither a number from 0 nor 'auto'", param, ctx)
        return number


JSON_LIST = JsonValue(list, "'[2, 2]'")
JSON_OBJECT = JsonValue(dict, """'{"x": 2}'""")
AUTOSCALE = Autoscale()
COMMA_LIST = CommaList()
MOMENT = Moment()
MOMENT_OR_SECONDS = MomentOrSeconds()
LOG_LEVEL = LogLevel()
CONCURRENCY = Concurrency()


def later_release(*names: str, what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare an option of Celery's that does not work yet, so that giving it is a clear error and not silence."""

    def refuse(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        if value is not None and not ctx.resilient_parsing:
            raise click.UsageError(f"{what} is not part of this release of celeriac ({', '.join(names)}).", ctx)

    return click.option(
        *names, expose_value=False, hidden=True, is_flag=False, flag_value="", default=None, callback=refuse
    )
