"""Each option on acknowledging with real workers and brokers: what is settled, given back, buried and stored.

One worker per broker runs all of it. Every combination is in tests/unit/worker/test_acks.py.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from tests.system.conftest import House

    from celeriac.testing.servers import RabbitServer, RedisServer

pytestmark = pytest.mark.system

TASKS = """
from celeriac import signals
from celeriac.exceptions import Ignore, Reject

def heard(name):
    def receive(sender, **facts):
        # the request in task_retry, an id in task_failure
        note(name, facts["task_id"] if "task_id" in facts else facts["request"].id)
    return receive

for name in ("task_failure", "task_retry"):
    getattr(signals, name).connect(heard(name), weak=False)

class Noting(app.Task):
    def on_failure(self, exc, task_id, args, kwargs, einfo):
        note("on_failure", task_id)
    def on_retry(self, exc, task_id, args, kwargs, einfo):
        note("on_retry", task_id)

def end(self, how):
    note("start", self.request.id)
    again = (self.request.delivery or 0) > 1 or self.request.retries
    if how == "raise":
        raise ValueError("no")
    if how == "ignore":
        raise Ignore()
    if how == "reject":
        raise Reject("no", requeue=False)
    if how == "requeue" and not os.path.exists(self.request.id):
        open(self.request.id, "w").close()
        raise Reject("not here", requeue=True)
    if how == "retry" and not again:
        raise self.retry(countdown=0)
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "sleep":
        time.sleep(60)
    return "done"

def task(name, **options):
    app.task(bind=True, base=Noting, name=name, max_retries=1, default_retry_delay=0, **options)(
        lambda self, how: end(self, how)
    )

task("late")
task("early", acks_late=False)
task("strict", acks_on_failure_or_timeout=False)
task("lost.reject", reject_on_worker_lost=True)
task("lost.fail", reject_on_worker_lost=False)
task("lost.bury", reject_on_worker_lost=False, acks_on_failure=False)
task("lost.retry", retry_on_worker_lost=True)
task("lost.early_retry", retry_on_worker_lost=True, acks_late=False)
task("hard", time_limit=0.2)
task("hard.back", time_limit=0.2, acks_on_timeout=False)
task("soft", soft_time_limit=0.1)
"""


class Case(NamedTuple):
    task: str
    how: str
    state: str | None
    starts: int = 1
    dead: bool = False
    failures: int = 0  #: signals task_failure, and calls of on_failure
    retries: int = 0


CASES = [
    Case("late", "return", "SUCCESS"),
    Case("late", "raise", "FAILURE", failures=1),
    Case("late", "ignore", None),
    Case("late", "reject", "FAILURE", dead=True),
    Case("late", "requeue", "SUCCESS", starts=2),
    Case("late", "retry", "SUCCESS", starts=2, retries=1),
    Case("late", "die", "FAILURE", starts=3, dead=True, failures=1),
    Case("early", "return", "SUCCESS"),
    Case("early", "raise", "FAILURE", failures=1),
    Case("early", "reject", "FAILURE"),
    Case("early", "requeue", None),
    Case("early", "retry", "SUCCESS", starts=2, retries=1),
    Case("early", "die", "FAILURE", failures=1),
    Case("strict", "return", "SUCCESS"),
    Case("strict", "raise", "FAILURE", dead=True, failures=1),
    Case("lost.reject", "die", "FAILURE", starts=3, dead=True, failures=1),
    Case("lost.fail", "die", "FAILURE", failures=1),
    Case("lost.bury", "die", "FAILURE", dead=True, failures=1),
    Case("lost.retry", "die", "FAILURE", starts=2, failures=1, retries=1),
    Case("lost.early_retry", "die", "FAILURE", starts=2, failures=1, retries=1),
    Case("hard", "sleep", "FAILURE", failures=1),
    Case("hard.back", "sleep", "FAILURE", starts=3, dead=True, failures=3),
    Case("soft", "sleep", "FAILURE", failures=1),
]


def id_of(case: Case) -> str:
    return f"{case.task}-{case.how}"


@pytest.mark.parametrize("broker", ["sqlite", "redis", "rabbitmq"])
def test_every_option_says_what_becomes_of_a_message(house: House, broker: str, request: pytest.FixtureRequest) -> None:
    if broker == "redis":
        redis: RedisServer = request.getfixturevalue("redis_server")
        house.extra["HOUSE_BROKER"] = f"{redis.url()}?global_keyprefix=acks."
    elif broker == "rabbitmq":
        rabbit: RabbitServer = request.getfixturevalue("rabbit_server")
        house.extra["HOUSE_BROKER"] = rabbit.add_vhost("acks")
    house.extra["HOUSE_RESULTS"] = f"sqlite:///{house.file}"
    module = house.folder / "house.py"
    module.write_text(module.read_text() + TASKS)
    worker = house.worker("-c", "2")
    sent = [(case.task, case.how, id_of(case)) for case in CASES]
    house.python(f"for name, how, task_id in {sent!r}: app.send_task(name, (how,), task_id=task_id)")

    def starts() -> Counter[str]:
        return Counter(words[1] for words in house.notes("start") if words[1] in wanted)

    def noted(kind: str) -> Counter[str]:
        return Counter(words[1] for words in house.notes(kind))

    # a short time limit may come before the task has said anything; how often one of those ran, its failures tell
    wanted = {id_of(case): case.starts for case in CASES if case.how != "sleep"}
    failures = {id_of(case): case.failures for case in CASES if case.failures}
    ends = {id_of(case): case.state for case in CASES if case.state}
    house.until(
        lambda: starts() == wanted and noted("task_failure") == failures and house.states() == ends, 30,
        "everything has ended as it should",
    )  # fmt: skip
    assert worker.process.poll() is None
    assert worker.stop() == 0
    assert starts() == wanted
    assert house.states() == ends
    for signal, hook, expected in (
        ("task_failure", "on_failure", failures),
        ("task_retry", "on_retry", {id_of(case): case.retries for case in CASES if case.retries}),
    ):
        for kind in (signal, hook):
            assert noted(kind) == expected, kind
    listed = house.celeriac("-A", "house", "dead", "list", "--json").stdout
    assert {id_of(case) for case in CASES if f'"{id_of(case)}"' in listed} == {id_of(c) for c in CASES if c.dead}
    # everything is settled: nothing is left to be purged
    assert house.python("print(app.control.purge())").split()[-1] == "0"


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_hooks_of_what_is_killed_while_the_worker_stops_are_called(house: House, pool: str) -> None:
    module = house.folder / "house.py"
    module.write_text(module.read_text() + TASKS + 'task("hard.late", time_limit=1.5)\n')
    worker = house.worker("-c", "1", "-P", pool)
    house.python("app.send_task('hard.late', ('sleep',), task_id='killed', link_error=boom.s())")
    house.until(lambda: house.notes("start"), 30, "it runs")
    assert worker.stop() == 0
    assert [words[1] for kind in ("on_failure", "task_failure") for words in house.notes(kind)] == ["killed", "killed"]
    assert house.states()["killed"] == "FAILURE"
    assert house.waiting() == 1, "its error callback waits for the next worker"
