"""``-A`` finds the app wherever Celery would, and says exactly what is missing where there is none."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from celeriac.app.loading import find_app, load_registry
from celeriac.errors import ImproperlyConfigured

APP = "from celeriac import Celeriac\n{name} = Celeriac('{main}', broker='recording://')\n"

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a module into a directory that is the working directory; forget it afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write(path: str, text: str) -> None:
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        importlib.invalidate_caches()

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("target", ["shop1", "shop1:app", "shop1.app"])
def test_a_module_with_an_app(write: Write, target: str):
    write("shop1.py", APP.format(name="app", main="shop1"))
    assert find_app(target).main == "shop1"


@pytest.mark.parametrize("name", ["celery", "whatever"])
def test_other_names_for_the_app(write: Write, name: str):
    write("shop2.py", APP.format(name=name, main="shop2"))
    assert find_app("shop2").main == "shop2"


def test_attributes_of_attributes(write: Write):
    write("shop3.py", APP.format(name="inner", main="shop3") + "class Holder:\n    mine = inner\n")
    assert find_app("shop3:Holder.mine").main == "shop3"
    assert find_app("shop3.Holder.mine").main == "shop3"


def test_a_package_with_a_celery_module(write: Write):
    write("proj4/__init__.py", "")
    write("proj4/celery.py", APP.format(name="app", main="proj4"))
    for target in ("proj4", "proj4.celery", "proj4.celery:app"):
        assert find_app(target).main == "proj4"


def test_a_package_that_exports_the_app_under_the_name_of_its_module(write: Write):
    write("proj5/__init__.py", "from proj5.celery import app as celery_app\n")
    write("proj5/celery.py", APP.format(name="app", main="proj5"))
    assert find_app("proj5").main == "proj5"


def test_what_is_missing_is_named(write: Write):
    write("empty6.py", "x = 1\n")
    write("broken6.py", "import not_installed_anywhere\n")
    write("faulty6.py", "raise ValueError('mine')\n")
    write("pkg6/__init__.py", "")
    with pytest.raises(ModuleNotFoundError) as missing:
        find_app("no_such_module6")
    assert missing.value.name == "no_such_module6"
    with pytest.raises(ModuleNotFoundError) as inside:
        find_app("broken6")
    assert inside.value.name == "not_installed_anywhere"
    with pytest.raises(ModuleNotFoundError) as inside:
        find_app("broken6.app")
    assert inside.value.name == "not_installed_anywhere"
    with pytest.raises(ModuleNotFoundError) as missing:
        find_app("no_such_module6.app")
    assert missing.value.name == "no_such_module6"
    with pytest.raises(ValueError, match="mine"):
        find_app("faulty6")
    for target, text in (
        ("empty6", "holds no app"),
        ("pkg6", "holds no app"),
        ("empty6:app", "module 'empty6' has no attribute 'app'"),
        ("empty6.app", "module 'empty6' has no attribute 'app'"),
        ("empty6:x", "is not an app but a int"),
        ("not a module", "is not the name of a module"),
        ("", "no app was named"),
    ):
        with pytest.raises(ImproperlyConfigured, match=text):
            find_app(target)


def test_a_registry_has_the_tasks_of_every_module(write: Write):
    write(
        "shop7.py",
        APP.format(name="app", main="shop7")
        + "app.conf.include = ['extra7']\napp.conf.imports = ['more7']\napp.autodiscover_tasks(['pkg7', 'pkg8'])\n",
    )
    for name in ("extra7", "more7", "pkg7/tasks"):
        module = name.replace("/", ".")
        write(f"{name}.py", f"from shop7 import app\n@app.task(name='{module}.work')\ndef work(): pass\n")
    write("pkg7/__init__.py", "")
    write("pkg8/__init__.py", "")
    assert {"extra7.work", "more7.work", "pkg7.tasks.work"} <= set(load_registry("shop7").tasks)


def test_discovery_passes_over_what_is_not_there_only(write: Write):
    write("shop9.py", APP.format(name="app", main="shop9"))
    write("pkg9/__init__.py", "")
    write("pkg9/tasks.py", "import not_installed_anywhere\n")
    write("pkg10/__init__.py", "")
    write("pkg10/jobs.py", "seen = True\n")
    app = find_app("shop9")
    app.autodiscover_tasks(lambda: ["pkg10"], related_name="jobs", force=True)
    assert sys.modules["pkg10.jobs"].seen
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        app.autodiscover_tasks(["pkg9"], force=True)
    with pytest.raises(ModuleNotFoundError, match="no_such_pkg"):
        app.autodiscover_tasks(["no_such_pkg"], force=True)
    with pytest.raises(ImproperlyConfigured, match="packages"):
        app.autodiscover_tasks()
