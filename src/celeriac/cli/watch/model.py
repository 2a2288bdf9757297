"""What the screen shows and what keys do to it; knows no terminal.

Rates are counted here, since the state of the cluster only knows what is, not how fast it came.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celeriac.rules import states

if TYPE_CHECKING:
    from celeriac.app.cluster import State
    from celeriac.rules.cluster import Task

#: seconds over which rates are averaged
_WINDOW = 5
#: tasks that can be scrolled through
_MOST = 500

#: what ``f`` goes through
FILTERS: tuple[tuple[str, frozenset[str] | None], ...] = (
    ("all", None),
    ("running", frozenset({states.STARTED})),
    ("waiting", frozenset({states.PENDING, states.RECEIVED})),
    ("failed", frozenset({states.FAILURE, states.REVOKED, states.REJECTED})),
    ("retried", frozenset({states.RETRY})),
)

KEYS = "↑↓ select   i info   c revoke   f filter   p pause   e events on/off   q quit"


class Rates:
    """Events per second and type."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._seconds: deque[tuple[int, Counter[str]]] = deque(maxlen=_WINDOW + 1)

    def count(self, kind: str) -> None:
        second = int(self._now())
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, Counter()))
        self._seconds[-1][1][kind] += 1

    def of(self, *kinds: str) -> float:
        """Per second, over the last full seconds."""
        second = int(self._now())
        total = sum(
            sum(counts[kind] for kind in kinds) if kinds else counts.total()
            for at, counts in self._seconds
            if second - _WINDOW <= at < second
        )
        return total / _WINDOW

    def total(self) -> float:
        return self.of()


class Model:
    """The state of the screen. ``act``: sends an order to the workers; what it returns is shown."""

    def __init__(self, state: State, now: Callable[[], float], act: Callable[[str, dict[str, Any]], str]) -> None:
        self.state = state
        self.rates = Rates(now)
        self._act = act
        self.filter = 0
        self.selected: str | None = None  #: id of a task
        self.shows_info = False
        self.is_paused = False
        self.wants_events = False
        self.question: str | None = None
        self.message = ""
        self.is_over = False
        self._order: list[str] = []
        self._frozen: list[Task] | None = None

    def hear(self, event: dict[str, Any]) -> None:
        """Take in an event. Any thread."""
        self.rates.count(event["type"])
        self.state.event(event)

    def tasks(self) -> list[Task]:
        """Those to be shown, the newest first; the selected one is among them if it is known."""
        if self.is_paused and self._frozen is not None:
            return self._frozen
        wanted = FILTERS[self.filter][1]
        found: list[Task] = []
        for _, task in self.state.tasks_by_time():
            if wanted is None or task.state in wanted:
                found.append(task)
                if len(found) >= _MOST:
                    break
        self._order = [task.uuid for task in found]
        self._frozen = found
        return found

    def selected_task(self) -> Task | None:
        return self.state.tasks.get(self.selected) if self.selected else None

    # ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────

    def press(self, key: str) -> None:
        """Do what the key means."""
        if self.question is not None:
            self._answer(key)
            return
        self.message = ""
        match key:
            case "q":
                self.is_over = True
            case "down" | "j":
                self._move(1)
            case "up" | "k":
                self._move(-1)
            case "page down":
                self._move(10)
            case "page up":
                self._move(-10)
            case "home":
                self._move(-_MOST)
            case "end":
                self._move(_MOST)
            case "i" | "enter" | "t" | "r":
                self.shows_info = not self.shows_info and self.selected is not None
            case "escape":
                self.shows_info = False
            case "f":
                self.filter = (self.filter + 1) % len(FILTERS)
            case "p":
                self.is_paused = not self.is_paused
            case "e":
                self.wants_events = not self.wants_events
                self.message = self._act("enable_events" if self.wants_events else "disable_events", {})
            case "c" if self.selected is not None:
                self.question = f"Revoke {self.selected}, and end it if it runs? y/n"
            case _:
                pass

    def _answer(self, key: str) -> None:
        self.question = None
        if key == "y" and self.selected is not None:
            self.message = self._act("revoke", {"task_id": self.selected, "terminate": True, "signal": "SIGTERM"})

    def _move(self, by: int) -> None:
        order = self._order
        if not order:
            return
        if self.selected not in order:
            self.selected = order[0]
            return
        place = order.index(self.selected) + by
        self.selected = order[max(0, min(place, len(order) - 1))]
