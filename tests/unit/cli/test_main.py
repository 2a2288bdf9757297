"""The command itself: its help, its global options, and how it says no."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from celeriac import __version__
from celeriac.cli.main import COMMANDS, main


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[CliRunner]:
    for name in list(os.environ):
        if name.startswith(("CELERY", "CELERIAC")) or name in ("APP", "BROKER_URL", "RESULT_BACKEND", "CONFIG_MODULE"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    yield CliRunner()
    for name in set(os.environ) - set(before):  # -b and friends write them for real
        del os.environ[name]


def test_help_lists_every_command(runner: CliRunner):
    shown = runner.invoke(main, ["--help"])
    assert shown.exit_code == 0
    assert all(f"\n  {name} " in shown.output for name in COMMANDS)


def test_no_command_shows_the_help(runner: CliRunner):
    shown = runner.invoke(main, [])
    assert shown.exit_code == 0
    assert "Commands:" in shown.output


def test_version(runner: CliRunner):
    assert runner.invoke(main, ["--version"]).output == f"celeriac {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_of_its_own(runner: CliRunner, name: str):
    shown = runner.invoke(main, [name, "--help"])
    assert shown.exit_code == 0, shown.output
    assert "Usage:" in shown.output


@pytest.mark.parametrize(
    "arguments", [["call", "x", "-A", "proj"], ["worker", "--app=proj"], ["status", "-b", "memory://"]]
)
def test_a_global_option_after_the_command_is_explained(runner: CliRunner, arguments: list[str]):
    shown = runner.invoke(main, arguments)
    assert shown.exit_code == 2
    assert "stands before the command" in shown.stderr
    assert f"… {arguments[0]} …" in shown.stderr


def test_a_slip_in_the_command_gets_a_suggestion(runner: CliRunner):
    shown = runner.invoke(main, ["wroker"])
    assert shown.exit_code == 2
    assert "Did you mean 'worker'?" in shown.stderr


def test_a_command_without_app_asks_for_one(runner: CliRunner):
    for command in (["worker"], ["call", "x"], ["purge"]):
        shown = runner.invoke(main, command)
        assert shown.exit_code == 2
        assert shown.stderr.count("\n") == 1
        assert "Which app?" in shown.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(runner: CliRunner, shell: str):
    shown = runner.invoke(main, ["completion", shell])
    assert shown.exit_code == 0
    assert f"_CELERIAC_COMPLETE={shell}_complete" in shown.output


@pytest.mark.parametrize("option", ["-B", "--beat", "--scheduler=x"])
def test_what_a_later_release_brings_is_refused_by_name(runner: CliRunner, option: str):
    shown = runner.invoke(main, ["-A", "proj", "worker", option])
    assert shown.exit_code == 2
    assert "not part of this release" in shown.stderr


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (None, "there is no module 'proj'"),
        ("import nowhere_to_be_found", "imports 'nowhere_to_be_found', which is not installed"),
        ("x = 1\n1 / 0\n", "ZeroDivisionError: division by zero"),
        ("def f(:\n", "SyntaxError"),
        ("x = 1", "proj"),
    ],
)
def test_an_app_that_cannot_be_loaded_is_one_line(
    runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str | None, words: str
):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "proj", raising=False)
    if source is not None:
        (tmp_path / "proj.py").write_text(source)
    shown = runner.invoke(main, ["-A", "proj", "call", "x"])
    assert shown.exit_code == 2
    assert words in shown.stderr
    assert shown.stderr.count("\n") == 1
    assert "Traceback" not in shown.stderr
