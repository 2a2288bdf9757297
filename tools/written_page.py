"""Pages that are written from facts of the code: the table rows, and the command line of the tools that write them."""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path


def row(cells: Iterable[str]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """The lines of a table, and an empty one."""
    titles = list(titles)
    return [row(titles), row("---" for _ in titles), *map(row, rows), ""]


def main(page: Path, write: Callable[[], str], description: str | None) -> int:
    """Write the page, or with ``--check`` say whether it is up to date; the exit status."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page is out of date")
    text = write()
    if parser.parse_args().check:
        if page.exists() and page.read_text() == text:
            return 0
        print(f"{page} is out of date: run python {Path(sys.argv[0]).as_posix()}", file=sys.stderr)
        return 1
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text)
    return 0
