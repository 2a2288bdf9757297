"""Processes of greenlets send, too: their libraries replace much of what sockets are waited for with."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import sys
{patch}
from celeriac import Celeriac
app = Celeriac("green", broker=sys.argv[1])
app.conf.task_default_queue = sys.argv[2]

@app.task
def nothing(): ...

nothing.delay()
nothing.delay_many([()] * 3)
print(app.control.purge())
"""
PATCHES = {
    "gevent": "from gevent.monkey import patch_all; patch_all()",
    "eventlet": "import warnings; warnings.simplefilter('ignore'); import eventlet; eventlet.monkey_patch()",
}


@pytest.mark.parametrize("library", PATCHES)
@pytest.mark.parametrize("broker", ["sqlite", "redis", "rabbitmq"])
def test_they_send(library: str, broker: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if find_spec(library) is None:  # not imported here: eventlet complains of every fork in a process that has it
        pytest.skip(f"{library} is not installed")
    if broker == "sqlite":
        url = f"sqlite:///{tmp_path / 'green.db'}"
    elif broker == "redis":
        url = request.getfixturevalue("redis_server").url(7)
    else:
        server = request.getfixturevalue("rabbit_server")
        url = server.add_vhost(f"green-{library}")
        request.addfinalizer(lambda: server.remove_vhost(f"green-{library}"))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(patch=PATCHES[library]), url, f"green-{library}"],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr
