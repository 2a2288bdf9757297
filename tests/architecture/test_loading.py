"""The catalogue names things that exist, and the command line loads only what a command needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from celeriac.errors import MissingExtra
from celeriac.plugins import CATALOGUE, load


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, entries in CATALOGUE.items() for name in entries])
def test_every_driver_of_the_catalogue_can_be_imported(kind: str, name: str):
    try:
        driver = load(kind, name)
    except MissingExtra as error:
        pytest.skip(str(error))
    assert isinstance(driver, type)


def modules_after(code: str) -> set[str]:
    shown = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    return set(shown.stdout.split())


def test_the_command_line_loads_only_what_the_command_needs():
    loaded = modules_after("import celeriac.cli.main")
    assert not {"rich", "celeriac.app.celery", "celeriac.worker.assembly", "asyncio"} & loaded
