"""Tasks with ``pydantic=True``: models are validated from what arrived and dumped before they are sent.

Imported only when such a task is declared; needs ``pip install 'celeriac[pydantic]'``.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from celeriac.app.task import is_coroutine_function
from celeriac.errors import MissingExtra

if TYPE_CHECKING:
    from celeriac.app.celery import Celeriac


def validated(app: Celeriac, fun: Callable[..., Any], name: str, options: Mapping[str, Any]) -> Callable[..., Any]:
    """``fun`` taking plain data where it wants models, and returning plain data where it promises a model."""
    try:
        from pydantic import BaseModel
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"task {name} says pydantic=True, which needs a package that is not installed: "
            "pip install 'celeriac[pydantic]'"
        ) from error
    signature = inspect.signature(fun)
    hints = typing.get_type_hints(fun)
    models = {
        parameter: model for parameter in signature.parameters if (model := _model_in(hints.get(parameter), BaseModel))
    }
    returned = _model_in(hints.get("return"), BaseModel)
    strict = bool(options.get("pydantic_strict"))
    context = {**(options.get("pydantic_context") or {}), "celery_app": app, "celery_task_name": name}
    dump_options = {"mode": "json", **(options.get("pydantic_dump_kwargs") or {})}

    def arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        bound = signature.bind(*args, **kwargs)
        for parameter, model in models.items():
            value = bound.arguments.get(parameter)
            if value is not None and not isinstance(value, model):
                bound.arguments[parameter] = model.model_validate(value, strict=strict, context=context)
        return bound

    def answer(value: Any) -> Any:
        if returned is not None and isinstance(value, returned):
            return value.model_dump(**dump_options)
        return value

    @functools.wraps(fun)
    async def run_coroutine(*args: Any, **kwargs: Any) -> Any:
        bound = arguments(args, kwargs)
        return answer(await fun(*bound.args, **bound.kwargs))

    @functools.wraps(fun)
    def run_function(*args: Any, **kwargs: Any) -> Any:
        bound = arguments(args, kwargs)
        return answer(fun(*bound.args, **bound.kwargs))

    def dump_arguments(
        args: Sequence[Any], kwargs: Mapping[str, Any], serializer: str
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        if serializer == "pickle":
            return args, kwargs

        def dumped(value: Any) -> Any:
            return value.model_dump(mode="json") if isinstance(value, BaseModel) else value

        return tuple(map(dumped, args)), {key: dumped(value) for key, value in kwargs.items()}

    run: Any = run_coroutine if is_coroutine_function(fun) else run_function
    run.__dump_arguments__ = dump_arguments  # read by declare
    return cast("Callable[..., Any]", run)


def _model_in(annotation: Any, base: type) -> Any:
    """The model class of ``Model`` or ``Model | None``; ``None`` for anything else."""
    if isinstance(annotation, type) and issubclass(annotation, base):
        return annotation
    inner = [choice for choice in typing.get_args(annotation) if choice is not type(None)]
    if len(inner) == 1 and type(None) in typing.get_args(annotation):
        return _model_in(inner[0], base)
    return None
