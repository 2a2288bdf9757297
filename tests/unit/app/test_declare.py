"""Functions become tasks: names, bases, binding, sharing, and the errors of declaring."""

from __future__ import annotations

import copy
import pickle
import sys
import types
import warnings
from typing import Any

import pytest

import celeriac
from celeriac import Celeriac, Task, current_app, current_task, shared_task
from celeriac.app.task import AsyncTask
from celeriac.errors import DuplicateTaskNameWarning


def in_module(name: str, source: str, **values: Any) -> types.ModuleType:
    """A module made of ``source``, as if it had been imported under ``name``."""
    module = types.ModuleType(name)
    module.__dict__.update(values)
    exec(compile(source, f"/nowhere/{name}.py", "exec"), module.__dict__)
    return module


def test_names_and_looks(app: Celeriac):
    @app.task
    def add(x, y):
        """Adds."""
        return x + y

    assert add.name == f"{__name__}.add"
    assert (add.__name__, add.__doc__, add.__module__) == ("add", "Adds.", __name__)
    assert add.__wrapped__(1, 2) == add(1, 2) == add.run(1, 2) == 3
    assert app.tasks[add.name] is add
    assert isinstance(add, app.Task)
    assert app.task(name="other")(lambda: None).name == "other"


HELLO = """
from celeriac import Celeriac
app = Celeriac(MAIN, broker="recording://")
@app.task
def add(x, y): return x + y
"""


@pytest.mark.parametrize("main", ["hello", "demo", None])
def test_a_script_and_the_worker_that_imports_it_agree_on_names(main: str | None, monkeypatch: pytest.MonkeyPatch):
    imported = in_module("hello", HELLO, MAIN=main)
    script = types.ModuleType("__main__")
    script.__file__ = "/nowhere/hello.py"
    script.__dict__.update(MAIN=main, __spec__=None)
    monkeypatch.setitem(sys.modules, "__main__", script)
    exec(compile(HELLO, "/nowhere/hello.py", "exec"), script.__dict__)
    sent_as = script.add.name
    assert sent_as == f"{main or 'hello'}.add"
    assert imported.app.worker_registry().tasks[sent_as].name == "hello.add"
    assert imported.app.name == script.app.name  # so both use one embedded file
    assert script.app.import_target() == "hello:app"


def test_options_become_attributes(app: Celeriac):
    @app.task(queue="mail", rate_limit="1/s", my_own=5)
    def optioned():
        """Nothing."""

    assert (optioned.queue, optioned.rate_limit, optioned.my_own) == ("mail", "1/s", 5)


def test_bound_tasks_get_themselves(app: Celeriac):
    @app.task(bind=True)
    def bound(self, x):
        return self, x, self.request.called_directly

    assert bound(5) == (bound, 5, True)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        bound.delay()


def test_a_base_of_your_own(app: Celeriac):
    class Base(Task):  # type: ignore[type-arg]
        abstract = True
        connections = 0

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            self.connections += 1
            return super().__call__(*args, **kwargs)

    @app.task(base=Base)
    def counted():
        return current_task.name

    @app.task(base=Base)
    async def awaited():
        """Nothing."""

    assert counted() == counted.name
    assert (counted.connections, Base.connections) == (1, 0)
    assert isinstance(awaited, AsyncTask)
    assert isinstance(awaited, Base)
    own = Celeriac("own", broker="recording://", task_cls=Base, set_as_current=False)
    assert isinstance(own.task(lambda: None, name="x"), Base)


def test_task_classes(app: Celeriac, sent: Any):
    class Sum(app.Task):  # type: ignore[name-defined,misc]
        def run(self, *numbers):
            return sum(numbers)

    task = app.register_task(Sum)
    assert task.name == f"{__name__}.Sum"
    assert task(1, 2, 3) == 6
    task.delay(1, 2)
    assert sent.body.args == [1, 2]
    named = app.register_task(Sum(), name="named", queue="q")
    assert (named.name, named.queue) == ("named", "q")
    with pytest.raises(NotImplementedError, match=r"defines no run\(\)"):
        Task().run()


def test_one_name_two_functions(app: Celeriac):
    @app.task(name="taken")
    def first():
        return 1

    with pytest.warns(DuplicateTaskNameWarning, match=r"second wants the task name 'taken'.*first"):

        @app.task(name="taken")
        def second():
            return 2

    assert second is first
    with pytest.warns(DuplicateTaskNameWarning) as warned:
        app.task(name="taken")(lambda: 3)
    assert warned[0].filename == __file__


def test_a_module_that_is_loaded_twice_is_no_duplicate(app: Celeriac):
    source = "@app.task(name='mod.work')\ndef work(): pass"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert in_module("mod", source, app=app).work is in_module("mod", source, app=app).work


def test_what_is_no_function(app: Celeriac):
    with pytest.raises(TypeError, match="takes a function, not 'name'"):
        app.task("name")  # type: ignore[call-overload]

    @app.task
    def fine():
        """Nothing."""

    with pytest.raises(TypeError, match="is a task already"):
        app.task(fine)
    with pytest.raises(TypeError, match="is a task already"):
        shared_task(fine)


def test_shared_tasks_belong_to_every_app():
    first = Celeriac("first", broker="recording://")
    assert not first.finalized

    @shared_task(name="shared.early")
    def early(x):
        return x

    second = Celeriac("second", broker="recording://")
    second.finalize()

    @shared_task(name="shared.late", bind=True)
    def late(self):
        return self.app

    assert isinstance(early, Task)
    assert early(5) == 5
    assert early.app is second
    assert late() is second
    first.set_current()
    assert early.app is first
    assert early is not first.tasks["shared.early"]  # a proxy
    assert early == first.tasks["shared.early"]
    early.delay(1)
    assert first.transport.sent.headers["task"] == "shared.early"  # type: ignore[attr-defined]
    assert second.tasks["shared.early"] is not first.tasks["shared.early"]


def test_what_is_current(app: Celeriac):
    assert current_app == app
    assert current_app.main == "proj"
    assert repr(current_app) == repr(app)
    with pytest.raises(AttributeError, match="no task is running"):
        _ = current_task.name
    assert not current_task
    assert getattr(current_task, "request", None) is None
    assert (current_task == None, repr(current_task)) == (True, "None")  # noqa: E711 - as ported code has it

    @app.task
    def who():
        return current_task.name, app.current_task.name, app.current_worker_task

    assert who() == (who.name, who.name, None)


def test_tasks_and_apps_survive_copying_and_pickling(app: Celeriac):
    app.conf.task_default_queue = "special"
    twin = pickle.loads(pickle.dumps(Celeriac("proj", broker="recording://", task_track_started=True)))
    assert (twin.main, twin.conf.broker_url, twin.conf.task_track_started) == ("proj", "recording://", True)
    task = shared_for_pickling
    assert pickle.loads(pickle.dumps(task)).name == task.name
    signature = task.s(1)
    assert copy.deepcopy(signature) == signature
    assert pickle.loads(pickle.dumps(signature)) == signature


@shared_task(name="tests.pickled")
def shared_for_pickling(x):
    """Nothing."""


def test_annotations():
    def loud(method):
        def around(self, *args, **kwargs):
            return ("around", method(self, *args, **kwargs))

        return around

    app = Celeriac(
        "annotated", broker="recording://",
        task_annotations={"*": {"rate_limit": "1/s", "priority": 2}, "a": {"rate_limit": "2/s", "@__call__": loud}},
    )  # fmt: skip

    @app.task(name="a")
    def a():
        return 1

    assert a.rate_limit is None
    a.delay()
    assert (a.rate_limit, a.priority) == ("2/s", 2)
    assert a() == ("around", 1)

    @app.task(name="late")
    def late():
        """Nothing."""

    assert late.rate_limit == "1/s"


def test_the_public_names_are_there():
    for name in celeriac.__all__:
        assert getattr(celeriac, name) is not None
