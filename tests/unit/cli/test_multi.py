"""The words of ``celeriac multi``: nodes, options for all and for some, signals, command lines."""

from __future__ import annotations

import signal

import pytest
from click.testing import CliRunner

from celeriac.cli.failures import Failure
from celeriac.cli.main import main
from celeriac.cli.multi.command import _takes_value
from celeriac.cli.multi.nodes import expand, nodes_of
from celeriac.cli.multi.words import chosen, node_names, parse, take_signal


def names(*given: str, host: str = "here", prefix: str = "", suffix: str | None = None) -> list[str]:
    return node_names(given, host, prefix=prefix, suffix=suffix, range_prefix="celery")


def test_node_names_are_celerys():
    assert names("3") == ["celery1@here", "celery2@here", "celery3@here"]
    assert names("image", "video@there") == ["image@here", "video@there"]
    assert names("2", suffix="ex.com") == ["celery1@ex.com", "celery2@ex.com"]
    assert names("w1@%h", "w2@%d", host="box.example.com") == ["w1@box.example.com", "w2@example.com"]
    assert names("3", "a", prefix="p_") == ["p_3@here", "p_a@here"], "a number among names is a name"


@pytest.mark.parametrize(
    ("which", "places"),
    [("1", [0]), ("1-3", [0, 1, 2]), ("2,3", [1, 2]), ("image,data", [0, 2]), ("video@here", [1])],
)
def test_some_nodes(which: str, places: list[int]):
    assert chosen(which, ["image@here", "video@here", "data@here"]) == places


@pytest.mark.parametrize("which", ["4", "0", "3-1", "2-9", "nobody"])
def test_a_node_that_is_not_there_is_refused(which: str):
    with pytest.raises(Failure, match="There is no node"):
        chosen(which, ["image@here", "video@here", "data@here"])


def test_options_of_nodes():
    words = "w1 w2 w3 -A proj -c 3 -E -Q:1-2 a,b --loglevel:w3=DEBUG --pidfile /run/%n.pid -c:2 9 -- broker.heartbeat=0"
    wish = parse(words.split(), _takes_value)
    assert wish.names == ["w1", "w2", "w3"]
    first, second, third = nodes_of(parse([*words.split()], _takes_value))
    line = " ".join(second.command)
    assert " -m celeriac -A proj worker --detach -c 9 -E -Q a,b -n w2@" in line
    assert f" -n {second.name} --pidfile=/run/w2.pid --logfile=/var/log/celery/w2%I.log --executable=" in line
    assert line.endswith(" -- broker.heartbeat=0")
    assert "--loglevel=DEBUG" in third.command
    assert "-Q" not in third.command
    assert first.command[first.command.index("-c") + 1] == "3"
    assert str(first.pid_file) == "/run/w1.pid"


def test_a_prefix_is_not_part_of_the_name_that_options_use():
    first, second = nodes_of(parse(["w1", "w2", "--prefix=p_", "-c:w2", "3"], _takes_value))
    assert (first.name.partition("@")[0], second.name.partition("@")[0]) == ("p_w1", "p_w2")
    assert "-c" in second.command
    assert "-c" not in first.command


def test_expansion_is_celerys():
    assert expand("%n %N %h %p %d %i %I", "foo@h2") == "foo foo foo@h2 foo@h2 h2 %i %I"


@pytest.mark.parametrize(
    ("words", "rest", "number"),
    [
        ("w1 -9", "w1", signal.SIGKILL), ("w1 -QUIT", "w1", signal.SIGQUIT),
        ("w1 -SIGINT -c 3", "w1 -c 3", signal.SIGINT),
        ("w1 -E -A proj", "w1 -E -A proj", signal.SIGTERM), ("w1 -- -9", "w1 -- -9", signal.SIGTERM),
    ],
)  # fmt: skip
def test_signals(words: str, rest: str, number: int):
    assert take_signal(words.split(), signal.SIGTERM) == (rest.split(), number)


def test_names_are_printed_and_a_missing_node_is_status_1():
    runner = CliRunner()
    assert runner.invoke(main, ["multi", "names", "2", "--hostname=hx"]).output == "celery1@hx\ncelery2@hx\n"
    assert runner.invoke(main, ["multi", "expand", "%n-%d", "a@x"]).output == "a-x\n"
    assert runner.invoke(main, ["multi", "get", "w9", "2"]).exit_code == 1
    shown = runner.invoke(main, ["-A", "proj", "multi", "get", "celery2", "2"])
    assert " -m celeriac -A proj worker --detach -n celery2@" in shown.output
    assert runner.invoke(main, ["multi", "dance"]).exit_code == 2
    assert runner.invoke(main, ["multi", "start"]).exit_code == 2
