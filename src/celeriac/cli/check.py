"""``celeriac check``: mistakes and dangers in the settings, and where our defaults differ from Celery's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from celeriac.cli.invocation import Invocation, pass_invocation
from celeriac.cli.output import as_json, say, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.app.celery import Celeriac
    from celeriac.settings.check import Finding

EX_FINDINGS = 1


def differences(app: Celeriac) -> list[dict[str, Any]]:
    """The settings left at a default of ours that is not Celery's."""
    from celeriac.settings import Settings

    return [
        {
            "setting": name,
            "celery": str(declared.differs.celery),
            "celeriac": str(declared.differs.ours or declared.default),
            "why": declared.differs.why,
        }
        for name, declared in Settings.declarations.items()
        if declared.differs is not None and not app.conf.value_set_for(name)
    ]


@click.command()
@click.option("--json", "wants_json", is_flag=True)
@pass_invocation
def check(invocation: Invocation, wants_json: bool) -> None:
    """Look for mistakes and dangers in the app's settings.

    Exit status 1 when there is an error among the findings, 0 otherwise.
    """
    from celeriac.settings.check import check as check_settings

    app = invocation.app()
    found = check_settings(app.conf.settings, app.conf.given_keys())
    differs = differences(app)
    failed = any(finding.level == "error" for finding in found)
    if wants_json:
        rows = [{"level": one.level, "setting": one.setting, "text": one.text} for one in found]
        say(as_json({"findings": rows, "differences": differs}))
    else:
        _show(invocation, found, differs)
    if failed:
        raise click.exceptions.Exit(EX_FINDINGS)


def _show(invocation: Invocation, found: Sequence[Finding], differs: Sequence[dict[str, Any]]) -> None:
    if found:
        rows = [(one.level, one.setting, one.text) for one in found]
        table(["level", "setting", "finding"], rows, color=invocation.color)
    else:
        say("No mistakes and no dangers found.")
    if differs and not invocation.quiet:
        say("")
        table(
            ["setting", "celery", "celeriac", "why"],
            [tuple(row.values()) for row in differs],
            title="defaults that are not Celery's",
            color=invocation.color,
        )
