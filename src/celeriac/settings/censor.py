"""What may be shown of settings: passwords, keys and credentials inside URLs are masked.

Used for every text that leaves the process: reports, ``repr``, remote inspection.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celeriac.settings.values import is_list, is_mapping

if TYPE_CHECKING:
    from celeriac.settings.base import Declaration

MASK = "********"

#: names of users' own keys, and of keys inside dicts, whose values are never shown (the words are Celery's)
_HIDDEN = re.compile("API|TOKEN|KEY|SECRET|PASS|PROFANITIES_LIST|SIGNATURE|DATABASE|BEAT_DBURI", re.IGNORECASE)
#: up to the last @, since careless passwords contain every other delimiter
_CREDENTIALS = re.compile(r"(?<=://)([^:@/?#\s]*):(.*)@", re.DOTALL)
_NEXT_URL = re.compile(r";(?=[a-zA-Z][\w+.-]*://)")
_PARAMETER = re.compile(
    r"((?:password|passwd|pwd|secret|token|sig|accountkey|sharedaccesskey|aws_secret_access_key)=)[^&;\s]*",
    re.IGNORECASE,
)


def censored(values: Mapping[str, Any], declarations: "Mapping[str, Declaration] | None" = None) -> dict[str, Any]:
    """``values`` with every secret masked, in nested dicts and lists too."""
    known = declarations or {}
    shown: dict[str, Any] = {}
    for name, value in values.items():
        declared = known.get(name)
        hidden = declared.secret if declared is not None else bool(_HIDDEN.search(str(name)))
        shown[name] = _shown(value, hidden)
    return shown


def _shown(value: Any, hidden: bool) -> Any:
    if is_mapping(value):
        return censored({str(key): item for key, item in value.items()})
    if hidden:
        return MASK if value is not None else None
    if isinstance(value, str):
        return censored_url(value)
    if is_list(value) and type(value) in (list, tuple):  # named tuples and the like are left as they are
        shown = [_shown(item, False) for item in value]
        return shown if isinstance(value, list) else tuple(shown)
    return value


def censored_url(text: str) -> str:
    """``text`` with passwords masked wherever it contains URLs; several may be joined with ``;``."""
    if "://" not in text and "=" not in text:
        return text
    return ";".join(_censored_part(part) for part in _NEXT_URL.split(text))


def _censored_part(part: str) -> str:
    return _PARAMETER.sub(rf"\g<1>{MASK}", _CREDENTIALS.sub(rf"\g<1>:{MASK}@", part))
