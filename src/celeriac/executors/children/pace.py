"""How fast each task has been lately, and how many requests a child may therefore be given ahead. Pure."""

from __future__ import annotations

#: seconds of work that a child may be given ahead: what the parent may be busy with something else
AHEAD = 0.005
#: seconds: tasks up to this long are given a few ahead all the same
MODERATE = 0.010
MODERATE_AHEAD = 4

#: a run that is slower than expected counts more than one that is faster: waiting behind it is what hurts
_UP = 0.5
_DOWN = 0.1

#: task names come from the user's registry, but a wrong message must not grow this without bound
_MAX_NAMES = 10_000


class Paces:
    """Smoothed run times by task name."""

    __slots__ = ("_look_ahead", "_paces", "typical")

    def __init__(self, look_ahead: int) -> None:
        self._look_ahead = look_ahead
        self._paces: dict[str, float] = {}
        #: smoothed run time of whatever ran last; ``None``: nothing has run
        self.typical: float | None = None

    def learn(self, name: str, runtime: float) -> None:
        """One run of ``name`` took, or has already taken, ``runtime`` seconds."""
        paces = self._paces
        pace = paces.get(name)
        if pace is None:
            if len(paces) >= _MAX_NAMES:
                paces.clear()
            pace = runtime
        else:
            pace += (runtime - pace) * (_UP if runtime > pace else _DOWN)
        paces[name] = pace
        self.typical = pace

    def learn_all(self, name: str, count: int, total: float, slowest: float) -> None:
        """``count`` runs have taken ``total`` seconds together. As learning one by one, unless one was slow."""
        if count:
            pace = self._paces.get(name)
            mean = total / count
            if pace is not None and slowest < MODERATE:
                # what is left of the old pace after so many steps
                pace = mean + (pace - mean) * (1.0 - (_UP if mean > pace else _DOWN)) ** count
                self._paces[name] = self.typical = pace
            else:
                self.learn(name, slowest if slowest >= MODERATE else mean)

    def ahead(self, name: str) -> int:
        """How many requests of this task a child may hold beyond its slots."""
        return self._ahead(self._paces.get(name))

    def typical_ahead(self) -> int:
        """The same for a request whose task is not known yet."""
        return self._ahead(self.typical)

    def _ahead(self, pace: float | None) -> int:
        if pace is None or pace >= MODERATE:
            return 0
        fits = int(AHEAD / pace) if pace else self._look_ahead
        return min(self._look_ahead, max(MODERATE_AHEAD, fits))
