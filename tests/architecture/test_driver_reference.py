"""The page of brokers and result stores says what the drivers declare."""

from __future__ import annotations

import importlib.util
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / "tools" / "driver_reference.py"


def test_the_page_is_up_to_date():
    spec = importlib.util.spec_from_file_location("driver_reference", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.PAGE.read_text() == tool.page(), "run python tools/driver_reference.py"
