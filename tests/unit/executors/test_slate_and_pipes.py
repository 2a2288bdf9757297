"""Shared memory and frames: what survives a kill, and streams cut anywhere."""

from __future__ import annotations

import os

import pytest

from celeriac.executors.base import Ignored, Lost
from celeriac.executors.children import pipes
from celeriac.executors.children.member import Member, describe_exit
from celeriac.executors.children.pace import Paces
from celeriac.executors.children.pipes import HEAD_BYTES, FrameBuffer, Kind
from celeriac.executors.children.slate import OUTBOX_BYTES, Slate
from celeriac.testing.conformance.executor import request_for


@pytest.fixture
def slate():
    slate = Slate.create(3)
    yield slate
    slate.close()


def other_side(slate: Slate) -> Slate:
    return Slate(os.dup(slate.fd), 3)


def test_the_other_side_sees_what_runs(slate: Slate) -> None:
    parent = other_side(slate)
    assert parent.running() == []
    slate.start(0, 7, 1.5)
    slate.start(2, 9, 2.5)
    assert parent.running() == [(7, 1.5), (9, 2.5)]
    slate.finish(0)
    assert parent.running() == [(9, 2.5)]
    parent.close()


def test_outcomes_that_were_not_sent_can_be_read(slate: Slate) -> None:
    parent = other_side(slate)
    assert parent.leftover() == (b"", 0)
    for number in (1, 2):
        assert slate.keep(pipes.encode_outcome(number, Ignored(f"id{number}", [], 0.0)))
    items, count = parent.leftover()
    assert count == 2
    assert pipes.decode_outcomes(pipes.batch_of(items, count)[HEAD_BYTES:]) == [
        (1, Ignored("id1", [], 0.0)), (2, Ignored("id2", [], 0.0)),
    ]  # fmt: skip
    slate.empty()
    assert parent.leftover() == (b"", 0)
    parent.close()


def test_the_outbox_refuses_what_does_not_fit(slate: Slate) -> None:
    assert not slate.keep(b"x" * OUTBOX_BYTES)
    assert slate.kept == 0
    assert slate.keep(b"x" * 100)


def test_what_is_sent_from_the_outbox_is_a_frame(slate: Slate) -> None:
    slate.keep(pipes.encode_outcome(5, Ignored("five", [], 0.0)))
    room, count = slate.outbox()
    pipes.write_batch_head(room, count)
    [(kind, payload)] = FrameBuffer().feed(memoryview(bytes(room)))
    assert kind == Kind.OUTCOMES
    assert pipes.decode_outcomes(payload) == [(5, Ignored("five", [], 0.0))]


@pytest.mark.parametrize("step", [1, 3, 7, 1000])
def test_frames_survive_any_cut(step: int) -> None:
    stream = b"".join(pipes.frame(Kind.RECALLED, list(range(count))) for count in (0, 1, 300)) + pipes.frame(
        Kind.LEAVING, "why" * 100
    )
    buffer = FrameBuffer()
    found = []
    for start in range(0, len(stream), step):
        for kind, payload in buffer.feed(memoryview(stream[start : start + step])):
            found.append((kind, bytes(payload)))
    assert [kind for kind, _ in found] == [Kind.RECALLED] * 3 + [Kind.LEAVING]
    assert pipes.decode_numbers(found[2][1]) == list(range(300))
    assert pipes.decode_text(found[3][1]) == "why" * 100


def test_orders_travel() -> None:
    assert pipes.read_order(pipes.recall_order()) == (0, None)
    for cause in ("limit", "revoked", "stopped"):
        assert pipes.read_order(pipes.interrupt_order(1 << 40, cause)) == (1 << 40, cause)  # type: ignore[arg-type]


def test_only_short_tasks_are_given_ahead() -> None:
    paces = Paces(64)
    assert paces.ahead("new") == paces.typical_ahead() == 0
    paces.learn("instant", 0.00001)
    paces.learn("nothing", 0.0)
    paces.learn("quick", 0.0002)
    paces.learn("middle", 0.005)
    paces.learn("slow", 1.0)
    assert [paces.ahead(name) for name in ("instant", "nothing", "quick", "middle", "slow")] == [64, 64, 25, 4, 0]
    assert paces.typical_ahead() == 0
    paces.learn("quick", 2.0)  # one bad surprise is enough
    assert paces.ahead("quick") == 0


def test_exit_statuses_are_told_in_words() -> None:
    assert describe_exit(0x0100) == "exit status 1"
    assert describe_exit(9) == "signal 9 (SIGKILL)"
    assert describe_exit(64) == "signal 64 (SIGRTMAX)"


def test_after_a_death_every_request_gets_its_own_verdict() -> None:
    member = Member.__new__(Member)  # its sockets are of no interest here
    member.slate = Slate.create(3)
    member.outstanding = {number: request_for("noop", id=f"r{number}") for number in range(1, 6)}
    member.condemned = {}
    member.slate.start(0, 1, 0.0)
    member.slate.start(1, 2, 0.0)
    lost, unstarted = member.verdicts("signal 9 (SIGKILL)")
    assert lost == [Lost(f"r{number}", True, "died", "signal 9 (SIGKILL)", alone=False) for number in (1, 2)]
    assert [request.id for request in unstarted] == ["r3", "r4", "r5"]
    member.condemned = {1: ("hard_limit", "too long")}
    lost, unstarted = member.verdicts("signal 9 (SIGKILL)")
    assert [(loss.id, loss.started, loss.cause) for loss in lost] == [
        ("r1", True, "hard_limit"),
        ("r2", True, "stopped"),
    ]
    assert [request.id for request in unstarted] == ["r3", "r4", "r5"]
    member.slate.close()
