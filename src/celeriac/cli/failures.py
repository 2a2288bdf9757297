"""How the command line fails: one clear line on stderr and a meaningful exit status, no traceback.

2: what was asked cannot work (settings, app, options). 69: the broker or the result store is not there now.
"""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, NoReturn

import click

from celeriac.errors import BackendError, ImproperlyConfigured, OperationalError, SecurityError

if TYPE_CHECKING:
    from collections.abc import Generator

EX_USAGE = 2
EX_UNAVAILABLE = 69  #: sysexits.h
EX_CANTCREAT = 73  #: sysexits.h

#: what names the file and line of the user's own mistake is worth more than our frames
_OURS = ("/celeriac/", "<frozen importlib", "/click/")


class Failure(click.ClickException):
    """Ends the command with one line."""

    def __init__(self, message: str, exit_code: int = EX_USAGE) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it off the instance

    def show(self, file: IO[Any] | None = None) -> None:
        from celeriac.cli.output import one_line

        click.echo(click.style("Error: ", fg="red") + one_line(self.message), file=file, err=file is None)


def fail(message: str, exit_code: int = EX_USAGE) -> NoReturn:
    raise Failure(message, exit_code)


def describe(error: BaseException) -> str:
    """``ZeroDivisionError: division by zero (shop/tasks.py, line 3)``."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(part in frame.filename for part in _OURS)
    ]
    return f"{text} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else text


@contextmanager
def explained() -> Generator[None]:
    """Turn the errors that are not bugs into one line and an exit status."""
    try:
        yield
    except (ImproperlyConfigured, SecurityError) as error:
        raise Failure(str(error), EX_USAGE) from error
    except OperationalError as error:
        raise Failure(f"broker: {error}", EX_UNAVAILABLE) from error
    except BackendError as error:
        raise Failure(f"result store: {error}", EX_UNAVAILABLE) from error
