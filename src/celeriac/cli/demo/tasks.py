"""The demo's app and its task, as a user would write them: this is what ``celeriac -A`` is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from celeriac import Celeriac
from celeriac.cli.demo.measure import UnparsableFile, measure_file

app = Celeriac("celeriac-demo")
app.conf.update(result_expires=24 * 3600, task_create_missing_queues=True)


@app.task(name="demo.measure", throws=(UnparsableFile,))
def measure(path: str) -> dict[str, Any]:
    """The measures of the file at ``path``; a file that is not Python is an expected failure."""
    found: dict[str, Any] = msgspec.to_builtins(measure_file(Path(path)))
    return found
