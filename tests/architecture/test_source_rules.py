"""Rules of the house that a reviewer should not have to look for: they are read off the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "celeriac"

#: where the time, chance and the environment may be touched, and why
TIME_DOORS = {
    "clock.py",
    "settings/places.py",  # asks for the local zone, not for the time
    "embedded/doorbell.py",  # compares with the age of a directory, as the file system tells it
}
CHANCE_DOORS = {"ids.py", "embedded/file.py"}  # file.py spreads the tries for a lock; nothing depends on it
ENVIRONMENT_DOORS = {
    "settings/loading.py",
    "cli/origin.py",  # how this process was called
    "cli/invocation.py",  # writes -b and --result-backend for the processes it starts
}

_TIME = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.datetime.now", "datetime.today"}
_ENVIRONMENT = {"os.getenv", "os.environ.get", "os.putenv"}

#: calls that block for ever when nothing comes, unless they are given a timeout
_WAITS = {"wait", "acquire", "join", "recv"}

#: (file, function) → why the wait there ends
BOUNDED_OTHERWISE: dict[tuple[str, str], str] = {
    ("executors/crews/greenlets.py", "run"): "the socket does not block",
    ("redis/connect.py", "_feed"): "the socket has a timeout, set by _limit",
    ("redis/connect.py", "drain"): "the socket does not block",
    ("redis/looped.py", "_feed"): "the socket does not block",
    ("amqp/wire.py", "read"): "the socket does not block",
    ("embedded/doorbell.py", "drain"): "the socket does not block",
    ("testing/servers.py", "ask"): "create_connection gave the socket a timeout of two seconds",
    ("testing/servers.py", "answers"): "create_connection gave the socket a timeout of a second",
    ("embedded/file.py", "_before_fork"): "the lock is held for dictionary updates only",
    ("executors/children/desk.py", "_courier"): "a child waits for its parent; the parent's end ends the socket",
    ("executors/children/link.py", "_on_readable"): "the socket does not block",
    ("executors/children/nursery.py", "_drain_wake"): "the socket does not block",
    ("executors/crews/sequential.py", "run"): "a child waits for its parent; the parent's end ends the poll",
    ("testing/links.py", "_close"): "the socket does not block",
    (
        "executors/crews/threads.py",
        "run",
    ): "as in sequential.py; a child that does not leave in time is killed by its parent",
}


@cache
def parsed() -> dict[str, ast.Module]:
    """Path relative to src/celeriac → syntax tree."""
    return {
        path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text(encoding="utf-8"), str(path))
        for path in sorted(SOURCE.rglob("*.py"))
    }


#: what awaits the coroutine it is given
_AWAITERS = {"ensure_future", "create_task", "wait_for", "gather"}


def calls() -> Iterator[tuple[str, str, ast.Call, bool]]:
    """Every call: file, the enclosing function's name (or ""), the call, and whether it is awaited."""
    for name, tree in parsed().items():
        yield from _calls_in(tree, name, "", set())


def _calls_in(node: ast.AST, file: str, function: str, awaited: set[int]) -> Iterator[tuple[str, str, ast.Call, bool]]:
    for child in ast.iter_child_nodes(node):
        inside = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
        if isinstance(child, ast.Await):
            awaited.add(id(child.value))
        if isinstance(child, ast.Call):
            if dotted(child.func).rpartition(".")[2] in _AWAITERS:
                awaited.update(id(argument) for argument in child.args)
            yield file, inside, child, id(child) in awaited
        yield from _calls_in(child, file, inside, awaited)


def dotted(node: ast.expr) -> str:
    """``time.time`` for the expression that says so; "" for anything that is not a chain of names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        left = dotted(node.value)
        return f"{left}.{node.attr}" if left else ""
    return ""


def _where(file: str, node: ast.Call) -> str:
    return f"{file}:{node.lineno}"


def is_allowed(file: str, doors: set[str]) -> bool:
    """``testing/`` is code of tests: it may do what tests may do."""
    return file in doors or file.startswith("testing/")


def test_every_file_says_what_it_owns():
    silent = [name for name, tree in parsed().items() if tree.body and not ast.get_docstring(tree)]
    tools = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tools").glob("*.py"))
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not silent + tools, "files without an opening docstring"


def test_time_comes_through_the_clock():
    found = [
        _where(file, call)
        for file, _, call, _ in calls()
        if dotted(call.func) in _TIME and not is_allowed(file, TIME_DOORS)
    ]
    assert not found, "take a Clock as an argument instead"


def imports_random(file: str) -> bool:
    """Whether ``random`` there is the module, and not an argument of that name."""
    return any(
        isinstance(node, ast.Import) and any(name.name == "random" for name in node.names)
        for node in ast.walk(parsed()[file])
    )


def test_chance_is_handed_in():
    found = [
        _where(file, call)
        for file, _, call, _ in calls()
        if dotted(call.func).startswith("random.")
        and imports_random(file)
        and dotted(call.func) not in {"random.Random", "random.SystemRandom"}
        and file not in CHANCE_DOORS
    ]
    assert not found, "take a random.Random as an argument instead"


def test_the_environment_is_read_in_one_place():
    found = [
        _where(file, call)
        for file, _, call, _ in calls()
        if dotted(call.func) in _ENVIRONMENT and file not in ENVIRONMENT_DOORS
    ]
    assert not found, "settings/loading.py reads the environment"


def test_no_wait_is_without_an_end():
    endless = []
    for file, function, call, awaited in calls():
        if awaited or not isinstance(call.func, ast.Attribute) or call.func.attr not in _WAITS:
            continue
        bounded = any(keyword.arg == "timeout" for keyword in call.keywords)
        if call.func.attr == "recv":
            bounded = False  # the bound is the socket's: say where in BOUNDED_OTHERWISE
        elif call.args or call.keywords:
            bounded = bounded or call.func.attr != "acquire" or _non_blocking(call)
        if not bounded and (file, function) not in BOUNDED_OTHERWISE:
            endless.append(f"{_where(file, call)} .{call.func.attr}() in {function or 'the module'}")
    assert not endless, "give these a timeout, or say in BOUNDED_OTHERWISE why they end"


def _non_blocking(call: ast.Call) -> bool:
    given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "blocking")]
    return any(isinstance(value, ast.Constant) and value.value is False for value in given)


def test_the_allow_list_is_used():
    used = {(file, function) for file, function, call, _ in calls() if isinstance(call.func, ast.Attribute)}
    assert not BOUNDED_OTHERWISE.keys() - used, "entries for code that is gone"
