"""``pydantic=True``: models in the code, plain data on the wire."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac import Celeriac

pydantic = pytest.importorskip("pydantic")


class Order(pydantic.BaseModel):  # type: ignore[name-defined,misc]
    number: int
    note: str | None = None


class Receipt(pydantic.BaseModel):  # type: ignore[name-defined,misc]
    total: float


@pytest.fixture
def eager() -> Celeriac:
    return Celeriac("models", broker="recording://", task_always_eager=True)


def test_models_are_dumped_by_the_caller_and_validated_by_the_task(app: Celeriac, sent: Any, running: Any):
    @app.task(pydantic=True, bind=True)
    def pay(self, order: Order, other: Order | None = None, plain: Any = None) -> Receipt:
        assert isinstance(order, Order)
        assert plain is None or isinstance(plain, dict)
        return Receipt(total=order.number)

    pay.delay(Order(number=1), other=Order(number=2))
    assert sent.body[:2] == ([{"number": 1, "note": None}], {"other": {"number": 2, "note": None}})
    with running(pay, sent.last) as context:
        assert pay(*context.args, **context.kwargs) == {"total": 1.0}
    assert pay(Order(number=3)) == {"total": 3.0}
    with pytest.raises(TypeError, match=r"pay\(\)"):
        pay.delay()


def test_what_is_not_a_model_is_left_alone(eager: Celeriac):
    @eager.task(pydantic=True)
    def mixed(order: Order, number: int) -> Receipt | None:
        return None if number else Receipt(total=order.number)

    assert mixed.delay({"number": 5}, 1).get() is None
    assert mixed.delay({"number": 5}, 0).get() == {"total": 5.0}


def test_invalid_data_fails_in_the_task(eager: Celeriac):
    @eager.task(pydantic=True)
    def pay(order: Order) -> None:
        """Nothing."""

    result = pay.delay({"number": "many"})
    assert result.state == "FAILURE"
    assert isinstance(result.result, pydantic.ValidationError)


def test_strictness_context_and_dump_options(eager: Celeriac):
    seen: dict[str, Any] = {}

    class Checked(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        number: int
        empty: str | None = None

        @pydantic.model_validator(mode="after")
        def look(self, info: Any) -> Any:
            seen.update(info.context)
            return self

    globals()["Checked"] = Checked  # annotations of this file are text

    @eager.task(
        pydantic=True, name="checked", pydantic_strict=True, pydantic_context={"mine": 1},
        pydantic_dump_kwargs={"exclude_none": True},
    )  # fmt: skip
    def checked(item: Checked) -> Checked:
        return item

    assert checked.delay({"number": 1}).get() == {"number": 1}
    assert (seen["mine"], seen["celery_app"], seen["celery_task_name"]) == (1, eager, "checked")
    assert checked.delay({"number": "1"}).state == "FAILURE"


def test_coroutines(eager: Celeriac):
    @eager.task(pydantic=True)
    async def pay(order: Order) -> Receipt:
        return Receipt(total=order.number)

    assert pay.is_coroutine
    assert pay.delay(Order(number=2)).get() == {"total": 2.0}
