"""``celeriac check``: mistakes and dangers in the settings, and where our defaults differ from Celery's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from celeriac.cli.invocation import Invocation, pass_invocation
from celeriac.cli.output import as_json, say, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celeriac.app.celery import Celeriac
    from celeriac.settings.check import Difference, Finding

EX_FINDINGS = 1


@click.command()
@click.option("--json", "wants_json", is_flag=True)
@pass_invocation
def check(invocation: Invocation, wants_json: bool) -> None:
    """Look for mistakes and dangers in the app's settings, and in those of the servers it uses.

    Exit status 1 when there is an error among the findings, 0 otherwise.
    """
    from celeriac.settings.check import check_configuration, differences

    app = invocation.app()
    found = check_configuration(app.conf)
    if not any(finding.level == "error" for finding in found):
        found = [*found, *server_findings(app), *_parts_that_are_missing(invocation, app)]
    differs = [one for one in differences() if not app.conf.value_set_for(one.name)]
    failed = any(finding.level == "error" for finding in found)
    if wants_json:
        say(as_json({"findings": [one._asdict() for one in found], "differences": [one._asdict() for one in differs]}))
    else:
        _show(invocation, found, differs)
    if failed:
        raise click.exceptions.Exit(EX_FINDINGS)


def server_findings(app: Celeriac) -> list[Finding]:
    """What broker and result store say of their servers; a server that is away is a warning, not a mistake."""
    from celeriac.errors import ImproperlyConfigured
    from celeriac.settings.check import Examines, Finding

    found: list[Finding] = []
    for setting, part in (("broker_url", "transport"), ("result_backend", "store")):
        try:
            examined = getattr(app, part)
            if isinstance(examined, Examines):
                found.extend(one for one in examined.examine() if one not in found)
        except ImproperlyConfigured as error:
            found.append(Finding("error", setting, str(error)))
        except Exception as error:  # whatever a driver meets: the rest is worth knowing all the same
            found.append(Finding("warning", setting, f"The server was not looked at. {error}"))
    return found


def _parts_that_are_missing(invocation: Invocation, app: Celeriac) -> Iterator[Finding]:
    """What the app uses, and its broker and result store cannot do."""
    from celeriac.errors import CeleriacError, ImproperlyConfigured
    from celeriac.settings.check import Finding

    try:
        if invocation.app_target:
            app.import_default_modules()
        limited = sorted(name for name, task in app.tasks.items() if task.runnable_options.limits)
    except (ImproperlyConfigured, ImportError) as error:
        yield Finding("error", "imports", f"The app's tasks cannot be loaded, so no worker starts. {error}")
        return
    limited += [f"queue {name}" for name in app.settings.task_queue_limits or ()]
    if limited:
        shown = ", ".join(limited[:3]) + (" …" if len(limited) > 3 else "")
        try:
            app.open_limiter().close()
        except ImproperlyConfigured as error:
            yield Finding("error", "task_limit_store", f"There are limits ({shown}), and no worker starts: {error}.")
    try:
        forgets = app.revocations is None
    except CeleriacError:
        return  # said already
    if forgets:
        yield Finding(
            "note", "result_backend", "Nothing keeps what is revoked: workers that are down when a task is revoked run "
            "it later. A result store in Redis or SQLite does, and so do these as brokers.",
        )  # fmt: skip


def _show(invocation: Invocation, found: Sequence[Finding], differs: Sequence[Difference]) -> None:
    if found:
        rows = [(one.level, one.setting, one.text) for one in found]
        table(["level", "setting", "finding"], rows, color=invocation.color)
    else:
        say("No mistakes and no dangers found.")
    if differs and not invocation.quiet:
        say("")
        table(
            ["setting", "celery", "celeriac", "why"],
            [(one.name, one.celerys, one.ours, one.why) for one in differs],
            title="defaults that are not Celery's",
            color=invocation.color,
        )
