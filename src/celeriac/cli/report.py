"""``celeriac report``: what a bug report should contain, with secrets taken out."""

from __future__ import annotations

import platform
import sqlite3
import sys
from importlib.metadata import PackageNotFoundError, version

import click

import celeriac
from celeriac.cli.check import server_findings
from celeriac.cli.invocation import Invocation, pass_invocation
from celeriac.cli.output import as_json, lines, say
from celeriac.settings.censor import censored_url

#: what of the installation matters here, when it is there
PACKAGES = (
    "msgspec",
    "click",
    "rich",
    "uvloop",
    "pydantic",
    "zstandard",
    "brotli",
    "pyyaml",
    "celery",
    "kombu",
    "redis",
    "hiredis",
)


def software() -> dict[str, str]:
    """Versions and platform."""
    found = {
        "celeriac": celeriac.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "sqlite": sqlite3.sqlite_version,
        "executable": sys.executable,
    }
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@click.command()
@click.option("--json", "wants_json", is_flag=True)
@pass_invocation
def report(invocation: Invocation, wants_json: bool) -> None:
    """Show versions, platform and, with -A, the settings that differ from the defaults; secrets are left out."""
    rows = software()
    settings: dict[str, object] = {}
    servers: list[str] = []
    if invocation.app_target or invocation.broker:
        app = invocation.app()
        rows["broker"] = censored_url(app.broker_url)
        settings = dict(app.conf.table(censored=True))
        servers = [f"{finding.level}: {finding.text}" for finding in server_findings(app)]
    if wants_json:
        say(as_json({"software": rows, "settings": settings, "servers": servers}))
        return
    for name, value in rows.items():
        say(f"{name + ':':<12} {lines(value)}")
    if settings:
        say("\nsettings:")
        for name in sorted(settings):
            say(f"  {name} = {lines(repr(settings[name]))}")
    if servers:
        say("\nservers:")
        for line in servers:
            say(f"  {lines(line)}")
