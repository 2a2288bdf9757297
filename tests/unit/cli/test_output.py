"""What is printed is text and nothing else, whatever a message brought."""

from __future__ import annotations

import json

import pytest

from celeriac.cli import output


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain ä 漢字", "plain ä 漢字"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x9b2J", r"\x9b2J"),
        ("abc\u202egnp.exe", r"abc\u202egnp.exe"),
        ("\ud800", r"\ud800"),
        (None, "None"),
    ],
)
def test_one_line_escapes_what_could_drive_a_terminal(given: object, shown: str):
    assert output.one_line(given) == shown


def test_lines_keep_their_breaks_but_nothing_else():
    assert output.lines("first\n\tsecond \x1b]0;title\x07") == "first\n        second \\x1b]0;title\\x07"


def test_plain_tables_are_aligned_and_numbers_stand_right(capsys: pytest.CaptureFixture[str]):
    output.table(["queue", "waiting"], [("mail", 5), ("very long name", 12345), ("x\x1b", "-")])
    shown = capsys.readouterr().out.splitlines()
    assert shown == [
        "queue           waiting",
        "mail                  5",
        "very long name    12345",
        "x\\x1b                 -",
    ]


def test_json_takes_any_value():
    class Odd:
        def __str__(self) -> str:
            return "odd"

    assert json.loads(output.as_json({"a": [1, Odd()]})) == {"a": [1, "odd"]}
