"""What every registry of revocations must do: ``class TestMine(RevocationSuite)`` plus a fixture ``driver`` runs it.

Stores and brokers that keep none are skipped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from celeriac.results.base import News, Revocation, Revocations
from celeriac.wire.revocation import PARDON


class RegistryDriver(msgspec.Struct, kw_only=True):
    """How the suite reaches a registry that is empty when the test begins."""

    name: str
    #: a new store or transport; all reach the same registry
    open: Callable[[], Any]
    #: let this many seconds pass for the registry
    advance: Callable[[float], None]


def ids(*names: str) -> list[Revocation]:
    return [Revocation(name) for name in names]


def values(news: News) -> list[str]:
    return [standing.entry.value for standing in news.standing]


class RevocationSuite:
    """The tests."""

    @pytest.fixture
    def registry(self, driver: RegistryDriver) -> Any:
        registry = driver.open()
        yield registry
        registry.close()

    def test_it_is_one(self, registry: Revocations) -> None:
        assert isinstance(registry, Revocations)

    def test_nothing_is_there_at_first(self, registry: Revocations) -> None:
        news = registry.read_revocations(0, 100)
        assert (news.standing, news.more) == ([], False)
        assert registry.read_revocations(news.mark, 100).standing == []

    def test_entries_are_read_back_whole(self, driver: RegistryDriver, registry: Revocations) -> None:
        entries = [
            Revocation("a"), Revocation("b", "", "SIGKILL"), Revocation("7", "customer"),
            Revocation("x y/ü\n'; --", "a header: ö", "SIGTERM"),
        ]  # fmt: skip
        registry.add_revocations(entries, 1000.0)
        other = driver.open()
        news = other.read_revocations(0, 100)
        other.close()
        assert [standing.entry for standing in news.standing] == entries
        assert all(990.0 < standing.left <= 1000.0 for standing in news.standing)

    def test_only_what_is_new_is_read(self, driver: RegistryDriver, registry: Revocations) -> None:
        reader = driver.open()
        registry.add_revocations(ids("a", "b"), 1000.0)
        first = reader.read_revocations(0, 100)
        assert values(first) == ["a", "b"]
        assert values(reader.read_revocations(first.mark, 100)) == []
        registry.add_revocations(ids("c"), 1000.0)
        registry.add_revocations(ids("d", "e"), 1000.0)
        second = reader.read_revocations(first.mark, 100)
        assert values(second) == ["c", "d", "e"]
        assert values(reader.read_revocations(second.mark, 100)) == []
        assert values(reader.read_revocations(0, 100)) == ["a", "b", "c", "d", "e"]
        reader.close()

    def test_what_is_said_twice_is_no_news(self, driver: RegistryDriver, registry: Revocations) -> None:
        registry.add_revocations(ids("a", "a"), 1000.0)
        mark = registry.read_revocations(0, 100).mark
        driver.advance(5.0)
        registry.add_revocations(ids("a"), 1000.0)
        registry.add_revocations(ids("a"), 10.0)
        assert registry.read_revocations(mark, 100).standing == []
        assert values(registry.read_revocations(0, 100)) == ["a"]
        driver.advance(500.0)
        registry.add_revocations(ids("a"), 1000.0)
        [again] = registry.read_revocations(mark, 100).standing
        assert again.entry.value == "a"
        assert again.left > 990.0

    def test_entries_vanish_after_their_time(self, driver: RegistryDriver, registry: Revocations) -> None:
        registry.add_revocations(ids("short"), 30.0)
        registry.add_revocations(ids("long"), 1000.0)
        registry.add_revocations(ids("brief"), 30.0)
        mark = registry.read_revocations(0, 100).mark
        driver.advance(31.0)
        assert values(registry.read_revocations(0, 100)) == ["long"]
        registry.add_revocations(ids("new"), 1000.0)
        assert values(registry.read_revocations(mark, 100)) in (["new"], ["long", "new"])
        driver.advance(1001.0)
        assert registry.read_revocations(0, 100).standing == []
        registry.add_revocations(ids("short"), 30.0)
        assert values(registry.read_revocations(0, 100)) == ["short"]

    def test_a_pardon_takes_the_place_of_what_it_takes_back(
        self, driver: RegistryDriver, registry: Revocations
    ) -> None:
        registry.add_revocations([*ids("a", "b"), Revocation("a", "", "SIGTERM"), Revocation("a", "customer")], 1000.0)
        mark = registry.read_revocations(0, 100).mark
        driver.advance(1.0)
        registry.add_revocations([Revocation("a", "", PARDON)], 1000.0)
        assert [one.entry for one in registry.read_revocations(mark, 100).standing] == [Revocation("a", "", PARDON)]
        found = {one.entry for one in registry.read_revocations(0, 100).standing}
        assert found == {*ids("b"), Revocation("a", "customer"), Revocation("a", "", PARDON)}
        mark = registry.read_revocations(0, 100).mark
        registry.add_revocations([Revocation("a", "customer", PARDON), *ids("a")], 1000.0)
        fresh = [one.entry for one in registry.read_revocations(mark, 100).standing]
        assert fresh == [Revocation("a", "customer", PARDON), Revocation("a")]
        found = {one.entry for one in registry.read_revocations(0, 100).standing}
        assert found == {*ids("a", "b"), Revocation("a", "customer", PARDON)}

    def test_many_are_read_in_parts(self, registry: Revocations) -> None:
        names = [f"task-{number}" for number in range(2500)]
        registry.add_revocations(ids(*names), 1000.0)
        found: list[str] = []
        mark, more = 0, True
        while more:
            news = registry.read_revocations(mark, 1000)
            assert len(news.standing) <= 1000
            found += values(news)
            mark, more = news.mark, news.more
        assert found == names
        assert registry.read_revocations(mark, 1000).standing == []

    def test_nobody_misses_what_others_add_at_the_same_time(
        self, driver: RegistryDriver, registry: Revocations
    ) -> None:
        def add(part: int) -> None:
            writer = driver.open()
            for number in range(40):
                writer.add_revocations(ids(f"{part}-{number}", f"both-{number}"), 1000.0)
            writer.close()

        writers = [threading.Thread(target=add, args=(part,)) for part in range(3)]
        for writer in writers:
            writer.start()
        seen: list[str] = []
        mark = 0
        while True:
            at_work = any(writer.is_alive() for writer in writers)
            news = registry.read_revocations(mark, 7)
            seen += values(news)
            mark = news.mark
            if not at_work and not news.more:
                break
        assert sorted(set(seen)) == sorted(
            [f"{part}-{number}" for part in range(3) for number in range(40)] + [f"both-{n}" for n in range(40)]
        )
