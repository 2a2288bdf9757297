"""``python -m scorecard.simulation --seed 7 --trace``: run seeds again, and show what happened."""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import sys
import time
import traceback
from typing import TYPE_CHECKING

from scorecard.simulation.seeds import corpus, examine

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("python -m scorecard.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first (%(default)s)")
    parser.add_argument("--count", type=int, default=1, help="how many, one after the other")
    parser.add_argument("--trace", action="store_true", help="print everything as it happens")
    parser.add_argument("--corpus", action="store_true", help="those that once broke something, too")
    parser.add_argument("--processes", type=int, default=1, help="that share the work (%(default)s)")
    asked = parser.parse_args(words)
    logging.getLogger("celeriac").setLevel(logging.CRITICAL)
    chosen = [*(corpus() if asked.corpus else ()), *range(asked.seed, asked.seed + asked.count)]
    began, broken = time.monotonic(), 0
    with contextlib.ExitStack() as stack:
        findings = (examine(seed, asked.trace) for seed in chosen)
        if asked.processes > 1:
            pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(asked.processes))
            findings = pool.imap(examine, chosen, chunksize=20)  # type: ignore[assignment]  # both are iterated over
        for finding in findings:
            if finding.error is not None:
                broken += 1
                print(f"seed {finding.seed}: {finding.text}", flush=True)
                if asked.trace:
                    traceback.print_exception(finding.error)
    print(f"{len(chosen)} seeds, {broken} broken, {time.monotonic() - began:.1f} s")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
