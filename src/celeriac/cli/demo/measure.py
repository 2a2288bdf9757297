"""What the demo's task computes: the measures of one Python file, which is parsed and never run."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path

import msgspec

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class UnparsableFile(Exception):
    """The file is not Python of this version; the message says where and why."""


class Measures(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of one file."""

    lines: int
    functions: int
    classes: int
    longest_function: str  #: its name; "" when there is none
    longest_lines: int


def measure_file(path: Path) -> Measures:
    """Parse and count. Raises ``UnparsableFile``, and ``OSError`` when the file can't be read."""
    source = path.read_bytes()
    tree = _parse(source, path.name)
    functions = classes = longest = 0
    longest_name = ""
    for node in ast.walk(tree):
        if isinstance(node, _FUNCTIONS):
            functions += 1
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > longest:
                longest, longest_name = length, node.name
        elif isinstance(node, ast.ClassDef):
            classes += 1
    lines = source.count(b"\n") + (not source.endswith(b"\n") and bool(source))
    return Measures(
        lines=lines, functions=functions, classes=classes, longest_function=longest_name, longest_lines=longest
    )


def _parse(source: bytes, name: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in other people's code are not our news
            return ast.parse(source, name)
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        raise UnparsableFile(f"{name}: {where}{error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes; nested beyond the parser's depth
        raise UnparsableFile(f"{name}: {str(error) or type(error).__name__}") from None
