"""File names that contain parts of a node's name."""

from __future__ import annotations

import re


def expand_path(template: str, node: str) -> str:
    """A log or pid file's name with ``%h %n %d %p %i %I %%`` filled in for the worker's own process."""
    return re.sub(r"%[iI%]", lambda found: {"%i": "0", "%I": "", "%%": "%"}[found[0]], expand_node(template, node))


def expand_node(template: str, node: str) -> str:
    """The same, but ``%i %I %%`` are left to the process that opens the file."""
    name, _, host = node.partition("@")
    table = {"%h": host, "%n": name, "%d": host.partition(".")[2], "%p": node}
    return re.sub(r"%[hndp%]", lambda found: table.get(found[0], "%%"), template)
