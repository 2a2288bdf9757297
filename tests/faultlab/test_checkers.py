"""Each checker of the laboratory passes a good history and fails a bad one: a check that can't fail proves nothing."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scorecard import baseline, checkers
from scorecard.history import Event, History, events_of
from scorecard.tracing import traced

if TYPE_CHECKING:
    from collections.abc import Callable

LAB = Path(checkers.__file__).parent


class Story:
    """Writes a history by hand; each word happens a second after the one before."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events: list[Event] = []

    def at(self, t: float) -> Story:
        self.now = t
        return self

    def tell(self, kind: str, id_: str = "", **facts: Any) -> Story:
        self.now += 1
        self.events.append(Event(t=self.now, wall=1000 + self.now, kind=kind, id=id_, **facts))
        return self

    def sent(self, id_: str = "a", outcome: str = "ok", **facts: Any) -> Story:
        return self.tell("invoke", id_, pid=1, **facts).tell(outcome, id_, pid=1, seconds=0.01)

    def ran(self, id_: str = "a", value: Any = 7, pid: int = 10, **facts: Any) -> Story:
        start = self.tell("start", id_, pid=pid, proc="w1", **facts)
        return start.tell("end", id_, pid=pid, proc="w1", value=value, **facts)

    def read(self, id_: str = "a", state: str = "SUCCESS", value: Any = 7) -> Story:
        return self.tell("result", id_, state=state, value=value)

    def measured(self, state: str, proc: str = "w1", **value: float) -> Story:
        return self.tell("sample", state=state, proc=proc, value=value)

    @property
    def history(self) -> History:
        return History(reversed(self.events))


def good() -> Story:
    return Story().sent().ran().read()


Check = checkers.Check

CASES: list[tuple[str, Callable[[History], Check], Story, Story]] = [
    ("lost", checkers.no_loss, good(), Story().sent().read(state="PENDING", value=None)),
    ("lost while running", checkers.no_loss, good(), Story().sent().tell("start", "a").read(state="STARTED")),
    ("never read", checkers.no_loss, good(), Story().sent().ran()),
    ("unstored end", lambda h: checkers.no_loss(h, stored=False), Story().sent().ran(), Story().sent()),
    ("buried", lambda h: checkers.no_loss(h, buried={"a"}), Story().sent(), Story().sent().sent("b")),
    ("unknown may be lost", checkers.no_loss, Story().sent(outcome="info"), Story().sent(outcome="info").sent()),
    ("refused and ran", checkers.no_ghosts, Story().sent(outcome="fail"), Story().sent(outcome="fail").ran()),
    ("refused, sent again", checkers.no_ghosts, Story().sent(outcome="fail").sent().ran(), Story().ran()),
    (
        "refused, another call is open", checkers.no_ghosts,
        Story().sent(outcome="fail").tell("invoke", "a").ran(), Story().sent(outcome="fail").sent(outcome="fail").ran(),
    ),
    ("settled early", checkers.settled_after_end, Story().sent().tell("depth", count=1), Story().sent().tell("depth")),
    (
        "settled without a store", checkers.settled_after_end,
        Story().sent().ran().tell("fault", what="store").tell("depth"),
        Story().sent().tell("fault", what="store").ran().tell("depth").tell("heal", what="store"),
    ),
    ("wrong result", checkers.results_are_right, good(), Story().sent().ran().read(value=8)),
    ("no result", checkers.results_are_right, good(), Story().sent().ran().read(state="PENDING", value=None)),
    ("ran twice", checkers.duplicates_are_explained, good(), Story().sent().ran().ran(pid=11)),
    (
        "ran twice, another was killed", checkers.duplicates_are_explained,
        Story().sent().tell("start", "a", pid=10).tell("fault", pids=[10]).ran(pid=11),
        Story().sent().tell("start", "a", pid=10).tell("fault", pids=[12]).ran(pid=11),
    ),
    (
        "ran twice, the fault was later", checkers.duplicates_are_explained,
        Story().sent().ran().tell("fault", pids=[10]).ran(pid=11),
        Story().sent().ran().ran(pid=11).tell("fault", pids=[10]),
    ),
    (
        "ended long before the fault", lambda h: checkers.duplicates_are_explained(h, grace=1.5),
        Story().sent().ran().tell("fault", what="cut").ran(),
        Story().sent().ran().at(60).tell("fault", what="cut").ran(),
    ),
    (
        "more than the faults cover", lambda h: checkers.duplicates_are_explained(h, at_most=1),
        Story().sent().ran().tell("fault", what="cut").ran(),
        Story().sent().ran().tell("fault", what="cut").ran().tell("fault", what="cut").ran(),
    ),
    (
        "a retry is no repetition", checkers.duplicates_are_explained,
        Story().sent().tell("start", "a", pid=10).tell("retry", "a", pid=10).ran(attempt=1),
        Story().sent().tell("start", "a", pid=10).tell("retry", "a", pid=10).ran(attempt=1).ran(attempt=1),
    ),
    (
        "two at a time", lambda h: checkers.no_overlap(h, lease=30),
        Story().sent().ran().ran(pid=11),
        Story().sent().tell("start", "a", pid=10).ran(pid=11).tell("end", "a", pid=10),
    ),
    (
        "two at a time, the first was silent", lambda h: checkers.no_overlap(h, lease=30),
        Story().sent().tell("start", "a", pid=10).tell("fault", what="stop", pids=[10]).at(40).ran(pid=11)
        .tell("heal", what="stop").tell("end", "a", pid=10),
        Story().sent().tell("start", "a", pid=10).tell("fault", what="stop", pids=[10]).at(10).ran(pid=11)
        .tell("heal", what="stop").tell("end", "a", pid=10),
    ),
    (
        "ran on after its process was killed", lambda h: checkers.no_overlap(h, lease=30),
        Story().sent().tell("start", "a", pid=10).tell("fault", pids=[10]).ran(pid=11),
        Story().sent().tell("start", "a", pid=10).ran(pid=11).tell("fault", pids=[10]),
    ),
    ("another end", checkers.one_end, good().read(), good().read(value=8)),
    ("no end any more", checkers.one_end, good().read(), good().read(state="STARTED")),
    (
        "early", lambda h: checkers.started_on_time(h, late=2),
        Story().sent(eta=1002.5).ran(), Story().sent(eta=1009.0).ran(),
    ),
    (
        "late", lambda h: checkers.started_on_time(h, late=2),
        Story().sent(eta=1010.0).at(10.5).ran(), Story().sent(eta=1010.0).at(13).ran(),
    ),
    (
        "due during a fault", lambda h: checkers.started_on_time(h, late=2),
        Story().sent(eta=1010.0).tell("fault", what="stop").at(30).tell("heal", what="stop").ran(),
        Story().sent(eta=1010.0).tell("fault", what="stop").at(30).tell("heal", what="stop").at(40).ran(),
    ),
    (
        "too many at once", lambda h: checkers.never_more_at_once(h, 1),
        Story().ran("a").ran("b"), Story().tell("start", "a", pid=1).ran("b", pid=2).tell("end", "a", pid=1),
    ),
    (
        "not counted", lambda h: checkers.never_more_at_once(h, 1, but={"b"}),
        Story().tell("start", "a", pid=1).ran("b", pid=2).tell("end", "a", pid=1),
        Story().tell("start", "a", pid=1).ran("c", pid=2).tell("end", "a", pid=1),
    ),
    (
        "killed in between", lambda h: checkers.never_more_at_once(h, 1),
        Story().tell("start", "a", pid=1).tell("fault", pids=[1]).ran("b", pid=2),
        Story().tell("start", "a", pid=1).tell("start", "b", pid=2).tell("fault", pids=[1, 2]),
    ),
    (
        "too fast", lambda h: checkers.rate_is_kept(h, 0.5, 1, of={"a", "b", "c"}),
        Story().ran("a").ran("b").ran("c"), Story().tell("start", "a").tell("start", "b").tell("start", "c"),
    ),
    ("expired", checkers.none_after_expiry, Story().sent(expires=1004.0).ran(), Story().sent(expires=1002.5).ran()),
    (
        "never resumes", lambda h: checkers.work_resumes(h, within=5),
        Story().tell("fault", what="stop").tell("heal", what="stop").sent().ran(),
        Story().sent().tell("fault", what="stop").tell("heal", what="stop"),
    ),
    (
        "resumes late", lambda h: checkers.work_resumes(h, within=5),
        Story().sent().tell("fault", what="stop").tell("heal", what="stop").ran(),
        Story().sent().tell("fault", what="stop").tell("heal", what="stop").at(20).ran(),
    ),
    ("slow call", checkers.calls_end_in_time, good(), Story().tell("invoke", "a").tell("ok", "a", limit=3, seconds=5)),
    ("odd error", checkers.calls_end_in_time, good(), Story().tell("invoke", "a").tell("info", "a", typed=False)),
    ("open call", checkers.calls_end_in_time, good(), good().tell("invoke", "b", pid=1)),
    (
        "open call of the dead", checkers.calls_end_in_time,
        Story().tell("invoke", "b", pid=1).tell("fault", pids=[1]), Story().tell("invoke", "b").tell("fault", pids=[1]),
    ),
    (
        "victim", lambda h: checkers.victims_restart(h, within=5),
        Story().sent().tell("start", "a", pid=10).tell("fault", pids=[10]).ran(pid=11),
        Story().sent().tell("start", "a", pid=10).tell("fault", pids=[10]).at(20).ran(pid=11),
    ),
    (
        "victim for ever", lambda h: checkers.victims_restart(h, within=5),
        Story().sent().tell("start", "a", pid=10), Story().sent().tell("start", "a", pid=10).tell("fault", pids=[10]),
    ),
    (
        "revoked", checkers.revoked_do_not_start,
        Story().sent().tell("start", "a", pid=1).tell("revoked", "a"), Story().sent().tell("revoked", "a").ran(),
    ),
    (
        "revoked, and nobody had heard", lambda h: checkers.revoked_do_not_start(h, grace=5),
        Story().sent().tell("revoked", "a").ran(), Story().sent().tell("revoked", "a").at(20).ran(),
    ),
    (
        "revoked, told twice", checkers.revoked_do_not_start,
        Story().sent().ran().tell("revoked", "a").tell("revoked", "a"),
        Story().sent().tell("revoked", "a").ran().tell("revoked", "a"),
    ),
    (
        "out of order", checkers.order_is_kept,
        Story().sent(key="k").sent("b", key="k").ran().ran("b"),
        Story().sent(key="k").sent("b", key="k").ran("b").ran(),
    ),
    (
        "out of order, other keys", checkers.order_is_kept,
        Story().sent(key="k").sent("b", key="l").ran("b").ran().sent("c", key="k").ran("c").ran(pid=11),
        Story().sent(key="k").sent("b", key="l").sent("c", key="k").ran("b").ran("c").ran(),
    ),
    (
        "left behind", baseline.back_to_baseline,
        Story().measured("before", fds=5).measured("after", fds=9).measured("after", fds=5),
        Story().measured("before", fds=5).measured("after", fds=6),
    ),
    (
        "left behind, some allowed", lambda h: baseline.back_to_baseline(h, {"fds": 2}),
        Story().measured("before", fds=5).measured("after", fds=7),
        Story().measured("before", fds=5).measured("after", fds=7, queues=1),
    ),
    (
        "a process more", baseline.back_to_baseline,
        Story().measured("before", fds=5).measured("after", fds=5),
        Story().measured("before", fds=5).measured("after", fds=5).measured("after", "w1/0", fds=5),
    ),
    (
        "a process less", baseline.back_to_baseline,
        Story().measured("before", fds=5).measured("after", fds=1),
        Story().measured("before", fds=5).measured("before", "w1/0", fds=5).measured("after", fds=5),
    ),
    ("no measures", baseline.back_to_baseline, Story().measured("before", fds=5).measured("after", fds=5), good()),
    (
        "growth", lambda h: baseline.does_not_grow(h, "rss_kib", per_hour=1000),
        Story().measured("before", rss_kib=1).measured("steady", rss_kib=100).measured("steady", rss_kib=100),
        Story().measured("steady", rss_kib=100).measured("steady", rss_kib=101).measured("steady", rss_kib=102),
    ),
    (
        "a peak is no growth", lambda h: baseline.does_not_grow(h, "rss_kib", per_hour=1000),
        Story().measured("steady", rss_kib=100).measured("steady", rss_kib=900).measured("steady", rss_kib=100),
        good(),
    ),
    (
        "not synced", baseline.synced_before_ok,
        Story().tell("invoke", "a").tell("write", "a", what="f").tell("sync", what="f").tell("ok", "a"),
        Story().tell("invoke", "a").tell("write", "a", what="f").tell("ok", "a").tell("sync", what="f"),
    ),
    (
        "synced before it was written", baseline.synced_before_ok,
        Story().tell("write", "a", what="f").tell("write", "b", what="f").tell("sync", what="f")
        .tell("ok", "a").tell("ok", "b"),
        Story().tell("sync", what="f").tell("write", "a", what="f").tell("ok", "a"),
    ),
    (
        "another file was synced", baseline.synced_before_ok,
        Story().tell("write", "a", what="g").tell("write", "a", what="f").tell("sync", what="f").tell("ok", "a"),
        Story().tell("write", "a", what="g").tell("sync", what="f").tell("ok", "a"),
    ),
    (
        "the sync has not ended", baseline.synced_before_ok,
        Story().tell("write", "a", what="f").tell("sync", what="f", seconds=0.5).tell("ok", "a"),
        Story().tell("write", "a", what="f").tell("sync", what="f", seconds=5.0).tell("ok", "a"),
    ),
    ("values", lambda h: checkers.values_are(h, {"a": 7}), good(), Story().sent().ran().read(value=8)),
]  # fmt: skip


@pytest.mark.parametrize(("check", "fine", "broken"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_checker_passes_what_is_good_and_fails_what_is_not(
    check: Callable[[History], Check], fine: Story, broken: Story
) -> None:
    assert check(fine.history).found == []
    assert check(broken.history).found != []
    assert "BROKEN" in str(check(broken.history))


def test_throughput_is_compared_before_and_after() -> None:
    def drained(after: int) -> History:
        story = Story()
        for number in range(20):
            story.at(number * 0.1).ran(f"b{number}")
        story.at(3).tell("fault", what="stop").tell("heal", what="stop")
        for number in range(after):
            story.at(5 + number * 0.1).ran(f"a{number}")
        return story.history

    assert checkers.throughput_recovers(drained(20), within=2).ok
    assert not checkers.throughput_recovers(drained(3), within=2).ok


def test_every_checker_has_a_case() -> None:
    used = Path(__file__).read_text()
    for module in ("checkers", "baseline"):
        tree = ast.parse((LAB / f"{module}.py").read_text())
        public = {
            node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
        }  # fmt: skip
        assert {name for name in public if f"{module}.{name}" not in used} <= {"holds", "lags", "slopes"}


def test_what_strace_saw_becomes_events(tmp_path: Path) -> None:
    one = "0265f905-6c6c-41ab-89c0-0c7800674210"
    trace = tmp_path / "trace.1"
    trace.write_text(
        f'100.500000 pwrite64(7</x/lab.sqlite3-wal>, "\\0\\1{one}\\"", 90, 32) = 90 <0.000100>\n'
        f'100.600000 write(3</x/p-1.jsonl>, "{one}", 36) = 36 <0.000010>\n'
        "100.700000 fdatasync(7</x/lab.sqlite3-wal>) = 0 <0.002000>\n"
        "100.800000 fdatasync(7</x/lab.sqlite3-wal>) = -1 EIO (Input/output error) <0.002000>\n"
        "100.900000 +++ exited with 0 +++\n"
    )
    found = [(event.kind, event.id, event.wall, event.seconds) for event in traced([trace], "lab.sqlite3")]
    assert found == [("write", one, 100.5, 0.0001), ("sync", "", 100.7, 0.002)]


@pytest.mark.parametrize("name", ["baseline.py", "checkers.py", "history.py"])
def test_the_judges_know_nothing_of_the_product(name: str) -> None:
    tree = ast.parse((LAB / name).read_text())
    modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not {module for module in modules if module.startswith(("celeriac", "celery", "kombu"))}


def test_a_line_that_a_kill_has_cut_short_is_left_out() -> None:
    whole = b'{"t": 1.0, "kind": "ok", "id": "a"}\n'
    assert [event.id for event in events_of(whole + whole[:20])] == ["a"]
