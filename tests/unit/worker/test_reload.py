"""Which files count, and what counts as a change."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import click

from celeriac.worker.reload import baseline, changed, snapshot, wait_for_change


def test_our_own_files_count_and_installed_ones_do_not():
    files = snapshot()
    assert str(Path(__file__)) in files or __file__ in {sys.modules[__name__].__file__}
    assert not any(file == click.__file__ for file in files)
    assert threading.__file__ not in files


def test_new_changed_and_deleted_files_are_found(tmp_path: Path):
    kept, gone = tmp_path / "kept.py", tmp_path / "gone.py"
    kept.write_text("a = 1")
    gone.write_text("b = 1")
    (tmp_path / "notes.txt").write_text("no code")
    (tmp_path / ".#kept.py").write_text("an editor's")
    before = snapshot([str(tmp_path)])
    assert {str(kept), str(gone)} == {file for file in before if file.startswith(str(tmp_path))}
    kept.write_text("a = 12")
    gone.unlink()
    (tmp_path / "new.py").write_text("c = 1")
    found = changed(before, snapshot([str(tmp_path)]))
    assert {Path(file).name for file in found} == {"kept.py", "gone.py", "new.py"}


def test_what_was_saved_while_loading_has_changed(tmp_path: Path):
    (tmp_path / "old.py").write_text("a = 1")
    (tmp_path / "young.py").write_text("a = 1")
    import os

    os.utime(tmp_path / "old.py", (1.0, 1.0))
    before = baseline(time.time() - 60, [str(tmp_path)])
    assert [Path(file).name for file in changed(before, snapshot([str(tmp_path)])) if str(tmp_path) in file] == [
        "young.py"
    ]


def test_waiting_ends_with_a_change(tmp_path: Path):
    file = tmp_path / "app.py"
    file.write_text("a = 1")
    before = snapshot([str(tmp_path)])
    threading.Timer(0.2, file.write_text, ("a = 12",)).start()
    assert [Path(found).name for found in wait_for_change(before, [str(tmp_path)])] == ["app.py"]
