"""A call as data: which task, with what, how – to be sent later, by somebody else, perhaps in another language.

A signature *is* a plain mapping with Celery's six keys, so it travels in a message body as it stands. This file owns
its shape and its merging rules. It does not know the app's classes: the app is found through ``current``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from celeriac import current
from celeriac.errors import ImproperlyConfigured
from celeriac.ids import task_id as new_id

if TYPE_CHECKING:
    from celeriac.app.result import AsyncResult as Result

__all__ = ["Signature", "maybe_signature", "register_type", "signature"]

R = TypeVar("R")
S = TypeVar("S", bound="Signature[Any]")

#: how the kinds of workflow are rebuilt from a mapping: ``subtask_type`` → builder; their files add themselves
_BUILDERS: dict[str, Callable[[Mapping[str, Any], Any], Signature[Any]]] = {}

#: options that a signature, once it has them, keeps against what the call says
_KEPT_OPTIONS = ("group_id", "stamped_headers")


def register_type(name: str, build: Callable[[Mapping[str, Any], Any], Signature[Any]]) -> None:
    """Say how a mapping with ``subtask_type == name`` becomes a signature: ``build(mapping, app)``."""
    _BUILDERS[name] = build


class Signature(dict[str, Any], Generic[R]):
    """A task call as a mapping: ``task, args, kwargs, options, subtask_type, immutable``."""

    def __init__(
        self, task: Any = None, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None, type: Any = None,  # noqa: A002 - Celery's name
        subtask_type: str | None = None, immutable: bool = False, app: Any = None, **more: Any,
    ) -> None:  # fmt: skip
        self._app = app
        self._type = type
        if isinstance(task, dict):
            super().__init__(task)
            return
        if isinstance(task, str):
            name = task
        else:
            name = task.name
            self._type = task
        super().__init__(
            task=name, args=tuple(args or ()), kwargs=dict(kwargs or {}), options={**(options or {}), **more},
            subtask_type=subtask_type, immutable=immutable,
        )  # fmt: skip

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature[Any]:
        """Rebuild a signature (or the kind of workflow that ``subtask_type`` names) from its mapping."""
        kind = d.get("subtask_type")
        if kind:
            try:
                return _BUILDERS[kind](d, app)
            except KeyError:
                raise ImproperlyConfigured(
                    f"the workflow type {kind!r} of {d.get('task')!r} is not known here; this version builds: "
                    f"{', '.join(sorted(_BUILDERS)) or 'plain signatures only'}"
                ) from None
        return Signature(dict(d), app=app)

    # ── what it says ─────────────────────────────────────────────────────────────────────────────────────────

    @property
    def task(self) -> str:
        return str(self["task"])

    name = task

    @property
    def args(self) -> tuple[Any, ...]:
        return tuple(self.get("args") or ())

    @property
    def kwargs(self) -> dict[str, Any]:
        return cast("dict[str, Any]", self.get("kwargs") or {})

    @property
    def options(self) -> dict[str, Any]:
        found = self.get("options")
        if found is None:
            found = self["options"] = {}
        return cast("dict[str, Any]", found)

    @property
    def subtask_type(self) -> str | None:
        return self.get("subtask_type")

    @property
    def immutable(self) -> bool:
        return bool(self.get("immutable"))

    @property
    def id(self) -> str | None:
        return self.options.get("task_id")

    @property
    def parent_id(self) -> str | None:
        return self.options.get("parent_id")

    @property
    def root_id(self) -> str | None:
        return self.options.get("root_id")

    @property
    def app(self) -> Any:
        """The app it will be sent by: its own, its task's, or the current one."""
        if self._app is not None:
            return self._app
        if self._type is not None:
            return self._type.app
        app = current.get_current_app()
        if app is None:
            raise ImproperlyConfigured(f"there is no app to send {self!r} with: create a Celeriac() first")
        return app

    def attach(self, app: Any) -> None:
        """Make it a signature of ``app``."""
        self._app = app

    @property
    def type(self) -> Any:
        """The task object, or ``NotRegistered``."""
        return self._type if self._type is not None else self.app.tasks[self.task]

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────────

    def delay(self, *partial_args: Any, **partial_kwargs: Any) -> Result[R]:
        return self.apply_async(partial_args, partial_kwargs)

    def apply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None, **options: Any,
    ) -> Result[R]:  # fmt: skip
        """Send it. ``args`` are put before the signature's own, ``kwargs`` and options update them."""
        task, call = self._call(args, kwargs, route_name, options)
        if task is None:
            return cast("Result[R]", self.app.send_task(self.task, call[0], call[1], **call[2]))
        return cast("Result[R]", task.apply_async(call[0], call[1], **call[2]))

    async def adelay(self, *partial_args: Any, **partial_kwargs: Any) -> Result[R]:
        return await self.aapply_async(partial_args, partial_kwargs)

    async def aapply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None, **options: Any,
    ) -> Result[R]:  # fmt: skip
        """:meth:`apply_async` for coroutines."""
        task, call = self._call(args, kwargs, route_name, options)
        if task is None:
            return cast("Result[R]", await self.app.asend_task(self.task, call[0], call[1], **call[2]))
        return cast("Result[R]", await task.aapply_async(call[0], call[1], **call[2]))

    def apply(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Result[R]:
        """Run it here and now."""
        merged = self.merged(args, kwargs, options)
        return cast("Result[R]", self.type.apply(merged[0], merged[1], **merged[2]))

    def __call__(self, *partial_args: Any, **partial_kwargs: Any) -> R:
        """Call the task's function here, as a plain function."""
        args, kwargs, _ = self.merged(partial_args, partial_kwargs, {})
        return cast("R", self.type(*args, **kwargs))

    def __invert__(self) -> R:
        return self.apply_async().get()

    def _call(
        self, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, route_name: str | None,
        options: Mapping[str, Any],
    ) -> tuple[Any, tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]]:  # fmt: skip
        merged = self.merged(args, kwargs, options)
        given = {name: value for name, value in merged[2].items() if value is not None}
        if route_name is not None:
            given["route_name"] = route_name
        task = self._type if self._type is not None else self.app.tasks.get(self.task)
        return task, (merged[0], merged[1], given)

    # ── changing ─────────────────────────────────────────────────────────────────────────────────────────────

    def merged(
        self, args: Iterable[Any] | None, kwargs: Mapping[str, Any] | None, options: Mapping[str, Any] | None,
        force: bool = False,
    ) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:  # fmt: skip
        """Arguments and options of a call: ``args`` first, ``kwargs`` and options over the signature's own.

        Immutable signatures take options only, unless ``force``.
        """
        own = self.options
        merged = dict(own)
        if options:
            kept = (*_KEPT_OPTIONS, *(own.get("stamped_headers") or ()))
            merged.update({name: value for name, value in options.items() if name not in kept or name not in own})
        if self.immutable and not force:
            return self.args, dict(self.kwargs), merged
        return (*(args or ()), *self.args), {**self.kwargs, **(kwargs or {})}, merged

    def clone(
        self: S, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> S:  # fmt: skip
        """A copy with more arguments and options merged in; its options share nothing with this one's."""
        merged = self.merged(args, kwargs, options)
        return self._rebuilt(merged[0], merged[1], copy.deepcopy(merged[2]))

    partial = clone

    def replace(
        self: S, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> S:  # fmt: skip
        """A copy in which what is given takes the place of what was."""
        return self._rebuilt(
            self.args if args is None else tuple(args), dict(self.kwargs if kwargs is None else kwargs),
            copy.deepcopy(self.options if options is None else dict(options)),
        )  # fmt: skip

    def _rebuilt(self: S, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]) -> S:
        made = Signature.from_dict({**self, "args": args, "kwargs": kwargs, "options": options}, app=self._app)
        made._type = self._type
        return cast("S", made)

    def set(self: S, immutable: bool | None = None, **options: Any) -> S:
        """Change options in place; returns the signature itself."""
        if immutable is not None:
            self.set_immutable(immutable)
        self.options.update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        self["immutable"] = immutable

    def freeze(
        self, _id: str | None = None, group_id: str | None = None, chord: Any = None, root_id: str | None = None,
        parent_id: str | None = None, group_index: int | None = None,
    ) -> Result[R]:  # fmt: skip
        """Give it its task id (and its place in a workflow) now; returns the result it will have."""
        options = self.options
        task_id = options.get("task_id")
        if not task_id:
            task_id = options["task_id"] = _id or new_id()
        for name, value in (
            ("root_id", root_id), ("parent_id", parent_id), ("group_id", group_id), ("chord", chord),
            ("group_index", group_index),
        ):  # fmt: skip
            if value is not None:
                options[name] = value
        return self.AsyncResult(task_id)

    _freeze = freeze

    def AsyncResult(self, task_id: str) -> Result[R]:
        return cast("Result[R]", self.app.AsyncResult(task_id, task_name=self.task))

    # ── callbacks ────────────────────────────────────────────────────────────────────────────────────────────

    def link(self, callback: S) -> S:
        """Send ``callback`` with the return value when the task has succeeded; returns ``callback``."""
        self.append_to_list_option("link", callback)
        return callback

    def link_error(self, errback: S) -> S:
        """Call ``errback`` when the task has failed; returns ``errback``."""
        self.append_to_list_option("link_error", errback)
        return errback

    def on_error(self: S, errback: Signature[Any]) -> S:
        """:meth:`link_error`, for chaining: returns the signature itself."""
        self.link_error(errback)
        return self

    def append_to_list_option(self, key: str, value: Any) -> Any:
        items = self._list_option(key)
        if value not in items:
            items.append(value)
        return value

    def extend_list_option(self, key: str, value: Any) -> None:
        self._list_option(key).extend(value if isinstance(value, list | tuple) else [value])

    def _list_option(self, key: str) -> list[Any]:
        items = self.options.get(key)
        if not isinstance(items, list):
            items = self.options[key] = [] if items is None else [items]
        return items

    def flatten_links(self) -> list[Signature[Any]]:
        """This signature and all the callbacks that follow it, depth first."""
        found: list[Signature[Any]] = [self]
        for callback in _as_list(self.options.get("link")):
            found.extend(cast("Signature[Any]", maybe_signature(callback, self._app)).flatten_links())
        return found

    # ── as a value ───────────────────────────────────────────────────────────────────────────────────────────

    def __or__(self, other: Any) -> Any:
        # a mapping's own ``|`` would silently merge the two calls into one
        return NotImplemented

    __ror__ = __or__
    __ior__ = __or__

    def __json__(self) -> dict[str, Any]:
        return dict(self)

    def __reduce__(self) -> Any:
        return signature, (dict(self),)

    def __deepcopy__(self: S, memo: dict[int, Any]) -> S:
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        dict.update(copied, copy.deepcopy(dict(self), memo))
        copied._app, copied._type = self._app, self._type
        return copied

    def __copy__(self: S) -> S:
        return self.clone()

    def reprcall(self, *args: Any, **kwargs: Any) -> str:
        """``proj.add(2, y=3)``: the call as it would be written."""
        all_args, all_kwargs, _ = self.merged(args, kwargs, {}, force=True)
        shown = [repr(value) for value in all_args] + [f"{name}={value!r}" for name, value in all_kwargs.items()]
        return f"{self.get('task')}({', '.join(shown)})"

    def __repr__(self) -> str:
        return self.reprcall()


def signature(
    varies: Any, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None, *, immutable: bool = False, app: Any = None, **more: Any,
) -> Signature[Any]:  # fmt: skip
    """A signature from a task, a task's name, or the mapping of a signature (which is copied)."""
    if isinstance(varies, Signature):
        return varies.clone()
    if isinstance(varies, Mapping):
        return Signature.from_dict(varies, app=app)
    return Signature(varies, args, kwargs, options, immutable=immutable, app=app, **more)


def maybe_signature(d: Any, app: Any = None, clone: bool = False) -> Any:
    """``d`` as a signature if it is the mapping of one (a list: each); anything else comes back as it is."""
    if isinstance(d, Signature):
        if clone:
            d = d.clone()
    elif isinstance(d, Mapping):
        d = Signature.from_dict(d, app=app)
    elif isinstance(d, list):
        return [maybe_signature(item, app=app, clone=clone) for item in d]
    else:
        return d
    if app is not None:
        d.attach(app)
    return d


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
