"""The AMQP codec under fuzz: what was found interesting before, and some seconds of looking for more.

``CELERIAC_FUZZ_SECONDS`` makes it longer. Where atheris is not installed, mutation is blind.
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent
CORPUS = HERE / "corpus" / "amqp"
SECONDS = int(os.environ.get("CELERIAC_FUZZ_SECONDS", "8"))
TARGET = HERE / "amqp_target.py"


@pytest.fixture(scope="module")
def target() -> ModuleType:
    spec = importlib.util.spec_from_file_location("amqp_target", TARGET)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_corpus(target: ModuleType) -> None:
    files = sorted(CORPUS.iterdir())
    assert len(files) > 50
    for file in files:
        target.check(file.read_bytes())


@pytest.mark.timeout(SECONDS + 300)
def test_something_new(target: ModuleType, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        mutate_blindly(target)
        return
    shutil.copytree(CORPUS, tmp_path / "corpus")
    done = subprocess.run(
        [sys.executable, str(TARGET), f"-max_total_time={SECONDS}", "-max_len=2000", "-rss_limit_mb=1024", "corpus"],
        cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS + 280,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def mutate_blindly(target: ModuleType) -> None:
    rng = random.Random(os.environ.get("CELERIAC_FUZZ_SEED", "amqp"))
    originals = [file.read_bytes() for file in sorted(CORPUS.iterdir())]
    deadline = time.monotonic() + SECONDS / 4
    while time.monotonic() < deadline:
        data = bytearray(rng.choice(originals))
        for _ in range(rng.randint(1, 4)):
            start = rng.randrange(len(data) + 1)
            other = rng.choice(originals)
            cut = rng.randrange(len(other) + 1)
            insertion = rng.choice([b"\xff" * 4, b"\0" * 8, rng.randbytes(rng.randrange(5)), other[cut : cut + 20]])
            data[start : start + rng.randrange(8)] = insertion
        try:
            target.check(bytes(data))
        except Exception as error:
            pytest.fail(f"{bytes(data).hex()} raises {error!r}")
