"""Exchange emulation: which queues a route leads to."""

from __future__ import annotations

import pytest

from celeriac.errors import Unroutable
from celeriac.transports.bindings import Binding, destinations, topic_matches
from celeriac.wire.envelope import Route


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("*.b", "a.b", True),
        ("*", "a", True),
        ("*", "a.b", False),
        ("*", "", False),
        ("#", "", True),
        ("#", "a.b.c", True),
        ("a.#", "a", True),
        ("a.#", "a.b.c", True),
        ("a.#", "ab", False),
        ("#.b", "b", True),
        ("#.b", "a.a.b", True),
        ("#.b", "ab", False),
        ("a.#.b", "a.b", True),
        ("a.#.b", "a.x.y.b", True),
        ("a.#.b", "a.xb", False),
        ("#.#.#", "a", True),
        ("a.#.#.b", "a.b", True),
        ("*.#", "", False),
        ("*.#", "a.b", True),
        ("#.*", "a", True),
        ("task.#", "task.sent", True),
        ("worker.#", "task.sent", False),
        ("a+.*", "a+.b", True),
        ("a+.*", "aa.b", False),
        ("a.*", "a.b\n", True),
    ],
)
def test_topic_patterns(pattern: str, key: str, expected: bool) -> None:
    assert topic_matches(pattern, key) is expected


def test_hostile_patterns_do_not_backtrack() -> None:
    assert not topic_matches(".".join(["#", "a"] * 12) + ".b", ".".join(["a"] * 24))


def test_each_queue_once_and_none_is_an_error() -> None:
    bound = [Binding("topic", "a.*", "q"), Binding("topic", "#", "q"), Binding("direct", "a.b", "r")]
    assert destinations(Route("x", "a.b"), bound) == ["q", "r"]
    assert destinations(Route("x", "z"), [Binding("fanout", "whatever", "f")]) == ["f"]
    with pytest.raises(Unroutable, match=r"exchange 'x'.*'z'"):
        destinations(Route("x", "z"), [Binding("direct", "y", "q")])
