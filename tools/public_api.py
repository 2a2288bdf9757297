"""Prints the public API, one name a line: what `celeriac`, `celeriac.testing` and the seams (`base.py`) export.

tests/architecture/public_api.txt holds the accepted list; a change of it is a change of what users may rely on:
    .venv/bin/python tools/public_api.py > tests/architecture/public_api.txt
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src"

#: besides every base.py
MODULES = [
    "celeriac", "celeriac.testing", "celeriac.events", "celeriac.exceptions", "celeriac.result", "celeriac.states",
    "celeriac.utils", "celeriac.utils.log", "celeriac.bootsteps", "celeriac.loaders.base", "celeriac.loaders.app",
    "celeriac.loaders.default",
]  # fmt: skip


def seams() -> list[str]:
    """The dotted names of the files that are the doorway of a family of drivers."""
    found = sorted((SOURCE / "celeriac").glob("*/base.py"))
    return [".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in found]


def public_names() -> list[str]:
    names = []
    for module_name in [*MODULES, *seams()]:
        module = importlib.import_module(module_name)
        exported = getattr(module, "__all__", None)
        if exported is None:  # without a list: what the module defines itself
            exported = [
                name
                for name, value in vars(module).items()
                if not name.startswith("_") and getattr(value, "__module__", None) == module_name
            ]
        names.extend(f"{module_name}.{name}" for name in sorted(exported))
    return names


if __name__ == "__main__":
    sys.stdout.write("".join(f"{name}\n" for name in public_names()))
