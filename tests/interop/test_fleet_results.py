"""Results: every serializer, compression, extended records, and ``rpc://`` in both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleet import Place

pytestmark = pytest.mark.interop
Direction = tuple[str, str]
PREFIX = {
    "broker_transport_options": {"global_keyprefix": "{b}:"},
    "result_backend_transport_options": {"global_keyprefix": "app"},
}


def call(task: str, *args: Any, kwargs: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return {"task": f"party.{task}", "args": list(args), "kwargs": kwargs or {}, "options": options}


@pytest.mark.parametrize(
    ("serializer", "sample", "more"),
    [
        ("pickle", "python", {"result_compression": "gzip"}),
        ("msgpack", "binary", {"result_compression": "zstd"}),
        ("yaml", "yaml", {"result_extended": True}),
        ("json", "extended", PREFIX),
    ],
)
def test_results_of_every_kind(
    place: Callable[..., Place], direction: Direction, serializer: str, sample: str, more: dict[str, Any]
) -> None:
    producer, consumer = direction
    here = place("redis", result_serializer=serializer, **more)
    here.worker(consumer)
    ids = here.send(
        producer, call("sample", sample), call("boom", "custom"), call("echo", 1, kwargs={"k": "v"}),
        call("mark", "later", countdown=0.3),
    )  # fmt: skip
    value, failure, echo, later = here.get(producer, ids)
    assert value["state"] == "SUCCESS"
    assert sorted(value["repr"]) == sorted(here.ask(producer, "samples")[sample])  # YAML sorts keys
    assert (failure["error"], failure["error_args"]) == ("party_app.Custom", "(7, 'custom')")
    assert "party_app.py" in failure["traceback"]
    assert (echo["value"], later["value"]) == ([[1], {"k": "v"}], "later")
    if "result_extended" in more:
        meta = here.ask(producer, "meta", id=ids[2])
        assert (meta["status"], meta["children"]) == ("SUCCESS", [])
        assert (meta["name"], meta["queue"], meta["retries"]) == ("party.echo", "celery", 0)
        assert (meta["args"], meta["kwargs"]) == ([1], {"k": "v"})
        assert meta["worker"].startswith(consumer)


def test_results_as_replies(place: Callable[..., Place], broker: str, direction: Direction) -> None:
    """``rpc://``: only the process that sent the task can read its result."""
    producer, consumer = direction
    here = place(broker, result_backend="rpc://")
    here.worker(consumer)
    outcomes = here.run(
        producer, call("add", 2, 3), call("boom", "custom"), {"task": "party.echo", "sample": "extended"},
        call("flaky", 2, kwargs={"countdown": 0.1}), call("mark", "later", countdown=0.5),
        *[call("add", n) for n in range(50)],
    )  # fmt: skip
    assert outcomes[0]["repr"] == "5"
    assert (outcomes[1]["state"], outcomes[1]["error"]) == ("FAILURE", "party_app.Custom")
    assert outcomes[2]["repr"] == f"[[{here.ask(producer, 'samples')['extended']}], {{}}]"
    assert outcomes[3]["repr"] == "2"
    assert outcomes[4]["repr"] == "'later'"
    assert [found["value"] for found in outcomes[5:]] == list(range(50))
