"""Prints the ten largest files, functions and classes, for a reviewer's question: do they have one reason to change?

usage: tools/sizes.py FOLDER [COUNT]. Standard library only, so that it runs before anything is installed.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

Row = tuple[int, str]

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def length(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def measure(folder: Path) -> tuple[list[Row], list[Row], list[Row]]:
    files: list[Row] = []
    functions: list[Row] = []
    classes: list[Row] = []
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = str(path.relative_to(folder))
        files.append((text.count("\n"), name))
        for node in ast.walk(ast.parse(text, name)):
            if isinstance(node, _FUNCTIONS):
                functions.append((length(node), f"{name}:{node.lineno} {node.name}"))
            elif isinstance(node, ast.ClassDef):
                methods = sum(isinstance(part, _FUNCTIONS) and not part.name.startswith("_") for part in node.body)
                classes.append((length(node), f"{name}:{node.lineno} {node.name} ({methods} public methods)"))
    return files, functions, classes


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "src")
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    for title, rows in zip(("files", "functions", "classes"), measure(folder), strict=True):
        print(f"{title}: {len(rows)}, {sum(size for size, _ in rows)} lines; the largest:")
        for size, name in sorted(rows, reverse=True)[:count]:
            print(f"  {size:5}  {name}")
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
