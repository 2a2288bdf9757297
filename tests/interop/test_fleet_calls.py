"""What one party sends, the other one runs; what it answers, the first one reads: on Redis and on RabbitMQ."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from fleet import OURS

if TYPE_CHECKING:
    from fleet import Place

pytestmark = pytest.mark.interop
Direction = tuple[str, str]


def call(task: str, *args: Any, kwargs: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return {"task": f"party.{task}", "args": list(args), "kwargs": kwargs or {}, "options": options}


def test_values_go_and_come(fleet: Place, direction: Direction) -> None:
    producer, _ = direction
    samples = fleet.ask(producer, "samples")
    outcomes = fleet.run(
        producer, call("add", 2, 3), call("add", "a", kwargs={"y": "b"}),
        {"task": "party.echo", "sample": "json", "kwargs": {"k": [None, {"ü": 1}]}},
        {"task": "party.echo", "sample": "extended"}, {"task": "party.echo", "sample": "long"},
        call("sample", "extended"),
    )  # fmt: skip
    assert [found["state"] for found in outcomes] == ["SUCCESS"] * 6
    assert [found["repr"] for found in outcomes] == [
        "5", "'ab'", f"[[{samples['json']}], {{'k': [None, {{'ü': 1}}]}}]", f"[[{samples['extended']}], {{}}]",
        f"[[{samples['long']}], {{}}]", samples["extended"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("serializer", "sample"),
    [("json", "extended"), ("pickle", "python"), ("pickle", "extended"), ("msgpack", "binary"), ("yaml", "yaml")],
)
def test_serializers(fleet: Place, direction: Direction, serializer: str, sample: str) -> None:
    order = {"task": "party.check", "sample": sample, "args": [sample], "options": {"serializer": serializer}}
    (found,) = fleet.run(direction[0], order)
    assert (found["state"], found["repr"]) == ("SUCCESS", "True")


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "lzma", "brotli", "zstd"])
def test_compressions(fleet: Place, direction: Direction, compression: str) -> None:
    order = {"task": "party.check", "sample": "long", "args": ["long"], "options": {"compression": compression}}
    (found,) = fleet.run(direction[0], order)
    assert (found["state"], found["repr"]) == ("SUCCESS", "True")


@pytest.mark.parametrize("protocol", [1, 2])
def test_what_a_call_carries(fleet: Place, direction: Direction, protocol: int) -> None:
    producer, consumer = direction
    options = {
        "task_id": f"mine-{fleet.database}-{protocol}-{producer}", "headers": {"my_header": "yes"}, "time_limit": 30,
        "soft_time_limit": 20, "expires": 600, "priority": 3, "reply_to": "somebody",
    }  # fmt: skip
    settings = {"task_protocol": protocol}
    order = call("request", 1, kwargs={"two": 2}, **options)
    (found,) = fleet.run(producer, order, **settings)
    seen = found["value"]
    assert found["id"] == options["task_id"]
    assert (seen["id"], seen["correlation_id"], seen["retries"]) == (options["task_id"],) * 2 + (0,)
    assert seen["timelimit"] == [30, 20]
    assert (seen["side"], seen["reply_to"], seen["eta"]) == (consumer, "somebody", None)
    assert seen["expires"] is not None
    assert seen["delivery"]["routing_key"] == "celery"
    assert seen["delivery"]["priority"] == 3
    assert seen["my_header"] == "yes"
    if protocol == 2:
        assert (seen["root_id"], seen["parent_id"]) == (options["task_id"], None)
        assert seen["ignore_result"] is False
        assert (seen["argsrepr"], seen["kwargsrepr"]) == ("[1]", "{'two': 2}")
        assert seen["origin"]


def test_shadow(fleet: Place, direction: Direction) -> None:
    (found,) = fleet.run(direction[0], call("request", shadow="another.name"))
    assert found["value"]["shadow"] == "another.name"


def test_time_is_kept(fleet: Place, direction: Direction) -> None:
    """Delays, expiry, and retries of a task that was delayed: on RabbitMQ it comes by another address than it had."""
    producer, _ = direction
    calls = [
        call("mark", countdown=1.3), call("mark", eta_in=1.3), call("mark", countdown=-100), call("mark", expires=60),
        call("flaky", 1, kwargs={"countdown": 0.2}, countdown=1.2), call("mark", expires=-1),
        call("mark", countdown=1.3, expires=0.5),
    ]  # fmt: skip
    began = time.time()
    sent = [fleet.send(producer, *calls, task_protocol=protocol) for protocol in (1, 2)]
    for ids in sent:
        outcomes = fleet.get(producer, [*ids[:5], *ids[6:]])
        (expired,) = fleet.get(producer, ids[5:6], 5.0, may_lack=fleet.broker == "rabbitmq")
        if "timeout" not in expired:
            # else it had no time to live: the broker itself drops it when no consumer takes it that instant
            outcomes.append(expired)
        late = len(outcomes) - 5
        assert [found["state"] for found in outcomes] == ["SUCCESS"] * 5 + ["REVOKED"] * late
        assert [found["error"] for found in outcomes[5:]] == ["celery.exceptions.TaskRevokedError"] * late
        for task_id in ids[:2]:
            ((*_, at),) = fleet.notes("mark", task_id)
            assert at >= began + 1.3
        assert [note[2] for note in fleet.notes("try", ids[4])] == [0, 1]
        assert {note[1] for note in fleet.notes("mark", *ids)} == set(ids[:4])


def test_ignored_results(fleet: Place, direction: Direction) -> None:
    producer, _ = direction
    ids = fleet.send(
        producer, call("ignored"), call("mark", ignore_result=True), {"task": "party.ignored", "by_name": True}
    )
    fleet.until(lambda: len(fleet.notes("mark", *ids)) == 3)
    (after,) = fleet.run(producer, call("add", 1, 1))
    assert after["state"] == "SUCCESS"
    assert [fleet.ask(producer, "meta", id=task_id)["status"] for task_id in ids] == ["PENDING"] * 3


@pytest.mark.parametrize(
    ("kind", "name", "args"),
    [
        ("value", "builtins.ValueError", "('boom', 9)"), ("key", "builtins.KeyError", "('k',)"),
        ("custom", "party_app.Custom", "(7, 'custom')"), ("os", "builtins.FileNotFoundError", "(2, 'No such file')"),
    ],
)  # fmt: skip
def test_exceptions_are_rebuilt(fleet: Place, direction: Direction, kind: str, name: str, args: str) -> None:
    (found,) = fleet.run(direction[0], call("boom", kind))
    assert (found["state"], found["error"], found["error_args"]) == ("FAILURE", name, args)
    assert "Traceback (most recent call last)" in found["traceback"]
    assert "party_app.py" in found["traceback"]


@pytest.mark.parametrize("kind", ["unicode", "odd", "stubborn"])
def test_exceptions_that_cannot_be_rebuilt_are_failures_all_the_same(
    fleet: Place, direction: Direction, kind: str
) -> None:
    (found,) = fleet.run(direction[0], call("boom", kind))
    assert (found["state"], "error" in found) == ("FAILURE", True)


def test_an_unknown_task_is_told(fleet: Place, direction: Direction) -> None:
    producer, consumer = direction
    name = "party.theirs_only" if consumer == OURS else "party.ours_only"
    if producer == consumer:
        name = "party.nobodys"
    (found,) = fleet.run(producer, {"task": name, "by_name": True})
    assert (found["state"], found.get("error", "").rpartition(".")[2]) == ("FAILURE", "NotRegistered")
    (after,) = fleet.run(producer, call("add", 1, 1))
    assert after["repr"] == "2"


def test_started_and_states_of_ones_own(fleet: Place, direction: Direction) -> None:
    producer, _ = direction
    flag = fleet.folder / f"go-{time.time_ns()}"
    tracked, own = fleet.send(
        producer, call("tracked", str(flag)), call("wait", str(flag), kwargs={"state": "PROGRESS"})
    )
    started = fleet.ask(producer, "until", id=tracked, state="STARTED", within=60.0)
    progress = fleet.ask(producer, "until", id=own, state="PROGRESS", within=60.0)
    flag.touch()
    assert started["state"] == "STARTED"
    assert set(started["info"]) == {"pid", "hostname"}
    assert started["info"]["hostname"].endswith("@party")
    assert progress == {"state": "PROGRESS", "info": {"done": 1, "of": 2}}
    assert [found["repr"] for found in fleet.get(producer, [tracked, own])] == ["'seen'", "'seen'"]


def test_forgotten_results_are_gone_for_both(fleet: Place, direction: Direction) -> None:
    producer, consumer = direction
    (found,) = fleet.run(producer, call("add", 1, 2))
    assert fleet.get(consumer, [found["id"]])[0]["repr"] == "3"
    assert fleet.ask(producer, "forget", id=found["id"]) == "PENDING"
    assert fleet.ask(consumer, "meta", id=found["id"])["status"] == "PENDING"


def test_time_limits_are_carried(fleet: Place, direction: Direction) -> None:
    soft, hard = fleet.run(direction[0], call("soft", soft_time_limit=0.5), call("soft", time_limit=1.0))
    assert soft["repr"] == "'told to end'"
    assert (hard["state"], hard["error"].rpartition(".")[2]) == ("FAILURE", "TimeLimitExceeded")


def test_reject_and_ignore(fleet: Place, direction: Direction) -> None:
    producer, _ = direction
    rejected, ignored, twice = fleet.send(producer, call("reject"), call("ignore"), call("reject_once"))
    assert fleet.get(producer, [twice])[0]["repr"] == "'second time'"
    fleet.until(lambda: len(fleet.notes("mark", rejected, ignored)) == 2)
    assert fleet.get(producer, [rejected])[0]["state"] == "FAILURE"
    assert fleet.ask(producer, "meta", id=ignored)["status"] == "PENDING"
