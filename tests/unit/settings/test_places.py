"""Where state is kept, and which zone is meant."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from celeriac.errors import ImproperlyConfigured
from celeriac.settings import GeneralSettings, Settings
from celeriac.settings.loading import embedded_path, local_zone, state_home, zone


def test_the_home_of_state() -> None:
    assert state_home({"CELERIAC_HOME": "/a/b", "XDG_STATE_HOME": "/x"}) == Path("/a/b")
    assert state_home({"CELERIAC_HOME": "~/c"}) == Path.home() / "c"
    assert state_home({"CELERIAC_HOME": "here"}) == Path.cwd() / "here"
    assert state_home({"XDG_STATE_HOME": "/x"}) == Path("/x/celeriac")
    assert state_home({"XDG_STATE_HOME": "relative"}) == state_home({}) == Path.home() / ".local/state/celeriac"


def test_embedded_files_have_safe_and_different_names() -> None:
    environ = {"CELERIAC_HOME": "/s"}
    assert embedded_path("proj.tasks", environ) == Path("/s/proj.tasks.sqlite3")
    names = ["my app", "my_app", "my/app", "../app", "", "é", "a" * 300, "a" * 299, ".hidden", "hidden"]
    paths = [embedded_path(name, environ) for name in names]
    assert len(set(paths)) == len(names)
    assert {path.parent for path in paths} == {Path("/s")}
    assert all(len(path.name) < 128 and not path.name.startswith(".") for path in paths)


def test_the_zone() -> None:
    assert zone(Settings()) is UTC
    assert zone(GeneralSettings(timezone="utc")) is UTC
    berlin = zone(GeneralSettings(timezone="Europe/Berlin", enable_utc=False))
    assert datetime(2024, 7, 1, tzinfo=berlin).utcoffset() == timedelta(hours=2)
    own = timezone(timedelta(hours=1))
    assert zone(GeneralSettings(timezone=own)) is own


@pytest.mark.parametrize("name", ["Europe/Berlim", "Europe", "../etc/passwd", ""])
def test_a_zone_that_does_not_exist_is_named(name: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="timezone: there is no zone"):
        zone(GeneralSettings(timezone=name))


def test_the_local_zone_knows_daylight_saving() -> None:
    found = zone(GeneralSettings(enable_utc=False), {"TZ": ":America/New_York"})
    assert datetime(2024, 7, 1, tzinfo=found).utcoffset() == timedelta(hours=-4)
    assert datetime(2024, 1, 1, tzinfo=found).utcoffset() == timedelta(hours=-5)
    assert datetime(2024, 1, 1, tzinfo=local_zone({"TZ": "Nowhere/At All"})).utcoffset() is not None
    assert datetime(2024, 1, 1, tzinfo=local_zone({})).utcoffset() is not None
