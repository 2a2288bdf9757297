"""Callbacks, chains, groups and chords that cross from one party to the other.

``here`` is read by the first party, ``there`` by the second; each is once Celery and once celeriac.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fleet import CELERY, OURS, SOON

if TYPE_CHECKING:
    from fleet import Place

pytestmark = pytest.mark.interop
Direction = tuple[str, str]
#: what our workers do not do yet with workflows that Celery has sent
NO_CHORDS = "celeriac's workers do not count the parts of a chord yet"
NO_STEPS = "celeriac's workers do not run a group or chord as a step of a chain yet"
NO_FAIL_CHAIN = "celeriac's workers do not mark the rest of a broken chain as failed yet"


def step(task: str, queue: str, *args: Any, immutable: bool = False, **options: Any) -> dict[str, Any]:
    return {"task": f"party.{task}", "args": list(args), "immutable": immutable, "options": {"queue": queue, **options}}


def test_a_callback_runs_at_the_other_party(apart: Place, direction: Direction) -> None:
    for producer in dict.fromkeys(direction):
        back = {**step("request", "there", "own", task_id=f"back-{producer}-{id(apart)}")}
        (task_id,) = apart.send(producer, step("add", "here", 2, 3, link=[back]))
        assert apart.get(producer, [task_id])[0]["repr"] == "5"
        (found,) = apart.get(producer, [back["options"]["task_id"]])
        seen = found["value"]
        assert (seen["parent_id"], seen["root_id"], seen["side"]) == (task_id, task_id, direction[1])
        assert seen["delivery"]["routing_key"] == "there"


def test_several_callbacks_each_get_the_result(apart: Place, direction: Direction) -> None:
    backs = [step("mark", "there", n) for n in ("one", "two")] + [step("mark", "there", "alone", immutable=True)]
    (task_id,) = apart.send(direction[0], step("add", "here", 4, 4, link=backs))
    apart.get(direction[0], [task_id])
    apart.until(lambda: {"one", "two"} <= {note[3] for note in apart.notes("mark") if note[2] == 8})
    apart.until(lambda: any(note[2] == "alone" for note in apart.notes("mark")))


@pytest.mark.parametrize("kind", ["value", "odd"])
def test_an_error_callback_runs_at_the_other_party(apart: Place, direction: Direction, kind: str) -> None:
    for producer in dict.fromkeys(direction):
        (task_id,) = apart.send(producer, step("boom", "here", kind, link_error=[step("errback", "there")]))
        apart.until(lambda task_id=task_id: len(apart.notes("errback", task_id)) == 1)
        ((_, _, side, *_),) = apart.notes("errback", task_id)
        assert side == direction[1]
        assert apart.get(producer, [task_id])[0]["state"] == "FAILURE"


@pytest.mark.parametrize("protocol", [1, 2])
def test_a_chain_goes_to_and_fro(apart: Place, direction: Direction, protocol: int) -> None:
    chain = [step("add", "here", 1, 1), step("add", "there", 10), step("add", "here", 100), step("request", "there")]
    sent = apart.ask(CELERY, "canvas", {"task_protocol": protocol}, kind="chain", parts=chain)
    outcomes = apart.get(direction[0], sent["parts"])
    assert [found["repr"] for found in outcomes[:3]] == ["2", "12", "112"]
    seen = outcomes[3]["value"]
    assert (seen["id"], seen["side"]) == (sent["id"], direction[1])
    if protocol == 2:
        assert (seen["parent_id"], seen["root_id"]) == (sent["parts"][2], sent["parts"][0])


def test_children_are_recorded(apart: Place, direction: Direction) -> None:
    chain = [step("add", "here", 1, 1), step("add", "there", 10)]
    sent = apart.ask(CELERY, "canvas", kind="chain", parts=chain)
    apart.get(CELERY, sent["parts"])
    meta = apart.ask(direction[1], "meta", id=sent["parts"][0])
    assert meta["children"] == [[[sent["parts"][1], None], None]]


@pytest.mark.parametrize("at", ["here", "there"])
def test_a_broken_chain_stops_and_says_so(
    apart: Place, direction: Direction, at: str, request: pytest.FixtureRequest
) -> None:
    patience = SOON
    if direction[at == "there"] == OURS:
        request.applymarker(pytest.mark.xfail(reason=NO_FAIL_CHAIN, strict=True))
        patience = 0.3
    chain = [step("boom", at, "value"), step("mark", "there", "never"), step("mark", "here", "never")]
    sent = apart.ask(CELERY, "canvas", kind="chain", parts=chain)
    assert apart.get(CELERY, sent["parts"][:1])[0]["error"] == "builtins.ValueError"
    for part in sent["parts"][1:]:
        assert apart.ask(CELERY, "until", id=part, state="FAILURE", within=patience)["state"] == "FAILURE"
    assert apart.notes("mark", *sent["parts"]) == []


def test_a_group_is_shared(apart: Place, direction: Direction) -> None:
    parts = [step("request", ("here", "there")[n % 2], n) for n in range(6)]
    sent = apart.ask(CELERY, "canvas", kind="group", parts=parts)
    for reader in dict.fromkeys(direction):
        outcomes = apart.get(reader, sent["parts"])
        assert [found["value"]["group"] for found in outcomes] == [sent["id"]] * 6
        assert [found["value"]["group_index"] for found in outcomes] == list(range(6))
        assert [found["value"]["side"] for found in outcomes] == [direction[n % 2] for n in range(6)]


@pytest.mark.parametrize(("header", "body"), [("here", "here"), ("here", "there"), ("both", "there")])
def test_a_chord(apart: Place, direction: Direction, header: str, body: str, request: pytest.FixtureRequest) -> None:
    queues = ["here", "there", "here", "there"] if header == "both" else [header] * 4
    patience = SOON
    if OURS in {direction[queue == "there"] for queue in queues}:
        request.applymarker(pytest.mark.xfail(reason=NO_CHORDS, strict=True))
        patience = 0.8
    parts = [step("add", queue, n, n) for n, queue in enumerate(queues)]
    sent = apart.ask(CELERY, "canvas", kind="chord", parts=parts, body=step("echo", body))
    assert [found["repr"] for found in apart.get(CELERY, sent["parts"])] == ["0", "2", "4", "6"]
    found = apart.ask(CELERY, "until", id=sent["id"], state="SUCCESS", within=patience)
    assert found == {"state": "SUCCESS", "info": [[[0, 2, 4, 6]], {}]}


def test_a_part_of_a_chord_is_warned_of(apart: Place, direction: Direction) -> None:
    worker = apart.workers[0]
    if worker.side == OURS:
        sent = apart.ask(CELERY, "canvas", kind="chord", parts=[step("add", "here", 1)] * 2, body=step("echo", "there"))
        worker.wait_for(f"party.add[{sent['parts'][0]}] is part of a chord")


def test_a_group_as_a_step_of_a_chain(apart: Place, direction: Direction, request: pytest.FixtureRequest) -> None:
    if direction[0] == OURS:
        request.applymarker(pytest.mark.xfail(reason=NO_STEPS, strict=True))
    chain = [step("add", "here", 1, 1), {"group": [step("mark", "there"), step("mark", "there")]}]
    sent = apart.ask(CELERY, "canvas", kind="chain", parts=chain)
    patience = 1.0 if direction[0] == OURS else SOON
    apart.until(lambda: len(apart.notes("mark", *sent["group"])) == 2, timeout=patience)
