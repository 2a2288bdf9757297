"""What users may rely on changes on purpose only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ACCEPTED = Path(__file__).parent / "public_api.txt"


def test_the_public_names_are_the_accepted_ones():
    shown = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "public_api.py")], capture_output=True, text=True, timeout=30, check=True
    )
    accepted = set(ACCEPTED.read_text(encoding="utf-8").split())
    now = set(shown.stdout.split())
    assert now == accepted, (
        f"new: {sorted(now - accepted)}; gone: {sorted(accepted - now)}. If this is wanted: "
        "python tools/public_api.py > tests/architecture/public_api.txt"
    )
