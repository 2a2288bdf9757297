"""A signature is a mapping with Celery's keys and merging rules."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest

from celeriac.canvas.signature import Signature, maybe_signature, signature
from celeriac.errors import ImproperlyConfigured


class App:
    """Remembers what it is asked to send."""

    def __init__(self) -> None:
        self.tasks: dict[str, Any] = {}
        self.sent: list[Any] = []

    def send_task(self, name, args, kwargs, **options):
        self.sent.append((name, args, kwargs, options))
        return "result"

    def AsyncResult(self, task_id, task_name=None):
        return ("result of", task_id, task_name)


@pytest.fixture
def app() -> App:
    return App()


def test_it_is_the_mapping_that_travels(app: App):
    made = Signature("add", (1,), {"y": 2}, {"queue": "q"}, app=app, countdown=3)
    assert made == {
        "task": "add", "args": (1,), "kwargs": {"y": 2}, "options": {"queue": "q", "countdown": 3},
        "subtask_type": None, "immutable": False,
    }  # fmt: skip
    assert json.loads(json.dumps(made))["args"] == [1]
    assert type(made.__json__()) is dict
    assert (made.name, made.task, made.args, made.kwargs) == ("add", "add", (1,), {"y": 2})


@pytest.mark.parametrize("travel", [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made)), signature])
def test_copies_share_nothing(travel: Any):
    made = Signature("add", ([1],), {}, {"link": [Signature("next")]})
    twin = travel(made)
    assert isinstance(twin, Signature)
    assert twin == made
    twin.options["link"].append(1)
    twin.options["queue"] = "q"
    assert len(made.options["link"]) == 1
    assert "queue" not in made.options


def test_partial_arguments_come_first_and_options_are_updated(app: App):
    made = Signature("add", (1,), {"y": 2, "z": 3}, {"queue": "a", "priority": 1}, app=app)
    made.apply_async((0,), {"y": 9}, queue="b", countdown=5)
    assert app.sent == [("add", (0, 1), {"y": 9, "z": 3}, {"queue": "b", "priority": 1, "countdown": 5})]
    assert made.args == (1,)


def test_immutable_signatures_take_options_only(app: App):
    made = Signature("add", (1,), {"y": 2}, immutable=True, app=app)
    made.apply_async((0,), {"y": 9}, queue="b")
    assert app.sent == [("add", (1,), {"y": 2}, {"queue": "b"})]
    made.set_immutable(False)
    made.delay(7)
    assert app.sent[-1][1] == (7, 1)


def test_a_place_in_a_group_and_stamps_are_kept(app: App):
    made = Signature("add", options={"group_id": "g", "stamped_headers": ["s"], "s": 1}, app=app)
    made.apply_async(group_id="other", stamped_headers=["t"], s=2, t=3)
    assert app.sent[-1][3] == {"group_id": "g", "stamped_headers": ["s"], "s": 1, "t": 3}


def test_options_that_are_none_are_not_given(app: App):
    Signature("add", options={"queue": None, "expires": None}, app=app).apply_async(countdown=None, priority=1)
    assert app.sent[-1][3] == {"priority": 1}


def test_a_task_that_is_here_sends_itself(app: App):
    calls: list[Any] = []

    class Task:
        name = "here"

        def apply_async(self, args, kwargs, **options):
            calls.append((args, kwargs, options))

        def __call__(self, *args, **kwargs):
            return args, kwargs

    app.tasks["here"] = Task()
    made = Signature("here", (1,), app=app)
    made.delay(2)
    assert calls == [((2, 1), {}, {})]
    assert made(5, k=6) == ((5, 1), {"k": 6})
    assert made.type is app.tasks["here"]
    assert Signature(app.tasks["here"]).name == "here"


def test_cloning_replacing_setting():
    made = Signature("add", (1,), {"a": 1}, {"queue": "q"})
    clone = made.clone((0,), {"b": 2}, priority=1)
    assert (clone.args, clone.kwargs, clone.options) == ((0, 1), {"a": 1, "b": 2}, {"queue": "q", "priority": 1})
    replaced = made.replace(args=(9,), options={})
    assert (replaced.args, replaced.kwargs, replaced.options) == ((9,), {"a": 1}, {})
    assert made.set(immutable=True, countdown=4) is made
    assert made.immutable
    assert made.options == {"queue": "q", "countdown": 4}


def test_freezing_fixes_the_id(app: App):
    made = Signature("add", app=app)
    result = made.freeze(group_id="g", root_id="r", parent_id="p", group_index=0, chord={"task": "body"})
    assert result == ("result of", made.id, "add")
    assert made.options == {
        "task_id": made.id, "group_id": "g", "root_id": "r", "parent_id": "p", "group_index": 0,
        "chord": {"task": "body"},
    }  # fmt: skip
    assert made.freeze("other")[1] == made.id  # type: ignore[index]
    assert Signature("add", app=app).freeze("mine")[1] == "mine"  # type: ignore[index]
    assert (made.root_id, made.parent_id) == ("r", "p")


def test_links():
    made, one, two = Signature("add"), Signature("one"), Signature("two")
    assert made.link(one) is one
    made.link(one)
    assert made.on_error(two) is made
    assert made.options == {"link": [one], "link_error": [two]}
    one.link(two)
    assert made.flatten_links() == [made, one, two]
    single = Signature("add", options={"link": one})
    single.link(two)
    assert single.options["link"] == [one, two]


def test_it_reads_as_the_call_it_is():
    assert repr(Signature("proj.add", (1, "a"), {"y": 2})) == "proj.add(1, 'a', y=2)"
    assert Signature("add", (1,)).reprcall(0) == "add(0, 1)"


def test_what_is_a_signature():
    assert signature("add", (1,), {"y": 2}, queue="q").options == {"queue": "q"}
    plain = {"task": "add", "args": [1], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
    rebuilt = maybe_signature(plain)
    assert isinstance(rebuilt, Signature)
    assert rebuilt.args == (1,)
    assert maybe_signature(None) is None
    assert [type(item) for item in maybe_signature([plain, plain])] == [Signature, Signature]
    assert maybe_signature(rebuilt) is rebuilt
    assert maybe_signature(rebuilt, clone=True) is not rebuilt
    with pytest.raises(ImproperlyConfigured, match="workflow type 'chord'"):
        maybe_signature({**plain, "subtask_type": "chord"})


def test_two_signatures_are_not_merged_as_mappings():
    with pytest.raises(TypeError):
        Signature("a") | Signature("b")
    with pytest.raises(TypeError):
        Signature("a") | 5


def test_without_an_app(monkeypatch: pytest.MonkeyPatch):
    from celeriac import current

    monkeypatch.setattr(current, "get_current_app", lambda: None)
    with pytest.raises(ImproperlyConfigured, match="no app"):
        Signature("add").delay()
