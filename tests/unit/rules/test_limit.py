"""What users write about limits, and what is made of it for a task."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac import Celeriac, Limit
from celeriac.errors import ImproperlyConfigured
from celeriac.rules.counting import Need
from celeriac.rules.limit import LimitChange, bind, limits_of, same_under_one_name
from celeriac.rules.limit_keys import Parameters, parse_path, select, text_of

PARAMETERS = Parameters(
    positional=("tenant", "order"), keyword_only=("region",), defaults={"order": None, "region": "eu"}
)  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({}, "rate such as"),
        ({"rate": "10/d"}, "is no rate"),
        ({"rate": "0/s"}, "above 0"),
        ({"rate": "fast"}, "is no rate"),
        ({"concurrency": 0}, "whole number from 1"),
        ({"concurrency": 1.5}, "whole number from 1"),
        ({"concurrency": True}, "whole number from 1"),
        ({"concurrency": 1, "burst": 2}, "burst belongs to a rate"),
        ({"rate": 1, "burst": 0}, "whole number from 1"),
        ({"rate": 1, "name": ""}, "name is text"),
        ({"rate": 1, "key": ""}, "key is text"),
        ({"rate": 1, "key": 7}, "key is text"),
        ({"rate": 1, "key": "tenant"}, "did you mean 'args.tenant'"),
        ({"rate": 1, "key": "args"}, "names no argument"),
        ({"rate": 1, "key": "headers"}, "names no header"),
        ({"rate": 1, "key": "kwargs[0]"}, "have names"),
        ({"rate": 1, "key": "args.a b"}, "cannot be read from ' b'"),
        ({"rate": 1, "key": "args[-1]"}, "cannot be read"),
        ({"rate": 1, "key": "args[x]"}, "cannot be read"),
        ({"rate": 1, "key": "__import__('os').system('true')"}, "must begin with args"),
        ({"rate": 1, "key": "args.tenant()"}, "cannot be read from '()'"),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_is_written(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=says.replace("(", r"\(").replace(")", r"\)")):
        Limit(**wrong)


def test_mappings_are_limits_too() -> None:
    assert limits_of([{"rate": "1/s"}, Limit(concurrency=2)], "here") == (Limit(rate="1/s"), Limit(concurrency=2))
    assert limits_of({"concurrency": 2}, "here") == limits_of(Limit(concurrency=2), "here")
    for wrong, says in (
        ([{"rates": 1}], "here: a limit has no rates"), ("10/s", "here: a list of Limit"),
        ([3], "here: 3 is not a Limit"), ([{"rate": "x"}], "here: a Limit's rate"),
    ):  # fmt: skip
        with pytest.raises(ImproperlyConfigured, match=says):
            limits_of(wrong, "here")


@pytest.mark.parametrize(
    ("key", "args", "kwargs", "found"),
    [
        ("args.tenant", ("acme",), {}, "acme"),
        ("args.tenant", (), {"tenant": "acme"}, "acme"),
        ("kwargs.tenant", ("acme",), {}, "acme"),
        ("args[0]", (), {"tenant": "acme"}, "acme"),
        ("args[1]", ("acme",), {}, None),
        ("args.order.lines[1].sku", ("acme", {"lines": [{}, {"sku": "x"}]}), {}, "x"),
        ("args.order['a.b']", (), {"order": {"a.b": 3}}, 3),
        ('args[1]["a"][0]', ("acme", {"a": [9]}), {}, 9),
        ("args.order.lines[5]", ("acme", {"lines": []}), {}, None),
        ("args.order.customer.id", ("acme", None), {}, None),
        ("args.tenant.upper", ("acme",), {}, None),
        ("kwargs.region", ("acme",), {}, "eu"),
        ("kwargs.region", ("acme",), {"region": "us"}, "us"),
        ("headers.tenant", (), {}, "of the header"),
    ],
)
def test_paths_find_the_same_however_the_call_was_written(key: str, args: Any, kwargs: Any, found: Any) -> None:
    selector = select(parse_path(key), PARAMETERS)
    assert selector.find(args, kwargs, {"tenant": "of the header"}) == found


@pytest.mark.parametrize("key", ["args.tenants", "args[2]", "kwargs.nobody"])
def test_a_path_that_no_call_can_have_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="argument"):
        select(parse_path(key), PARAMETERS)


def test_functions_that_take_anything() -> None:
    anything = Parameters(positional=("a",), takes_more=True, takes_any_keyword=True)
    assert select(parse_path("args[3]"), anything).find((0, 1, 2, "x"), {}, {}) == "x"
    assert select(parse_path("args.other"), anything).find((0,), {"other": "y"}, {}) == "y"


def test_a_mistake_is_told_at_the_declaration() -> None:
    app = Celeriac("declared", set_as_current=False)
    with pytest.raises(ImproperlyConfigured, match=r"limits of task .*mail: key 'args.user': .* it has: tenant, count"):

        @app.task(limits=[Limit(rate="1/s", key="args.user")])
        def mail(tenant: str, count: int = 1) -> None: ...

    @app.task(bind=True, limits={"rate": "600/m", "concurrency": 3, "key": "args[0]"})
    def bound(self: Any, tenant: str) -> None: ...

    (one,) = bound.runnable_options.limits
    assert one.needs((), {"tenant": "acme"}, {}) == [
        Need(f"task/{bound.name}|0|acme|c", most=3), Need(f"task/{bound.name}|0|acme|r", interval=0.1, burst=1),
    ]  # fmt: skip


def test_what_decorates_a_function_is_looked_through() -> None:
    import functools

    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    app = Celeriac("decorated", set_as_current=False)

    @app.task(limits=[Limit(concurrency=1, key="args.tenant")])
    @decorate
    def mail(number: int, tenant: str) -> None: ...

    (one,) = mail.runnable_options.limits
    assert one.needs((1, "acme"), {}, {}) == one.needs((1,), {"tenant": "acme"}, {})


def test_counters_are_shared_by_name_and_must_say_the_same() -> None:
    def bound(name: str, *limits: Limit) -> Any:
        return [(name, one) for one in bind(limits, name, f"task/{name}", lambda: PARAMETERS)]

    api = Limit(rate="5/s", name="api")
    both = bound("a", api) + bound("b", Limit(concurrency=1), api)
    same_under_one_name(both)
    assert both[0][1].needs((), {}, {}) == both[2][1].needs((), {}, {}) == [Need("name/api|r", interval=0.2, burst=1)]
    with pytest.raises(ImproperlyConfigured, match="both have a limit named 'api'"):
        same_under_one_name(bound("a", api) + bound("b", Limit(rate="6/s", name="api")))


def test_high_rates_get_a_burst_of_a_tenth_of_a_second() -> None:
    limits = [Limit(rate="1000/s"), Limit(rate="5/s"), Limit(rate="1000/s", burst=1), Limit(rate="1/h", burst=5)]
    assert [one.burst for one in bind(limits, "x", "x", lambda: None)] == [100, 1, 1, 5]


@given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=20))
def test_any_value_is_a_short_printable_name(value: Any) -> None:
    text = text_of(value)
    assert text == text_of(value)
    assert len(text) <= 64
    assert "|" not in text
    assert text.isprintable()
    assert text.isascii()


def test_values_that_differ_have_names_that_differ() -> None:
    values = [
        "acme",
        "Acme",
        "a" * 100,
        "a" * 101,
        "ä",
        "ö",
        "a|b",
        "a|c",
        "\x1b[2J",
        [1, 2],
        {"a": 1},
        1.5,
        True,
        None,
        "",
    ]
    assert len({text_of(value) for value in values}) == len(values)
    assert text_of(7) == text_of("7")
    assert text_of({"a": 1, "b": 2}) == text_of({"b": 2, "a": 1})


# ── changed while workers run ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("limit", "change", "numbers"),
    [
        (Limit(rate="100/m", burst=3), {"rate": "10/s"}, (0.1, 3, 0)),
        (Limit(rate="100/m", burst=3), {"rate": "10/s", "burst": None}, (0.1, 1, 0)),
        (Limit(rate="100/m", burst=3), {"rate": None}, (0.0, 1, 0)),
        (Limit(rate=1, concurrency=2), {"rate": None}, (0.0, 1, 2)),
        (Limit(concurrency=2), {"concurrency": 7}, (0.0, 1, 7)),
        (Limit(concurrency=2), {"rate": "60/m"}, (1.0, 1, 2)),
        (Limit(concurrency=2), {"concurrency": None}, (0.0, 1, 0)),
    ],
)
def test_a_change_replaces_numbers_and_goes_without_a_trace(
    limit: Limit, change: dict[str, Any], numbers: tuple[float, int, int]
) -> None:
    (bound,) = bind([limit], "here", "task/t", lambda: None)
    after = bound.changed(LimitChange(**change))
    assert (after.interval, after.burst, after.most) == numbers
    assert after.counter == bound.counter
    assert bool(after.needs((), {}, {})) == any(numbers[::2])
    assert after.changed(None) == bound


@pytest.mark.parametrize("change", [{"rate": "often"}, {"rate": 0}, {"concurrency": 0}, {"burst": 2}])
def test_a_change_says_what_a_limit_may_say(change: dict[str, Any]) -> None:
    (bound,) = bind([Limit(concurrency=2)], "here", "task/t", lambda: None)
    if change != {"burst": 2}:
        with pytest.raises(ImproperlyConfigured):
            bound.changed(LimitChange(**change))
    else:  # of a rate that there may be later
        assert bound.changed(LimitChange(**change)).burst == 1
