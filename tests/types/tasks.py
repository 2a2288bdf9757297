"""What the type checkers must say of tasks, calls and results; checked by test_types.py, never run."""

from __future__ import annotations

from typing import Any, assert_type

from celeriac import AsyncResult, Celeriac, Signature, Task, shared_task
from celeriac.app.group_result import ResultSet
from celeriac.app.task import AsyncTask

app = Celeriac("types")


@app.task
def add(x: int, y: int = 0) -> int:
    return x + y


@app.task()
def named() -> str:
    return ""


@app.task(name="types.third", queue="mail", max_retries=None, autoretry_for=(OSError,))
def optioned(text: str, *, loud: bool = False) -> list[str]:
    return [text]


@app.task(bind=True)
def bound(self: Task[..., Any], x: int) -> bool:
    assert_type(self.request.retries, int)
    raise self.retry(countdown=x)


@app.task
async def fetch(url: str) -> bytes:
    return url.encode()


@app.task(bind=True, max_retries=5)
async def bound_fetch(self: Task[..., Any], url: str) -> bytes:
    return url.encode()


@shared_task
def shared(x: int) -> float:
    return float(x)


@shared_task(bind=True, queue="x")
def shared_bound(self: Task[..., Any], x: int) -> float:
    return float(x)


assert_type(add.delay(1, 2), AsyncResult[int])
assert_type(add.delay(x=1), AsyncResult[int])
assert_type(add(1, 2), int)
assert_type(add.delay(1).get(), int)
assert_type(add.apply_async((1, 2), countdown=5), AsyncResult[int])
assert_type(add.apply((1, 2)), AsyncResult[int])
assert_type(add.s(1), Signature[int])
assert_type(add.si(1, 2).apply_async(), AsyncResult[int])
assert_type(add.s(1).delay(2).get(timeout=3), int)
assert_type(add.delay_many([(1, 2), (3, 4)]), list[AsyncResult[int]])
assert_type(named.delay(), AsyncResult[str])
assert_type(optioned.delay("a", loud=True), AsyncResult[list[str]])
assert_type(bound.delay(3), AsyncResult[bool])
assert_type(bound.delay(x=3).get(), bool)
assert_type(fetch.delay("u"), AsyncResult[bytes])
assert_type(fetch.delay("u").get(), bytes)
assert_type(bound_fetch.delay("u").get(), bytes)
assert_type(shared.delay(1).get(), float)
assert_type(shared_bound.delay(1).get(), float)
assert_type(app.send_task("other", (1,)), AsyncResult[Any])
assert_type(app.send_many([add.s(1, 2)]), list[AsyncResult[int]])
assert_type(ResultSet([add.delay(1)]).get(), list[int])
assert_type(app.AsyncResult("id").get(), Any)

is_async: AsyncTask[[str], bytes] = fetch
is_sync: Task[[str], bytes] = fetch


async def inside() -> None:
    assert_type(await add.adelay(1, 2), AsyncResult[int])
    assert_type(await add.aapply_async((1, 2), queue="q"), AsyncResult[int])
    assert_type(await add.s(1).adelay(2), AsyncResult[int])
    result = await fetch.adelay("u")
    assert_type(result, AsyncResult[bytes])
    assert_type(await result, bytes)
    assert_type(await result.aget(timeout=5), bytes)
    assert_type(await fetch("u"), bytes)
    assert_type(await bound_fetch("u"), bytes)
    assert_type(await ResultSet(add.delay_many([(1, 2)])), list[int])


# each of these must be an error in both checkers
add.delay("1")  # type: ignore[arg-type]
add.delay()  # type: ignore[call-arg]
add.delay(1, z=2)  # type: ignore[call-arg]
bound.delay()  # type: ignore[call-arg]
bound.delay(1, 2)  # type: ignore[call-arg]
fetch.delay(1)  # type: ignore[arg-type]
