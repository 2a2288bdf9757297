"""Results: every serializer, compression, extended records, and ``rpc://`` in both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fleet import OURS, is_there

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleet import Place

pytestmark = pytest.mark.interop
Direction = tuple[str, str]


def call(task: str, *args: Any, kwargs: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return {"task": f"party.{task}", "args": list(args), "kwargs": kwargs or {}, "options": options}


@pytest.mark.parametrize(
    ("serializer", "sample"), [("pickle", "python"), ("msgpack", "binary"), ("yaml", "yaml"), ("json", "extended")]
)
def test_serializers_of_results(
    place: Callable[..., Place], direction: Direction, serializer: str, sample: str
) -> None:
    producer, consumer = direction
    here = place("redis", *direction, result_serializer=serializer)
    here.worker(consumer)
    value, failure = here.run(producer, call("sample", sample), call("boom", "custom"))
    expected = here.ask(producer, "samples")[sample]
    assert value["state"] == "SUCCESS"
    assert sorted(value["repr"]) == sorted(expected)  # YAML sorts keys
    assert (failure["error"], failure["error_args"]) == ("party_app.Custom", "(7, 'custom')")
    assert "party_app.py" in failure["traceback"]


def test_extended_records(place: Callable[..., Place], direction: Direction) -> None:
    producer, consumer = direction
    here = place("redis", *direction, result_extended=True)
    here.worker(consumer)
    (task_id,) = here.send(producer, call("echo", 1, kwargs={"k": "v"}))
    here.get(producer, [task_id])
    meta = here.ask(producer, "meta", id=task_id)
    assert (meta["status"], meta["children"]) == ("SUCCESS", [])
    assert (meta["name"], meta["queue"], meta["retries"]) == ("party.echo", "celery", 0)
    assert (meta["args"], meta["kwargs"]) == ([1], {"k": "v"})
    assert meta["worker"].startswith(consumer)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compressed_results(place: Callable[..., Place], direction: Direction, compression: str) -> None:
    producer, consumer = direction
    here = place("redis", *direction, result_compression=compression)
    here.worker(consumer)
    (found,) = here.run(producer, call("sample", "long"))
    assert found["repr"] == here.ask(producer, "samples")["long"]


def test_a_key_prefix(place: Callable[..., Place], direction: Direction) -> None:
    producer, consumer = direction
    options = {"global_keyprefix": "app"}
    here = place(
        "redis",
        *direction,
        broker_transport_options={"global_keyprefix": "{b}:"},
        result_backend_transport_options=options,
    )
    here.worker(consumer)
    ids = here.send(producer, call("add", 1, 2), call("mark", "later", countdown=1))
    assert [found["state"] for found in here.get(producer, ids)] == ["SUCCESS"] * 2
    assert [found["state"] for found in here.get(consumer, ids)] == ["SUCCESS"] * 2


def test_results_as_replies(place: Callable[..., Place], broker: str, direction: Direction) -> None:
    """``rpc://``: only the process that sent the task can read its result."""
    if OURS in direction and not is_there("celeriac.results.rpc"):
        pytest.skip("celeriac.results.rpc does not exist yet: replies are NOT tested between the parties")
    producer, consumer = direction
    here = place(broker, *direction, result_backend="rpc://")
    here.worker(consumer)
    outcomes = here.run(
        producer, call("add", 2, 3), call("boom", "custom"), {"task": "party.echo", "sample": "extended"},
        call("flaky", 2), call("mark", "later", countdown=1), *[call("add", n) for n in range(50)],
    )  # fmt: skip
    assert outcomes[0]["repr"] == "5"
    assert (outcomes[1]["state"], outcomes[1]["error"]) == ("FAILURE", "party_app.Custom")
    assert outcomes[2]["repr"] == f"[[{here.ask(producer, 'samples')['extended']}], {{}}]"
    assert outcomes[3]["repr"] == "2"
    assert outcomes[4]["repr"] == "'later'"
    assert [found["value"] for found in outcomes[5:]] == list(range(50))
