"""What is not to run any more, as it stands in registries and in files: a task id, or a value of a stamped header.

Pure. Whoever reads such entries reads what somebody else has written, so everything is checked here.
"""

from __future__ import annotations

import signal as signals
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from celeriac.ids import is_safe_id

#: in place of a signal: the entry takes back what was revoked
PARDON = "PARDON"
#: between the parts of a member; in none of them
_BETWEEN = "\0"
_LENGTH = 255
#: what is said again need not be written while this much of its time is left, and at most so many ms are gone: every
#: worker that hears of a revocation writes it down
_FRESH, _SLACK_MS = 0.9, 60_000
#: all that may stand as the signal of a revocation
_SIGNALS = ("", *signals.Signals.__members__)


class Revocation(msgspec.Struct, frozen=True):
    """One entry. Two with the same value, header and signal are the same.

    A pardon stands where revocations stood: a registry holds one or the other of a value, whichever was said last.
    """

    value: str
    header: str = ""  #: the stamped header that has this value; empty: the value is the id of a task
    signal: str = ""  #: what ends those that run, by name; empty: they go on; or PARDON

    @property
    def is_pardon(self) -> bool:
        return self.signal == PARDON

    @property
    def member(self) -> str:
        """All of it as one text."""
        return _BETWEEN.join((self.header, self.signal, self.value))

    @property
    def replaced(self) -> list[Revocation]:
        """What cannot stand beside this one."""
        return [Revocation(self.value, self.header, other) for other in (_SIGNALS if self.is_pardon else (PARDON,))]


class Standing(msgspec.Struct, frozen=True):
    """An entry as it is read back, and how many seconds are left to it."""

    entry: Revocation
    left: float


class News(msgspec.Struct, frozen=True):
    """What was added to a registry since somebody read it last."""

    mark: int  #: where to go on reading; numbers of one registry only
    standing: list[Standing]
    more: bool = False  #: there are further ones now


def fresh_ms(kept_ms: int) -> int:
    """An entry that has so much time left stands well enough for one that is to be kept for ``kept_ms``."""
    return max(int(kept_ms * _FRESH), kept_ms - _SLACK_MS)


def entry_of(member: str) -> Revocation | None:
    """What :attr:`Revocation.member` has written; None for anything else."""
    parts = member.split(_BETWEEN)
    return checked(*parts) if len(parts) == 3 else None


def checked(header: str, signal: str, value: str) -> Revocation | None:
    """The entry of these parts, if they are sound."""
    if not (is_safe_id(value) if not header else len(value) <= _LENGTH and len(header) <= _LENGTH):
        return None
    if signal and not (signal.isalnum() and signal.isascii() and len(signal) < 20):
        return None
    return None if _BETWEEN in header + value else Revocation(value, header, signal)


def revoked_ids(ids: Iterable[str], signal: str = "") -> list[Revocation]:
    """Entries for tasks; what is no id is left out, as no worker would run it. ``PARDON`` as signal takes them back."""
    return [Revocation(one, "", signal) for one in ids if is_safe_id(one)]


def revoked_stamps(stamps: Mapping[str, Iterable[str]], signal: str = "") -> list[Revocation]:
    """Entries for stamped headers: ``{header: values}``."""
    found = (checked(header, signal, value) for header, values in stamps.items() for value in values if header)
    return [entry for entry in found if entry is not None]


def stamp_values(headers: Any) -> dict[str, list[str]]:
    """``{header: value or [values]}``, or ``["header=value", …]`` from a command line, as ``{header: [values]}``.

    Raises ``ValueError`` for anything else.
    """
    if isinstance(headers, list | tuple):
        gathered: dict[str, list[str]] = {}
        for item in headers:
            name, _, value = str(item).partition("=")
            gathered.setdefault(name, []).append(value)
        headers = gathered
    if not isinstance(headers, Mapping) or not headers:
        raise ValueError("headers is a mapping of stamped headers to values")
    return {
        str(name)[:_LENGTH]: [
            str(value)[:_LENGTH]
            for value in (values if isinstance(values, list | tuple | set | frozenset) else [values])
        ]
        for name, values in headers.items()
    }


def signal_name(given: Any) -> str:
    """``SIGTERM`` for ``term``, ``15``, ``SIGTERM`` and nothing. Raises ``ValueError``."""
    name = str(given or "SIGTERM").upper()
    if name.isdigit():
        name = next((known.name for known in signals.Signals if str(int(known)) == name), "")
    elif not name.startswith("SIG"):
        name = f"SIG{name}"
    if name not in signals.Signals.__members__:
        raise ValueError(f"there is no signal {str(given)[:20]!r}")
    return name
