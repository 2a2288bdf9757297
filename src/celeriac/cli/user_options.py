"""Options that an app adds to commands: ``app.user_options["worker"].add(click.Option(["--token"]))``.

``preload`` options are offered by every command, and told through the signal ``user_preload_options``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from celeriac import signals
from celeriac.cli.failures import Failure
from celeriac.errors import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celeriac.app.celery import Celeriac


def add_user_options(ctx: click.Context, command: click.Command, name: str, app: Celeriac) -> None:
    """Let ``command`` take what the app has declared, until the end of ``ctx``."""
    preload = _declared(app, "preload")
    added = [*preload, *_declared(app, name)]
    if not added:
        return
    taken = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}
    for option in added:
        if clash := sorted(taken.intersection(option.opts)):
            raise Failure(f"user_options: celeriac {name} has an option {', '.join(clash)} already.")
    before, callback = command.params, command.callback
    command.params = [*before, *added]
    if preload:
        command.callback = _telling(callback, name, app, {option.name for option in preload})

    def restore() -> None:
        command.params, command.callback = before, callback

    ctx.call_on_close(restore)


def _declared(app: Celeriac, kind: str) -> list[click.Option]:
    """As click options; sorted, because the app keeps them in a set."""
    found: Iterable[Any] = app.user_options.get(kind, ())
    options: list[click.Option] = []
    for option in found:
        if not isinstance(option, click.Option):
            raise ImproperlyConfigured(f"user_options[{kind!r}]: {option!r} is not a click.Option")
        options.append(option)
    return sorted(options, key=lambda option: option.name or "")


def _telling(callback: Any, name: str, app: Celeriac, mine: set[str | None]) -> Any:
    def tell(*args: Any, **options: Any) -> Any:
        chosen = {key: options.pop(key) for key in list(options) if key in mine}
        signals.user_preload_options.send(sender=name, app=app, options=chosen)
        return callback(*args, **options)

    return tell


def chosen(app: Celeriac, command: str, options: dict[str, Any]) -> dict[str, Any]:
    """Take the values of the app's own options out of ``options``."""
    names = {option.name for option in _declared(app, command)}
    return {name: options.pop(name) for name in list(options) if name in names}
