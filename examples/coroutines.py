"""Coroutines as tasks: one worker process waits for hundreds of things at one time, and so does the caller."""

import asyncio
import time

from celeriac import Celeriac

app = Celeriac("coroutines")


@app.task
async def wait(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@app.task
def square(x: int) -> int:
    """Plain functions may stand beside them."""
    return x * x


async def main() -> None:
    begin = time.monotonic()
    results = await asyncio.gather(*(wait.adelay(0.5) for _ in range(50)))
    waited = sum(await asyncio.gather(*results))
    print(f"waited {waited:.0f} s, all at one time: {time.monotonic() - begin < waited / 2}")
    print(await (await square.adelay(7)))


if __name__ == "__main__":
    asyncio.run(main())
