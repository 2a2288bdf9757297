"""The demo's parts that need no worker: measuring, finding files, remembering a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from celeriac.cli.demo.measure import Measures, UnparsableFile, measure_file
from celeriac.cli.demo.run import RunBook, python_files
from celeriac.cli.demo.summary import Summary

SOURCE = b"""import os

class A:
    def short(self):
        pass

    async def long(self):
        one = 1
        return one

def last(): return 1"""


def test_a_file_is_counted(tmp_path: Path):
    (tmp_path / "a.py").write_bytes(SOURCE)
    assert measure_file(tmp_path / "a.py") == Measures(
        lines=11, functions=3, classes=1, longest_function="long", longest_lines=3
    )
    (tmp_path / "empty.py").write_bytes(b"")
    assert measure_file(tmp_path / "empty.py").lines == 0


@pytest.mark.parametrize(
    ("source", "words"),
    [(b"x = (", "line 1"), (b"a\0b", "null"), (b"# coding: nonsense\n", "nonsense"), (b"-" * 100_000 + b"1", "bad.py")],
)
def test_what_does_not_parse_is_one_kind_of_failure(tmp_path: Path, source: bytes, words: str):
    (tmp_path / "bad.py").write_bytes(source)
    with pytest.raises(UnparsableFile, match=words):
        measure_file(tmp_path / "bad.py")


def test_only_source_of_the_folder_itself_is_taken(tmp_path: Path):
    for name in ("b.py", "a.py", "pkg/c.py", "pkg/data.txt", "site-packages/other.py", "pkg/__pycache__/c.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert python_files(tmp_path) == [str(tmp_path / name) for name in ("a.py", "b.py", "pkg/c.py")]


def test_an_unfinished_run_is_found_again_with_the_same_ids(tmp_path: Path):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a.py").touch()
    first = RunBook(tmp_path, folder)
    assert first.open() is None
    run = first.begin(1.0)
    run.sent = 1
    first.save(run)
    first.close()

    again = RunBook(tmp_path, folder)
    found = again.open()
    assert found == run
    assert found.task_ids() == run.task_ids()
    again.finish()
    again.close()

    last = RunBook(tmp_path, folder)
    assert last.open() is None
    assert last.begin(2.0).task_ids().keys().isdisjoint(run.task_ids())
    last.close()


def test_two_demos_do_not_share_a_run(tmp_path: Path):
    first = RunBook(tmp_path, tmp_path)
    first.open()
    with pytest.raises(BlockingIOError):
        RunBook(tmp_path, tmp_path).open()
    other = RunBook(tmp_path, tmp_path / "elsewhere")
    other.open()
    first.close()
    other.close()


def test_a_torn_run_file_counts_as_none(tmp_path: Path):
    book = RunBook(tmp_path, tmp_path)
    book.path.write_bytes(b'{"id": "x", "fol')
    assert book.open() is None
    book.close()


def test_the_summary_adds_up():
    summary = Summary()
    one = {"lines": 10, "functions": 2, "classes": 1, "longest_function": "f", "longest_lines": 5}
    summary.add("a.py", {"status": "SUCCESS", "result": one})
    summary.add("b.py", {"status": "SUCCESS", "result": {**one, "lines": 20}})
    summary.add("c.py", {"status": "FAILURE", "result": UnparsableFile("c.py: line 1: bad")})
    assert (summary.lines, summary.functions, summary.classes) == (30, 4, 2)
    assert [file for file, _ in summary.largest(1)] == ["b.py"]
    assert summary.failed[0].reason == "c.py: line 1: bad"
