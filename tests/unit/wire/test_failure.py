"""Exceptions as data: what is written, what is rebuilt, what is never done."""

from __future__ import annotations

import pickle
import sys
import types
from typing import Any

import pytest

from celeriac import errors
from celeriac.errors import DecodeError, RemoteError, SecurityError
from celeriac.wire import error_names
from celeriac.wire.failure import exception_from_wire, exception_to_wire, traceback_text
from celeriac.wire.serializers import accept_set, dumps, loads


class Outer:
    class Inner(Exception):
        pass


class Picky(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


class NotQuite(Exception):
    def __new__(cls, *args: Any) -> Any:
        return object.__new__(object)


def wire(kind: Any, message: Any = (), module: Any = "builtins") -> dict[str, Any]:
    return {"exc_type": kind, "exc_message": message, "exc_module": module}


class TestWriting:
    def test_layout_is_celerys(self) -> None:
        assert exception_to_wire(ValueError("boom", 9)) == wire("ValueError", ["boom", 9])
        assert exception_to_wire(Outer.Inner()) == wire("Outer.Inner", [], __name__)

    @pytest.mark.parametrize("serializer", ["json", "yaml", "msgpack"])
    def test_arguments_that_cannot_travel_become_their_repr(self, serializer: str) -> None:
        data = exception_to_wire(KeyError("k", object, [1]), serializer)
        assert data["exc_message"] == ["k", "<class 'object'>", [1]]
        dumps(data, serializer)

    def test_our_errors_go_by_celerys_names(self) -> None:
        for error, module in (
            (errors.NotRegistered("x"), "celery.exceptions"),
            (errors.TaskRevokedError("revoked"), "celery.exceptions"),
            (errors.WorkerLostError("x"), "billiard.exceptions"),
            (errors.SoftTimeLimitExceeded(), "billiard.exceptions"),
            (errors.TimeLimitExceeded(5), "billiard.exceptions"),
            (errors.Terminated(9), "billiard.exceptions"),
            (errors.ContentDisallowed("x"), "kombu.exceptions"),
            (errors.PoisonTask("x"), "celeriac.errors"),
        ):
            data = exception_to_wire(error)
            assert (data["exc_module"], data["exc_type"]) == (module, type(error).__name__)
            back = exception_from_wire(data)
            assert type(back) is type(error)
            assert back.args == error.args

    def test_pickle_keeps_what_survives_it(self) -> None:
        error = ValueError("x", {1, 2})
        assert exception_to_wire(error, "pickle") is error
        local = type("Local", (Exception,), {})("x")
        assert exception_to_wire(local, "pickle")["exc_type"] == "Local"
        assert exception_to_wire(Picky(1, "x"), "pickle")["exc_message"] == ["1: x"]

    @pytest.mark.parametrize("error", [errors.Ignore(), errors.PoisonTask("x"), errors.WorkerLostError("x")])
    def test_our_own_classes_are_never_pickled(self, error: Exception) -> None:
        """A reader that has Celery alone could not import them."""
        assert exception_to_wire(error, "pickle") == exception_to_wire(error, "json")

    def test_an_exception_that_cannot_be_shown_is_still_written(self) -> None:
        class Mute(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no")

            __repr__ = __str__

        class Shy:
            def __repr__(self) -> str:
                raise RuntimeError("no")

        assert "Shy" in exception_to_wire(Mute(Shy()))["exc_message"][0]
        assert "Mute" in traceback_text(Mute())

    def test_traceback_has_the_causes(self) -> None:
        try:
            try:
                raise KeyError("first")
            except KeyError as cause:
                raise ValueError("second") from cause
        except ValueError as error:
            text = traceback_text(error)
        assert text.startswith("Traceback (most recent call last):\n")
        assert "KeyError: 'first'" in text
        assert text.endswith("ValueError: second\n")


class TestReading:
    def test_known_classes_are_rebuilt(self) -> None:
        rebuilt = exception_from_wire(wire("ValueError", ["boom", 9]))
        assert (type(rebuilt), rebuilt.args) == (ValueError, ("boom", 9))
        assert type(exception_from_wire(wire("Outer.Inner", ["x"], __name__))) is Outer.Inner
        assert exception_from_wire(wire("ValueError", "text")).args == ("text",)
        assert exception_from_wire(ValueError("x")).args == ("x",)

    @pytest.mark.parametrize("module", ["celery.exceptions", "billiard.exceptions"])
    def test_both_spellings_of_billiards_names_are_read(self, module: str) -> None:
        assert type(exception_from_wire(wire("WorkerLostError", ["x"], module))) is errors.WorkerLostError

    def test_unknown_classes_become_a_remote_error_of_that_name(self) -> None:
        rebuilt = exception_from_wire(wire("pkg.CardDeclined", ["no", 5], "shop.errors"))
        cls = type(rebuilt)
        assert isinstance(rebuilt, RemoteError)
        assert (cls.__module__, cls.__qualname__, cls.__name__) == ("shop.errors", "pkg.CardDeclined", "CardDeclined")
        assert (repr(rebuilt), str(rebuilt)) == ("CardDeclined('no', 5)", "('no', 5)")
        assert type(exception_from_wire(wire("pkg.CardDeclined", [], "shop.errors"))) is cls
        # and travels on under its own name
        assert exception_to_wire(rebuilt) == wire("pkg.CardDeclined", ["no", 5], "shop.errors")
        assert exception_to_wire(rebuilt, "pickle") == wire("pkg.CardDeclined", ["no", 5], "shop.errors")

    def test_a_missing_module_is_celerys(self) -> None:
        assert type(exception_from_wire({"exc_type": "Ignore"})) is errors.Ignore
        assert type(exception_from_wire({"exc_type": "Odd"})).__module__ == "celery.exceptions"

    def test_a_constructor_that_refuses_leaves_a_readable_error(self) -> None:
        rebuilt = exception_from_wire(exception_to_wire(Picky(1, "x")))
        assert isinstance(rebuilt, RemoteError)
        assert repr(rebuilt) == "Picky('1: x')"
        assert isinstance(exception_from_wire(wire("NotQuite", [1], __name__)), RemoteError)
        assert isinstance(exception_from_wire(wire("UnicodeDecodeError", ["x"])), RemoteError)

    @pytest.mark.parametrize(
        ("module", "name"), [("os", "system"), ("builtins", "eval"), ("builtins", "int"), ("subprocess", "Popen")]
    )
    def test_what_is_no_exception_class_is_refused(self, module: str, name: str) -> None:
        with pytest.raises(SecurityError, match=name):
            exception_from_wire(wire(name, ["true"], module))

    @pytest.mark.parametrize(
        "data", [5, "x", [], None, {}, {"exc_type": 5}, {"exc_type": ""}, wire("a\0b"), wire("\n")]
    )
    def test_other_shapes_are_decode_errors(self, data: Any) -> None:
        with pytest.raises(DecodeError):
            exception_from_wire(data)

    def test_nothing_is_imported_and_no_lazy_attribute_is_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str] = []
        module = types.ModuleType("lazy_module_of_test")
        module.__getattr__ = asked.append  # type: ignore[method-assign]
        monkeypatch.setitem(sys.modules, "lazy_module_of_test", module)
        assert isinstance(exception_from_wire(wire("Gone", ["x"], "lazy_module_of_test")), RemoteError)
        assert asked == []
        assert "sched" not in sys.modules
        assert isinstance(exception_from_wire(wire("Gone", ["x"], "sched")), RemoteError)
        assert "sched" not in sys.modules

    def test_stand_ins_do_not_pile_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        kept: dict[tuple[str, str], type[RemoteError]] = {}
        monkeypatch.setattr(error_names, "_stand_ins", kept)
        for number in range(1500):
            exception_from_wire(wire(f"Class{number}", [], "nowhere"))
        assert len(kept) == 1024


class TestPickledByCelery:
    ACCEPT = accept_set(["pickle"])

    def read(self, module: str, name: str, *args: Any) -> Any:
        data = f"c{module}\n{name}\n".encode() + pickle.dumps(args, protocol=4)[2:-1] + b"R."
        return loads(data, "application/x-python-serialize", "binary", self.ACCEPT)

    def test_celerys_classes_are_read_as_ours(self) -> None:
        assert type(self.read("celery.exceptions", "TaskRevokedError", "x")) is errors.TaskRevokedError
        assert type(self.read("billiard.exceptions", "WorkerLostError", "x")) is errors.WorkerLostError

    def test_its_wrapper_of_unpicklable_exceptions_is_unwrapped(self) -> None:
        wrapper = ("celery.utils.serialization", "UnpickleableExceptionWrapper")
        rebuilt = self.read(*wrapper, "pkg", "Lost", ["a", 1], "Lost('a', 1)")
        assert isinstance(rebuilt, RemoteError)
        assert repr(rebuilt) == "Lost('a', 1)"
        assert isinstance(self.read(*wrapper, None, 5), RemoteError)
