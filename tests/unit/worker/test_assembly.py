"""What a worker changes of its own process stays there."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import gc, os
from celeriac.worker.assembly import collect_less
before = gc.get_threshold()
collect_less()
collect_less()  # of a worker that is started again in its process
assert gc.get_threshold()[0] > before[0]
child = os.fork()
if not child:
    os._exit(0 if gc.get_threshold() == before else 1)
assert os.waitpid(child, 0)[1] == 0
"""


def test_children_collect_garbage_as_python_does() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
