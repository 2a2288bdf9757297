"""Steps: their order, what they may require, and how a blueprint starts and stops them."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.bootsteps import CLOSE, RUN, Blueprint, StartStopStep, Step
from celeriac.errors import ImproperlyConfigured
from celeriac.worker.steps.classes import in_order


class Parent:
    def __init__(self) -> None:
        self.steps: list[Any] = []
        self.told: list[str] = []


class Told(StartStopStep):
    def start(self, parent: Parent) -> None:
        parent.told.append(f"start {type(self).__name__}")

    def stop(self, parent: Parent) -> None:
        parent.told.append(f"stop {type(self).__name__}")


class First(Told):
    pass


class Second(Told):
    requires = (First,)


class Third(Told):
    requires = (f"{Second.__module__}:Second",)


class Final(Told):
    last = True


def test_steps_come_after_what_they_require():
    assert in_order({Third, Second, First, Final}) == [First, Second, Third, Final]


def test_parts_of_the_worker_may_be_required_by_celerys_names():
    class Mine(Step):
        requires = ("celery.worker.components:Timer", "celery.worker.consumer.tasks:Tasks", "celeriac.worker:pool")

    assert in_order({Mine}, {"Timer", "Tasks", "Pool"}) == [Mine]


def test_what_nobody_provides_is_refused():
    with pytest.raises(ImproperlyConfigured, match=r"requires .*First, which is not among the steps"):
        in_order({Second})


def test_circles_are_refused():
    class Left(Step):
        name = "left"
        requires = ("right",)

    class Right(Step):
        name = "right"
        requires = ("left",)

    with pytest.raises(ImproperlyConfigured, match="left → right → left"):
        in_order({Left, Right})


def test_a_blueprint_starts_and_stops_in_reverse():
    parent = Parent()
    blueprint = Blueprint({Third, First, Second}).apply(parent)
    blueprint.start(parent)
    assert blueprint.state == RUN
    blueprint.stop(parent)
    assert blueprint.state == CLOSE
    assert blueprint.shutdown_complete.is_set()
    names = ["First", "Second", "Third"]
    assert parent.told == [f"start {name}" for name in names] + [f"stop {name}" for name in reversed(names)]


def test_a_step_that_fails_to_stop_keeps_no_other_from_it():
    class Broken(Told):
        name = "zzz"

        def stop(self, parent: Parent) -> None:
            raise RuntimeError("no")

    parent = Parent()
    blueprint = Blueprint({First, Broken}).apply(parent)
    blueprint.start(parent)
    blueprint.stop(parent)
    assert parent.told[-1] == "stop First"


def test_an_object_that_a_step_creates_is_started_and_stopped():
    told: list[str] = []

    class Thing:
        def start(self) -> None:
            told.append("start")

        def stop(self) -> None:
            told.append("stop")

    class Holding(StartStopStep):
        def create(self, parent: Parent) -> Thing:
            return Thing()

    parent = Parent()
    blueprint = Blueprint({Holding}).apply(parent)
    blueprint.start(parent)
    blueprint.stop(parent, terminate=True)
    assert told == ["start", "stop"]


def test_a_disabled_step_is_left_out():
    class Off(Told):
        enabled = False

    parent = Parent()
    assert Blueprint({Off}).apply(parent).order == []
    assert parent.steps == []
