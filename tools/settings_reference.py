"""Writes docs/reference/settings.md from the declarations: ``python tools/settings_reference.py [--check]``.

What differs from Celery comes first, since it is what a reader who knows Celery is looking for.
"""

import sys
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from celeriac.settings import Settings
from celeriac.settings.base import Declaration
from celeriac.settings.check import differences
from celeriac.settings.loading import ENVIRONMENT
from written_page import main, table

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "settings.md"

#: groups as readers look for them; a new group must be put in here
ORDER = (
    "general", "broker", "task", "result", "worker", "beat", "events", "control", "security", "events command",
    "redis", "database", "cache", "mongodb", "cassandra", "elasticsearch", "dynamodb", "s3", "gcs", "azureblockblob",
    "cosmosdbsql", "couchbase", "arangodb",
)  # fmt: skip

HEAD = """\
# Settings

<!-- Written by tools/settings_reference.py from the declarations in src/celeriac/settings; change those instead. -->

Set them on the app (`app.conf.task_acks_late = False`, `Celeriac(task_acks_late=False)`), in a module or object
(`app.config_from_object("proj.configuration")`), or on a command line (`celeriac -A proj worker -- task.acks_late=no`).
Names and, where the first table does not say otherwise, defaults are Celery's. `celeriac check` finds mistakes.

- Durations are seconds or a `timedelta`.
- The strongest source wins: command line, environment, changes at run time, keywords of the app, defaults added with
  `add_defaults`, the configuration object, the defaults below.
- The old upper-case names still work. One source uses old or new names, not both.
- With `namespace="CELERY"` (usual with Django) a setting is written `CELERY_` and its name in upper case.
- `app.conf.explain("task_acks_late")` tells where a value came from.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_differences(), *_ours(), *_environment(), *_groups()]).rstrip("\n") + "\n"


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    return table(titles, ([cell.replace("|", "\\|") for cell in row] for row in rows))


def _differences() -> list[str]:
    rows = [(f"`{each.name}`", each.ours, each.celerys, each.why) for each in differences()]
    return ["## Where a default differs from Celery's", "", *_table(("setting", "here", "Celery", "why"), rows)]


def _ours() -> list[str]:
    rows = [(f"`{d.name}`", _default(d.default), d.doc) for d in Settings.declarations.values() if d.ours]
    return ["## Settings that Celery does not have", "", *_table(("setting", "default", "meaning"), rows)]


def _environment() -> list[str]:
    rows = [(f"`{name}`", ", ".join(f"`{variable}`" for variable in both)) for name, both in ENVIRONMENT.items()]
    text = "These win over everything but the command line; of two, the first one that is set and not empty counts."
    return ["## Environment variables", "", text, "", *_table(("setting", "variables"), rows)]


def _groups() -> list[str]:
    groups: dict[str, list[Declaration]] = {name: [] for name in ORDER}
    for declared in Settings.declarations.values():
        groups[declared.group].append(declared)
    lines: list[str] = []
    for name, members in groups.items():
        rows = [
            (f"`{d.name}`", _default(d.default), d.type_text, d.doc, f"`{d.was}`" if d.was else "") for d in members
        ]
        lines += [f"## {name.capitalize()}", "", *_table(("setting", "default", "type", "meaning", "old name"), rows)]
    return lines


def _default(value: Any) -> str:
    if isinstance(value, timedelta):
        return f"{value.days} day{'s' if value.days > 1 else ''}"
    if isinstance(value, int) and value >= 1024 * 1024:
        return f"{value // (1024 * 1024)} MiB"
    return f"`{value!r}`"


if __name__ == "__main__":
    sys.exit(main(PAGE, page, __doc__))
