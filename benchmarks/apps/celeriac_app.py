"""The no-op app of celeriac: the broker file is named by BENCH_FILE."""

import os

from celeriac import Celeriac

app = Celeriac("bench", broker=f"sqlite:///{os.environ['BENCH_FILE']}")


@app.task
def noop(n: int) -> int:
    return n
