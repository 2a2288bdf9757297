"""Names of keys, bindings as kombu writes them, and where messages go."""

from __future__ import annotations

import pytest

from celeriac.errors import ImproperlyConfigured, Unroutable
from celeriac.redis.keys import Field, Keys, binding_member, read_binding, read_field
from celeriac.transports.base import QueueSpec, Route
from celeriac.transports.redis.broadcast import Channels
from celeriac.transports.redis.sending import Bindings, declaration

SEP = "\x06\x16"


def test_lists_are_kombus():
    keys = Keys()
    assert keys.lists("celery") == ["celery", f"celery{SEP}3", f"celery{SEP}6", f"celery{SEP}9"]
    assert [keys.step_of(level) for level in (-1, 0, 2, 3, 5, 8, 9, 200, None, "x")] == [0, 0, 0, 3, 3, 6, 9, 9, 0, 0]
    keys = Keys.of({"global_keyprefix": "{a}:", "sep": b":", "priority_steps": [5, 1]})
    assert keys.lists("q") == ["{a}:q", "{a}:q:1", "{a}:q:5"]
    assert keys.owners.startswith("{a}:_celeriac.")
    for options in ({"priority_steps": [12]}, {"priority_steps": ["x"]}, {"sep": ""}):
        with pytest.raises(ImproperlyConfigured):
            Keys.of(options)


@pytest.mark.parametrize(
    ("kind", "key", "member"),
    [  # captured from kombu 5.7.0
        ("direct", "a.b", f"a.b{SEP}{SEP}q"),
        ("topic", "a.*", rf"a.*{SEP}^a\.[^\.]+${SEP}q"),
        ("topic", "a.#.b", rf"a.#.b{SEP}^a\..*?\.b${SEP}q"),
        ("topic", "a+b", rf"a+b{SEP}^a\+b${SEP}q"),
        ("fanout", "x", f"x{SEP}{SEP}q"),
    ],
)
def test_bindings_are_kombus(kind: str, key: str, member: str):
    assert binding_member(Keys(), "q", key, kind) == member
    assert read_binding(Keys(), member.encode()) == (key, "q")


def test_a_senseless_binding_is_passed_over():
    assert read_binding(Keys(), b"\xff\x06\x16") is None
    assert read_binding(Keys(), f"a{SEP}b{SEP}".encode()) is None


def test_a_declaration_tells_celery_too():
    keys = Keys()
    spec = QueueSpec(name="q", exchange="e", routing_key="k")
    names = [command[1] for command in declaration(keys, spec)]
    assert names == [keys.queues, "_kombu.binding.e", "_kombu.binding_permanent.e"]
    expiring = QueueSpec(name="q", exchange="e", routing_key="k", expires=5.0)
    assert "_kombu.binding_permanent.e" not in [command[1] for command in declaration(keys, expiring)]
    assert declaration(keys, QueueSpec(name="q")) == [("SADD", keys.queues, "q")]


def test_fields_are_read_whatever_the_queue_is_called():
    assert read_field("12.3.9.a.b.c") == Field(12, 3, 9, "a.b.c")


def test_bindings_are_remembered_and_looked_up_again():
    keys = Keys()
    stored = {binding_member(keys, "q", "k", "direct").encode()}
    asked: list[str] = []

    def ask(key: str) -> set[bytes]:
        asked.append(key)
        return set(stored)

    bindings = Bindings(keys)
    assert bindings.queues_for(Route("e", "k"), ask) == ["q"]
    assert bindings.queues_for(Route("e", "k"), ask) == ["q"]
    assert len(asked) == 1
    # what is not known is asked for, since it may have been declared by now
    stored.add(binding_member(keys, "r", "l", "direct").encode())
    assert bindings.queues_for(Route("e", "l"), ask) == ["r"]
    with pytest.raises(Unroutable):
        bindings.queues_for(Route("e", "m"), ask)
    bindings.forget()
    assert bindings.queues_for(Route("e", "k"), ask) == ["q"]
    assert len(asked) == 4


def test_channels_are_kombus():
    channels = Channels("", 0, {})
    assert channels.name("celery.pidbox", "") == "/0.celery.pidbox"
    assert channels.name("celeryev", "worker.online") == "/0.celeryev/worker.online"
    assert Channels("p:", 3, {}).name("x", "") == "p:/3.x"
    assert Channels("", 3, {"fanout_prefix": False, "fanout_patterns": False}).name("x", "k") == "x"
    assert Channels("", 3, {"fanout_prefix": "{db}!"}).name("x", "") == "3!x"

    def patterns(kind: str, *keys: str) -> list[bytes]:
        return list(channels.patterns(QueueSpec(name="q", exchange="e", exchange_type=kind), keys))

    assert patterns("topic", "worker.#", "task.*") == [b"/0.e/worker.*", b"/0.e/task.*"]
    assert patterns("fanout") == [b"/0.e", b"/0.e/*"]
    assert channels.patterns(QueueSpec(name="q", exchange="e[1]?", exchange_type="topic"), ["#"]).keys() == {
        rb"/0.e\[1\]\?/*"
    }
