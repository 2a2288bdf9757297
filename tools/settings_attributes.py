"""Writes src/celeriac/settings/attributes.py: the types of ``app.conf``'s attributes, for type checkers.

``Settings`` is typed by its declarations. ``app.conf`` passes values on as they were given, so there a duration may be
a ``timedelta`` and an address a list; its dicts are often changed in place.
"""

import re
import sys
from pathlib import Path
from typing import Any, get_origin

from celeriac.settings import Settings
from celeriac.settings.values import MaybeSeconds, Seconds, Url

FILE = Path(__file__).parent.parent / "src" / "celeriac" / "settings" / "attributes.py"

HEAD = '''\
"""The types of ``app.conf``'s attributes, as they may be given. For type checkers; never imported.

Written by tools/settings_attributes.py from the declarations; change those instead.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta, tzinfo
from typing import Any, Literal


class ConfigurationAttributes:
    """Every setting."""

'''

_AS_GIVEN = {
    Seconds: "float | timedelta",
    MaybeSeconds: "float | timedelta | None",
    Url: "str | Sequence[str] | None",
    Any: "Any",
}


def type_text(annotation: Any) -> str:
    """The annotation as it stands in source."""
    if annotation in _AS_GIVEN:
        return _AS_GIVEN[annotation]
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation.__name__
    text = str(annotation).replace("NoneType", "None").replace("'", '"')
    text = re.sub(r"typing\.(Union|Optional)\[(.*)\]", _union, text)
    text = text.replace("collections.abc.Mapping[", "dict[")
    return re.sub(r"\b(?:collections\.abc|typing|datetime)\.", "", text)


def _union(found: "re.Match[str]") -> str:
    members = re.split(r", (?![^\[]*\])", found[2])
    return " | ".join([*members, *(["None"] if found[1] == "Optional" else [])])


def source() -> str:
    """The whole file."""
    lines = [f"    {name}: {type_text(d.annotation)}" for name, d in Settings.declarations.items()]
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    FILE.write_text(source())
    sys.exit(0)
