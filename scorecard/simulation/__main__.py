"""``python -m scorecard.simulation --seed 7 --trace``: run seeds again, and show what happened."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from typing import TYPE_CHECKING

from scorecard.simulation.seeds import examine

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("python -m scorecard.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first (%(default)s)")
    parser.add_argument("--count", type=int, default=1, help="how many, one after the other")
    parser.add_argument("--trace", action="store_true", help="print everything as it happens")
    parser.add_argument("--stop", action="store_true", help="stop at the first that breaks")
    asked = parser.parse_args(words)
    began, broken = time.monotonic(), 0
    for seed in range(asked.seed, asked.seed + asked.count):
        finding = examine(seed, asked.trace)
        if finding.error is not None:
            broken += 1
            print(f"seed {seed}: {finding.text}")
            if asked.trace:
                traceback.print_exception(finding.error)
            if asked.stop:
                break
    seconds = time.monotonic() - began
    print(f"{asked.count} seeds, {broken} broken, {seconds:.1f} s")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
