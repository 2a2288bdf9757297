"""Identifiers are different from each other, whoever makes them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from celeriac.ids import is_safe_id, task_id, unique_tag


@pytest.mark.parametrize("make", [task_id, unique_tag])
def test_threads_and_forks_make_different_ones(make) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = [text for texts in pool.map(lambda _: [make() for _ in range(500)], range(4)) for text in texts]
    ear, mouth = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(mouth, "\n".join(make() for _ in range(50)).encode())
        os._exit(0)
    os.close(mouth)
    os.waitpid(child, 0)
    with os.fdopen(ear) as theirs:
        made += theirs.read().split("\n")
    made += [make() for _ in range(50)]
    assert len(set(made)) == len(made) == 2100
    assert all(is_safe_id(text) for text in made)
