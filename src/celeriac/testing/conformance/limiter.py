"""What every limiter must do. ``class TestMine(LimiterSuite)`` plus a fixture ``driver`` runs it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from itertools import count
from typing import Any

import msgspec
import pytest

from celeriac.ids import task_id
from celeriac.limiters.base import GRANTED, UNASKED, Answer, Demand, Limiter, Need, Permit, Refused
from celeriac.rules.counting import Tables, decide

#: seconds of two leases; neither ends while a test lasts unless it lets time pass
LONG, SHORT = 6000.0, 600.0


class LimiterDriver(msgspec.Struct, kw_only=True):
    """How the suite reaches a limiter."""

    name: str
    #: a new limiter object; all count together
    open: Callable[[], Limiter]
    #: let this many seconds pass for the store
    advance: Callable[[float], None]


def permit(key: str, holder: str, most: int) -> Demand:
    return Demand(holder, (Need(key, most=most),))


def turn(key: str, holder: str, interval: float, burst: int = 1) -> Demand:
    return Demand(holder, (Need(key, interval=interval, burst=burst),))


def verdicts(answers: Any) -> list[bool | None]:
    """Granted, refused, not asked."""
    return [True if answer == GRANTED else None if answer == UNASKED else False for answer in answers]


class LimiterSuite:
    """The tests. Each uses keys of its own."""

    @pytest.fixture
    def limiter(self, driver: LimiterDriver) -> Any:
        limiter = driver.open()
        yield limiter
        limiter.close()

    @pytest.fixture
    def key(self) -> str:
        return f"conformance-{task_id()}"

    # ── changes ──────────────────────────────────────────────────────────────────────────────────────────────────

    def test_changes_are_kept_for_everybody(self, driver: LimiterDriver, limiter: Limiter, key: str) -> None:
        other = driver.open()
        assert key not in limiter.changes()
        limiter.change(key, b"one")
        limiter.change(f"{key}|\xfc 2", b"two")
        assert (other.changes()[key], other.changes()[f"{key}|\xfc 2"]) == (b"one", b"two")
        limiter.take([permit(key, "holder", 1)], 1, LONG)
        driver.advance(2 * LONG)
        other.change(key, b"three")
        other.change(f"{key}|\xfc 2", None)
        other.change(f"{key}.none", None)
        assert limiter.changes()[key] == b"three"
        assert f"{key}|\xfc 2" not in limiter.changes()
        limiter.change(key, None)
        assert key not in other.changes()
        other.close()

    # ── permits ──────────────────────────────────────────────────────────────────────────────────────────────────

    def test_no_more_permits_than_there_are(self, driver: LimiterDriver, limiter: Limiter, key: str) -> None:
        asked = [permit(key, f"h{number}", 2) for number in range(4)]
        assert verdicts(limiter.take(asked, 10, LONG)) == [True, True, False, False]
        other = driver.open()
        assert verdicts(other.take([permit(key, "elsewhere", 2)], 1, LONG)) == [False]
        assert verdicts(other.take([permit(f"{key}.other", "elsewhere", 2)], 1, LONG)) == [True]
        other.close()

    def test_what_is_given_back_is_there_again(self, limiter: Limiter, key: str) -> None:
        limiter.take([permit(key, "one", 1)], 1, LONG)
        limiter.release([Permit(key, "one"), Permit(key, "nobody"), Permit(f"{key}.none", "one")])
        assert verdicts(limiter.take([permit(key, "two", 1)], 1, LONG)) == [True]
        limiter.release([Permit(key, "one")])  # that was given back before
        assert verdicts(limiter.take([permit(key, "three", 1)], 1, LONG)) == [False]

    def test_asking_again_takes_no_second_permit(self, limiter: Limiter, key: str) -> None:
        for _ in range(3):
            assert verdicts(limiter.take([permit(key, "one", 2)], 1, LONG)) == [True]
        assert verdicts(limiter.take([permit(key, "two", 2), permit(key, "one", 2)], 2, LONG)) == [True, True]
        assert verdicts(limiter.take([permit(key, "three", 2)], 1, LONG)) == [False]

    def test_a_permit_comes_back_when_its_lease_ends(self, driver: LimiterDriver, limiter: Limiter, key: str) -> None:
        limiter.take([permit(key, "dies", 2)], 1, SHORT)
        limiter.take([permit(key, "lives", 2)], 1, LONG)
        driver.advance(SHORT * 1.5)
        assert verdicts(limiter.take([permit(key, "a", 2), permit(key, "b", 2)], 2, LONG)) == [True, False]

    def test_a_renewed_permit_stays(self, driver: LimiterDriver, limiter: Limiter, key: str) -> None:
        limiter.take([permit(key, "one", 1)], 1, SHORT)
        assert limiter.renew([Permit(key, "one")], LONG) == []
        driver.advance(SHORT * 1.5)
        assert verdicts(limiter.take([permit(key, "two", 1)], 1, LONG)) == [False]

    def test_who_renews_too_late_is_told_and_counts(self, driver: LimiterDriver, limiter: Limiter, key: str) -> None:
        limiter.take([permit(key, "slept", 2)], 1, SHORT)
        driver.advance(SHORT * 1.5)
        limiter.take([permit(key, "one", 2), permit(key, "two", 2)], 2, LONG)
        assert list(limiter.renew([Permit(key, "one"), Permit(key, "slept")], LONG)) == [Permit(key, "slept")]
        limiter.release([Permit(key, "one")])
        # three have run where two may, so one that ends makes no room
        assert verdicts(limiter.take([permit(key, "three", 2)], 1, LONG)) == [False]
        limiter.release([Permit(key, "slept")])
        assert verdicts(limiter.take([permit(key, "three", 2)], 1, LONG)) == [True]

    def test_a_limit_that_is_lowered_waits_until_enough_have_ended(self, limiter: Limiter, key: str) -> None:
        limiter.take([permit(key, name, 3) for name in "abc"], 3, LONG)
        assert verdicts(limiter.take([permit(key, "d", 1)], 1, LONG)) == [False]
        limiter.release([Permit(key, name) for name in "ab"])
        assert verdicts(limiter.take([permit(key, "d", 1)], 1, LONG)) == [False]
        limiter.release([Permit(key, "c")])
        assert verdicts(limiter.take([permit(key, "d", 1)], 1, LONG)) == [True]

    # ── turns ────────────────────────────────────────────────────────────────────────────────────────────────────

    def test_turns_are_an_interval_apart_after_the_burst(self, limiter: Limiter, key: str) -> None:
        asked = [turn(key, f"h{number}", 100.0, 3) for number in range(5)]
        answers = limiter.take(asked, 10, LONG)
        assert verdicts(answers) == [True, True, True, False, False]
        refused = answers[3]
        assert isinstance(refused, Refused)
        assert 90.0 < refused.wait <= 100.001  # sums of floats

    def test_a_turn_comes_when_it_was_said(self, driver: LimiterDriver, limiter: Limiter, key: str) -> None:
        assert verdicts(limiter.take([turn(key, "a", 900.0)], 1, LONG)) == [True]
        (refused,) = limiter.take([turn(key, "b", 900.0)], 1, LONG)
        assert isinstance(refused, Refused)
        assert 0 < refused.wait <= 900.001
        driver.advance(refused.wait - 100.0)
        assert verdicts(limiter.take([turn(key, "b", 900.0)], 1, LONG)) == [False]
        driver.advance(100.0)
        assert verdicts(limiter.take([turn(key, "b", 900.0)], 1, LONG)) == [True]

    def test_nothing_is_saved_up_beyond_the_burst(self, driver: LimiterDriver, limiter: Limiter, key: str) -> None:
        limiter.take([turn(key, "a", 100.0, 2)], 1, LONG)
        driver.advance(100_000.0)
        asked = [turn(key, f"h{number}", 100.0, 2) for number in range(4)]
        assert verdicts(limiter.take(asked, 4, LONG)) == [True, True, False, False]

    # ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────

    def test_no_more_are_granted_than_are_wanted(self, limiter: Limiter, key: str) -> None:
        asked = [permit(key, f"h{number}", 5) for number in range(4)]
        assert verdicts(limiter.take(asked, 2, LONG)) == [True, True, None, None]
        assert verdicts(limiter.take(asked[2:], 0, LONG)) == [None, None]
        assert verdicts(limiter.take([permit(key, f"i{number}", 5) for number in range(4)], 9, LONG)) == [
            True, True, True, False,
        ]  # fmt: skip

    def test_who_is_refused_takes_nothing(self, limiter: Limiter, key: str) -> None:
        full, paced, free = f"{key}.full", f"{key}.paced", f"{key}.free"
        limiter.take([permit(full, "first", 1)], 1, LONG)
        both = (Need(free, most=1), Need(paced, interval=100.0), Need(full, most=1))
        (answer,) = limiter.take([Demand("h", both)], 1, LONG)
        assert isinstance(answer, Refused)
        assert answer.need == 2
        assert verdicts(limiter.take([permit(free, "i", 1), turn(paced, "i", 100.0)], 2, LONG)) == [True, True]
        (answer,) = limiter.take([Demand("h", both[1:])], 1, LONG)
        assert isinstance(answer, Refused)
        assert answer.need == 0

    def test_one_refused_key_does_not_hold_up_another(self, limiter: Limiter, key: str) -> None:
        limiter.take([permit(key, "first", 1)], 1, LONG)
        asked = [permit(key, f"h{number}", 1) for number in range(50)] + [permit(f"{key}.free", "i", 1)]
        assert verdicts(limiter.take(asked, 1, LONG)) == [False] * 50 + [True]

    def test_large_batches(self, limiter: Limiter, key: str) -> None:
        asked = [permit(f"{key}.{number}", "h", 1) for number in range(1200)]
        assert verdicts(limiter.take(asked, 5000, LONG)) == [True] * 1200
        permits = [Permit(f"{key}.{number}", "h") for number in range(1200)] * 3
        assert list(limiter.renew(permits, LONG)) == []
        limiter.release(permits)
        assert verdicts(limiter.take([permit(f"{key}.1199", "i", 1)], 1, LONG)) == [True]

    def test_nothing_to_do(self, limiter: Limiter) -> None:
        assert list(limiter.take([], 5, LONG)) == []
        assert list(limiter.renew([], LONG)) == []
        limiter.release([])

    def test_it_decides_as_the_rules_do(self, limiter: Limiter, key: str) -> None:
        """Many random steps, with intervals so long that the time between them does not matter."""
        chance = random.Random(7)
        tables = Tables()
        kinds = [(f"{key}.{number}", chance.choice((0, 1, 2, 3)), chance.randint(1, 4)) for number in range(6)]
        taken: list[Permit] = []
        for step in range(60):
            demands = []
            for number in range(chance.randint(1, 6)):
                chosen = chance.sample(kinds, chance.randint(1, 3))
                needs = tuple(
                    Need(name, most=most) if most else Need(name, interval=1e6, burst=burst)
                    for name, most, burst in chosen
                )
                demands.append(Demand(f"h{step}.{number}", needs))
            quota = chance.randint(0, 5)
            expected = decide(demands, quota, 1000.0, LONG, tables)
            answers = limiter.take(demands, quota, LONG)
            assert [_shape(answer) for answer in answers] == [_shape(answer) for answer in expected], step
            for demand, answer in zip(demands, answers, strict=True):
                if answer == GRANTED:
                    taken += [Permit(need.key, demand.holder) for need in demand.needs if need.most]
            chance.shuffle(taken)
            given_back = [taken.pop() for _ in range(min(len(taken), chance.randint(0, 3)))]
            limiter.release(given_back)
            for one in given_back:
                tables.permits[one.key].pop(one.holder, None)

    # ── many at a time ───────────────────────────────────────────────────────────────────────────────────────────

    def test_never_more_than_allowed_with_many_takers(self, driver: LimiterDriver, key: str) -> None:
        held, most = 0, 0
        lock = threading.Lock()
        granted = count()
        errors: list[BaseException] = []

        def work(name: int) -> None:
            nonlocal held, most
            limiter = driver.open()
            try:
                for step in range(40):
                    holder = f"{name}.{step}"
                    if limiter.take([permit(key, holder, 3)], 1, LONG)[0] != GRANTED:
                        continue
                    next(granted)
                    with lock:
                        held += 1
                        most = max(most, held)
                    with lock:
                        held -= 1
                    limiter.release([Permit(key, holder)])
            except BaseException as error:
                errors.append(error)
            finally:
                limiter.close()

        threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=50.0)
        assert not errors, errors
        assert most <= 3
        assert next(granted) > 3


def _shape(answer: Answer) -> tuple[str, int, int]:
    if isinstance(answer, Refused):
        return "refused", answer.need, answer.served
    return type(answer).__name__, -1, -1
