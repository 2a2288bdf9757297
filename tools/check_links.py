"""Checks that relative links in the Markdown files lead to files that exist, and their anchors to headings.

Links to the web are not followed: a check must not depend on somebody else's server.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = {".git", "node_modules"}

_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)


def is_skipped(page: Path) -> bool:
    return any(part in SKIPPED or part.startswith(".venv") for part in page.parts)


def pages() -> list[Path]:
    return sorted(page for page in ROOT.rglob("*.md") if not is_skipped(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """The anchors of a page as GitHub makes them: lower case, punctuation gone, blanks to hyphens."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    slugs = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(text))
    return {slug.replace(" ", "-") for slug in slugs}


def broken_links(page: Path) -> list[str]:
    text = _CODE.sub("", _FENCE.sub("", page.read_text(encoding="utf-8")))
    broken = []
    for target in _LINK.findall(text):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            broken.append(f"{target} (no such file)")
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            broken.append(f"{target} (no such heading)")
    return broken


def main() -> int:
    found = [(page, link) for page in pages() for link in broken_links(page)]
    for page, link in found:
        print(f"{page.relative_to(ROOT)}: {link}")
    if not found:
        print(f"links of {len(pages())} pages are good")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
