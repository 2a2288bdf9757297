"""Runs seeds, and says of each what came of it."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scorecard.simulation.scenario import Scene

if TYPE_CHECKING:
    from collections.abc import Iterator

#: seeds that once broke something, run always; one a line, with what it was
CORPUS = Path(__file__).with_name("corpus.txt")


class Finding(msgspec.Struct, frozen=True):
    """What came of one seed."""

    seed: int
    fingerprint: str
    starts: int
    calls: int
    error: BaseException | None = None

    @property
    def text(self) -> str:
        return (
            f"{type(self.error).__name__}: {self.error}\n"
            f"    again, with everything that happened: python -m scorecard.simulation --seed {self.seed} --trace"
        )


class _Errors(logging.Handler):
    """An exception that was logged is one that nobody thought of."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and isinstance(record.exc_info[1], Exception):
            self.found.append(record.exc_info[1])


@contextlib.contextmanager
def _listening() -> Iterator[_Errors]:
    logger, handler = logging.getLogger("celeriac.worker"), _Errors()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


def examine(seed: int, shows: bool = False) -> Finding:
    """Run one seed to its end."""
    scene = Scene(seed, shows)
    error: BaseException | None = None
    with _listening() as errors:
        try:
            scene.run()
        except Exception as caught:
            error = caught
    if error is None and errors.found:
        error = errors.found[0]
    return Finding(seed, scene.world.fingerprint(), scene.ledger.starts, scene.world.calls, error)


def corpus() -> list[int]:
    """The seeds of past failures."""
    lines = CORPUS.read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line.strip() and not line.startswith("#")]
