"""What users derive their steps from, and :class:`Blueprint`, which orders steps and starts and stops them.

Knows nothing of our worker: whoever drives a blueprint hands over the ``parent`` that steps are given.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from celeriac.errors import ImproperlyConfigured

__all__ = ["CLOSE", "RUN", "TERMINATE", "Blueprint", "ConsumerStep", "StartStopStep", "Step"]

logger = logging.getLogger("celeriac.worker")

#: states of a blueprint
RUN, CLOSE, TERMINATE = 0x1, 0x2, 0x3
_STATES = {0: "initializing", RUN: "running", CLOSE: "closing", TERMINATE: "terminating"}
_JOIN_LOOK = 1.0


class Step:
    """Something that is created with the worker. ``parent``: the worker, or its consumer."""

    name: str = ""  #: ``module.Class``, unless it is set
    label: str | None = None
    alias: str | None = None
    #: steps that come before this one: classes, or their names as ``module:Class``
    requires: Sequence[Any] | set[Any] = ()
    conditional = False
    enabled = True
    #: comes after all others
    last = False

    def __init__(self, parent: Any, **options: Any) -> None:
        """``options``: the values of ``app.user_options["worker"]``."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = f"{cls.__module__}.{cls.__qualname__}"

    def include_if(self, parent: Any) -> bool:
        """Whether it is wanted here."""
        return self.enabled

    def include(self, parent: Any) -> bool:
        if not self.include_if(parent):
            return False
        self.create(parent)
        return True

    def create(self, parent: Any) -> Any:
        """Make what it is about."""

    def instantiate(self, name: Any, *args: Any, **kwargs: Any) -> Any:
        """An object of the class that ``name`` is, or names."""
        from celeriac.plugins import resolve

        return (resolve(name) if isinstance(name, str) else name)(*args, **kwargs)

    def info(self, parent: Any) -> Any:
        """What ``stats`` should tell of it."""

    @property
    def shown(self) -> str:
        return self.label or type(self).__name__

    def __repr__(self) -> str:
        return f"<step: {self.shown}>"


class StartStopStep(Step):
    """Something that is started and stopped: itself, or the object that ``create`` returns."""

    obj: Any = None

    def include(self, parent: Any) -> bool:
        if not self.include_if(parent):
            return False
        self.obj = self.create(parent)
        parent.steps.append(self)
        return True

    def start(self, parent: Any) -> Any:
        if self.obj is not None:
            return self.obj.start()
        return None

    def stop(self, parent: Any) -> Any:
        if self.obj is not None:
            return self.obj.stop()
        return None

    def close(self, parent: Any) -> Any:
        """The worker is about to stop."""

    def terminate(self, parent: Any) -> Any:
        """Stop without waiting: ``terminate`` of the object, where it has one."""
        if self.obj is None:
            return None
        return getattr(self.obj, "terminate", self.obj.stop)()


class ConsumerStep(StartStopStep):
    """Receives messages that are no tasks, with what :meth:`get_consumers` returns (our own ``Consumer``)."""

    requires: Sequence[Any] | set[Any] = ("celeriac.worker.consumer:Connection",)
    consumers: Sequence[Any] | None = None

    def get_consumers(self, channel: Any) -> Sequence[Any]:
        raise NotImplementedError("a ConsumerStep needs get_consumers(channel)")

    def start(self, parent: Any) -> Any:
        self.consumers = list(self.get_consumers(parent.connection.channel()) or ())
        for consumer in self.consumers:
            consumer.consume()

    def stop(self, parent: Any) -> Any:
        self._leave()

    def shutdown(self, parent: Any) -> Any:
        self._leave()

    def _leave(self) -> None:
        consumers, self.consumers = self.consumers, None
        for consumer in consumers or ():
            consumer.close()


class Blueprint:
    """Steps in the order that they require.

    ``known``: names of steps that are there already, so that others may require them (``Pool``, ``Connection`` …).
    """

    name: str = ""
    default_steps: Iterable[Any] = ()

    def __init__(
        self, steps: Iterable[Any] | None = None, name: str | None = None,
        on_start: Callable[[], Any] | None = None, on_close: Callable[[], Any] | None = None,
        on_stopped: Callable[[], Any] | None = None, known: Iterable[str] = (),
    ) -> None:  # fmt: skip
        self.name = name or self.name or type(self).__name__
        self.types = {*(steps or ()), *self.default_steps}
        self.known = frozenset(known)
        self.on_start, self.on_close, self.on_stopped = on_start, on_close, on_stopped
        self.state = 0
        self.started = 0  #: how many steps have been
        self.order: list[Step] = []
        self.steps: dict[str, Step] = {}
        self.shutdown_complete = threading.Event()

    def apply(self, parent: Any, **options: Any) -> Blueprint:
        """Make the steps, in order. Raises ``ImproperlyConfigured`` for requirements that nobody meets."""
        for cls in in_order(self.types, self.known):
            step = cls(parent, **options)
            if step.include(parent):
                self.order.append(step)
                self.steps[step.name] = step
        return self

    def start(self, parent: Any) -> None:
        self.state = RUN
        if self.on_start is not None:
            self.on_start()
        for number, step in enumerate(parent.steps, 1):
            logger.debug("| %s: starting %s", self.name, step.shown)
            self.started = number
            step.start(parent)

    def restart(
        self, parent: Any, method: str = "stop", description: str = "restarting", propagate: bool = False
    ) -> None:
        self.send_all(parent, method, description, propagate=propagate)

    def close(self, parent: Any) -> None:
        if self.on_close is not None:
            self.on_close()
        self.send_all(parent, "close", "closing", reverse=False, propagate=False)

    def stop(self, parent: Any, close: bool = True, terminate: bool = False) -> None:
        """Stop what has been started, the last first; what fails is logged and keeps no other from it."""
        if self.state in (CLOSE, TERMINATE):
            return
        if close:
            self.close(parent)
        is_whole = self.state == RUN and self.started == len(parent.steps)
        self.state = TERMINATE if terminate else CLOSE
        if is_whole or self.started:
            self.send_all(parent, "terminate" if terminate else "stop", propagate=False)
        if self.on_stopped is not None:
            self.on_stopped()
        self.shutdown_complete.set()

    def send_all(
        self, parent: Any, method: str, description: str | None = None, reverse: bool = True, propagate: bool = True,
        args: Sequence[Any] = (),
    ) -> None:  # fmt: skip
        """Call ``method`` of every step that has been started and has it."""
        chosen = list(parent.steps)[: self.started or None]
        for step in reversed(chosen) if reverse else chosen:
            function = getattr(step, method, None)
            if function is None:
                continue
            logger.debug("| %s: %s %s", self.name, (description or method).capitalize(), step.shown)
            try:
                function(parent, *args)
            except Exception:
                if propagate:
                    raise
                logger.exception("step %s: %s failed", step.shown, method)

    def join(self, timeout: float | None = None) -> None:
        """Until it has stopped."""
        if timeout is not None:
            self.shutdown_complete.wait(timeout)
            return
        while not self.shutdown_complete.wait(_JOIN_LOOK):
            pass

    def info(self, parent: Any) -> dict[str, Any]:
        told: dict[str, Any] = {}
        for step in self.order:
            told.update(step.info(parent) or {})
        return told

    def human_state(self) -> str:
        return _STATES[self.state]

    def __getitem__(self, name: str) -> Step:
        return self.steps[name]


def in_order(types: Iterable[type[Step]], known: Iterable[str] = ()) -> list[type[Step]]:
    """Every step after those that it requires; else by name, so that the order is always the same."""
    chosen = sorted(set(types), key=lambda cls: (bool(cls.last), cls.name))
    by_name: dict[str, type[Step]] = {}
    for cls in chosen:
        for name in _names_of(cls):
            by_name[name] = cls
    short = {name.lower() for name in known}
    ordered: list[type[Step]] = []
    under_way: list[type[Step]] = []

    def place(cls: type[Step]) -> None:
        if cls in ordered:
            return
        if cls in under_way:
            circle = " → ".join(each.name for each in [*under_way[under_way.index(cls) :], cls])
            raise ImproperlyConfigured(f"bootsteps require each other: {circle}")
        under_way.append(cls)
        for required in sorted(cls.requires, key=str):
            found = by_name.get(_name_of(required))
            if found is not None:
                place(found)
            elif _name_of(required).rpartition(".")[2].lower() not in short:
                raise ImproperlyConfigured(
                    f"bootstep {cls.name} requires {_name_of(required)}, which is not among the steps; those of the "
                    f"worker itself are {', '.join(sorted(known))}"
                )
        under_way.pop()
        ordered.append(cls)

    for cls in chosen:
        place(cls)
    return ordered


def _names_of(cls: type[Step]) -> set[str]:
    return {cls.name, f"{cls.__module__}.{cls.__qualname__}", *([cls.alias] if cls.alias else ())}


def _name_of(required: Any) -> str:
    if isinstance(required, str):
        return required.replace(":", ".")
    return str(getattr(required, "name", "") or f"{required.__module__}.{required.__qualname__}")
