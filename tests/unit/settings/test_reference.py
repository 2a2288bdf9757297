"""The reference page and the types of ``app.conf`` follow the declarations; importing stays cheap."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from celeriac.settings import Settings

TOOLS = Path(__file__).parents[3] / "tools"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_tool("settings_reference")


def load_tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(tool: ModuleType) -> None:
    assert tool.PAGE.read_text() == tool.page(), "run python tools/settings_reference.py"


def test_the_page_has_every_setting_and_old_name(tool: ModuleType) -> None:
    page = tool.page()
    for name, declared in Settings.declarations.items():
        assert f"| `{name}` |" in page
        assert declared.was is None or f"| `{declared.was}` |" in page


def test_the_types_of_attributes_are_up_to_date() -> None:
    tool = load_tool("settings_attributes")
    assert tool.FILE.read_text() == tool.source(), "run python tools/settings_attributes.py"


def test_importing_settings_imports_little() -> None:
    """A bound on modules, since a bound on milliseconds fails on a busy machine."""
    probe = "import sys, typing, re, celeriac; before = set(sys.modules); import celeriac.settings; " \
        "print(*sorted(set(sys.modules) - before))"  # fmt: skip
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=30)
    strangers = {name for name in found.stdout.split() if not name.startswith("celeriac")}
    assert strangers <= {"datetime", "_datetime", "math", "numbers", "_decimal"}
