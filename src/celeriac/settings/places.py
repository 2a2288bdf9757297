"""What the machine decides: where state is kept, and which time zone is the local one."""

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING

from celeriac.errors import ImproperlyConfigured
from celeriac.settings.general import GeneralSettings

if TYPE_CHECKING:
    from pathlib import Path

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LOCALTIME = "/etc/localtime"


def state_home(environ: Mapping[str, str] | None = None) -> "Path":
    """The directory of embedded files: ``$CELERIAC_HOME``, ``$XDG_STATE_HOME/celeriac`` or ``~/.local/state/celeriac``.

    Not created here.
    """
    from pathlib import Path  # declaring tasks needs no paths, and pathlib is dear to import

    environ = os.environ if environ is None else environ
    if home := environ.get("CELERIAC_HOME"):
        return Path(home).expanduser().absolute()
    state = environ.get("XDG_STATE_HOME", "")
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"  # relative ones are invalid (XDG)
    return base / "celeriac"


def embedded_path(app_name: str, environ: Mapping[str, str] | None = None) -> "Path":
    """The embedded SQLite file of the app. Names that are no safe file names get a digest, so no two apps share one."""
    safe = _UNSAFE.sub("_", app_name).strip("._-")[:100]
    if not safe or safe != app_name:
        import hashlib

        digest = hashlib.sha256(app_name.encode()).hexdigest()[:8]
        safe = f"{safe}-{digest}" if safe else f"app-{digest}"
    return state_home(environ) / f"{safe}.sqlite3"


def zone(settings: GeneralSettings, environ: Mapping[str, str] | None = None) -> tzinfo:
    """The time zone of the app. Raises ``ImproperlyConfigured`` when ``timezone`` names none."""
    named = settings.timezone
    if named is None:
        return UTC if settings.enable_utc else local_zone(environ)
    if isinstance(named, tzinfo):
        return named
    if named.upper() == "UTC":
        return UTC  # exists without a zone database
    return _zone_called(named)


def _zone_called(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: the name of a directory, like "Europe"
        from celeriac.settings.base import suggestion

        known = available_timezones()
        close = suggestion(name, known)
        hint = f"Did you mean {close!r}?" if close else "Use an IANA name such as 'Europe/Berlin'."
        if not known:
            hint = "This machine has no zone database: pip install tzdata."
        raise ImproperlyConfigured(f"timezone: there is no zone {name!r}. {hint}") from error


def local_zone(environ: Mapping[str, str] | None = None) -> tzinfo:
    """The machine's zone with its rules of daylight saving, where they can be found; else its present offset."""
    from pathlib import Path
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    name = (os.environ if environ is None else environ).get("TZ", "").removeprefix(":")
    try:
        if name and not name.startswith("/"):
            return ZoneInfo(name)
        target = Path(name) if name else Path(_LOCALTIME).resolve()
        _, marker, key = str(target).partition("zoneinfo/")
        if marker:
            return ZoneInfo(key)
        with target.open("rb") as file:
            return ZoneInfo.from_file(file, key=str(target))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return datetime.now().astimezone().tzinfo or UTC
