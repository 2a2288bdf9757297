"""Entries of registries, checked on the way in."""

from __future__ import annotations

import pytest

from celeriac.wire.revocation import (
    Revocation,
    entry_of,
    fresh_ms,
    revoked_ids,
    revoked_stamps,
    signal_name,
    stamp_values,
)


@pytest.mark.parametrize(
    "entry", [Revocation("a-1"), Revocation("a", "", "SIGKILL"), Revocation("7 ü", "customer no", "SIGTERM")]
)
def test_an_entry_survives_being_written(entry: Revocation) -> None:
    assert entry_of(entry.member) == entry


@pytest.mark.parametrize(
    "member",
    ["", "a", "\0\0", "\0\0../../x", "\0\0" + "x" * 256, "\0SIG TERM\0x", "\0S" + "x" * 30 + "\0x", "\0\0a\0b",
     "h" * 256 + "\0\0v", "h\0\0" + "v" * 256],
)  # fmt: skip
def test_what_nobody_has_written_is_no_entry(member: str) -> None:
    assert entry_of(member) is None


def test_ids_and_stamps_become_entries() -> None:
    assert revoked_ids(["a", "../x", ""], "SIGTERM") == [Revocation("a", "", "SIGTERM")]
    assert revoked_stamps({"h": ["1", "x" * 300, "a\0b"], "": ["2"]}) == [Revocation("1", "h")]


def test_headers_come_in_several_shapes() -> None:
    assert stamp_values({"h": 7, "i": ["a", 1], "j": {"only"}}) == {"h": ["7"], "i": ["a", "1"], "j": ["only"]}
    assert stamp_values(["h=1", "h=2=3", "i"]) == {"h": ["1", "2=3"], "i": [""]}
    for wrong in ({}, "h=1", None, 5, []):
        with pytest.raises(ValueError, match="mapping"):
            stamp_values(wrong)


def test_signals_by_name_and_number() -> None:
    assert [signal_name(given) for given in ("term", "SIGKILL", 15, "9", None, "")] == [
        "SIGTERM", "SIGKILL", "SIGTERM", "SIGKILL", "SIGTERM", "SIGTERM"
    ]  # fmt: skip
    for wrong in ("nosuch", "99", "SIG", "SIG_DFL"):
        with pytest.raises(ValueError, match="signal"):
            signal_name(wrong)


def test_what_is_nearly_new_need_not_be_written_again() -> None:
    assert fresh_ms(1000) == 900
    assert fresh_ms(30 * 86_400_000) == 30 * 86_400_000 - 60_000
