"""The map names what is there: every file and folder that ARCHITECTURE.md mentions exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: places that ARCHITECTURE.md may speak of, in the order in which a name is looked for
PLACES = [ROOT / "src" / "celeriac", ROOT]


def test_every_path_on_the_map_exists():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    missing = []
    for line in text.splitlines():
        row = re.match(r"\| `([a-z]+/)` \|", line)
        prefixes = ["", row[1]] if row else [""]
        for name in re.findall(r"`([a-z_./]+(?:\.py|\.toml|/))`", line):
            is_there = any((place / prefix / name).exists() for place in PLACES for prefix in prefixes)
            if not is_there and name != "base.py":  # that one is meant in general
                missing.append(name)
    assert not missing, "ARCHITECTURE.md speaks of what is not there"


def test_the_map_stays_readable_in_one_sitting():
    assert (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").count("\n") <= 200
    assert (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").count("\n") <= 150
