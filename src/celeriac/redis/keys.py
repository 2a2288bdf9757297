"""Every key the Redis broker uses, and what stands in it. Pure.

Celery's own (kombu 5.7; Celery's producers and workers share them with us), ``prefix`` = ``global_keyprefix``:

    <prefix><queue>                                list     what waits, of the most urgent step; the oldest on the right
    <prefix><queue><sep><step>                     list     the other priority steps
    <prefix>_kombu.binding.<exchange>              set      routing key, sep, pattern, sep, queue
    <prefix>_kombu.binding_permanent.<exchange>    set      the same, of queues that do not expire
    <prefix>unacked, <prefix>unacked_index                  what Celery's workers hold; only ``legacy.py`` looks there

Ours, which Celery never reads:

    <prefix>_celeriac.owners                       zset     consumers → when they count as dead (server ms)
    <prefix>_celeriac.held.<owner>                 hash     claim.index.step.queue → the message's bytes
    <prefix>_celeriac.lease.<owner>                zset     the same fields → when the lease ends (server ms)
    <prefix>_celeriac.fence.<owner>                string   the last claim that was given up for lost
    <prefix>_celeriac.settled.<owner>              string   the last settlement that was done
    <prefix>_celeriac.delayed.<queue>              zset     nonce|step|bytes → when it is due (server ms)
    <prefix>_celeriac.wake.<queue>                 zset     one token, for some seconds: "there is something"
    <prefix>_celeriac.bell.<owner>                 zset     as a token, for this one consumer
    <prefix>_celeriac.peek.<list>                  string   the one consumer that watches a list for Celery's producers
    <prefix>_celeriac.served.<queue>               zset     consumers of ours → when they count as dead (server ms)
    <prefix>_celeriac.amnesty                      string   the server was away: nobody counts as dead until it expires
    <prefix>_celeriac.limit.<counter>              string   when the next start is due (µs), or
                                                   zset     holders of permits → when their lease ends (server µs)
    <prefix>_celeriac.queues                       set      names of declared queues
    <prefix><queue>.dead, <prefix><queue>.quarantine
                                                   list     epitaphs (JSON), newest first, for task_dead_letter_expires

A field of ``held`` and the name of its owner are the receipt of a message. Everything but declared queues and what is
in them ends by itself: consumers are struck from the list with the last message they held, the rest has a time to live.

On a cluster all keys of one script must be in one slot, so the prefix must have a hash tag (``{shop}:``).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from celeriac.errors import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Mapping

#: milliseconds that a token which nobody took may wake somebody in vain; as in ``scripts/_common.lua``
TOKEN_MS = 2000

_DEFAULT_STEPS = (0, 3, 6, 9)
_DEFAULT_SEPARATOR = "\x06\x16"
_HIGHEST_PRIORITY = 9


class Place(NamedTuple):
    """One of the lists of a queue."""

    queue: str
    step: int


class Keys:
    """Names keys for one prefix, separator and set of priority steps."""

    def __init__(
        self, prefix: str = "", separator: str = _DEFAULT_SEPARATOR, steps: tuple[int, ...] = _DEFAULT_STEPS
    ) -> None:
        self.prefix = prefix
        self.separator = separator
        self.steps = steps
        ours = f"{prefix}_celeriac."
        self.owners = f"{ours}owners"
        self._served = f"{ours}served."
        self.amnesty = f"{ours}amnesty"
        self.queues = f"{ours}queues"
        self._held = f"{ours}held."
        self._lease = f"{ours}lease."
        self._delayed = f"{ours}delayed."
        self._wake = f"{ours}wake."
        self._bell = f"{ours}bell."
        self._fence = f"{ours}fence."
        self._settled = f"{ours}settled."
        self._peek = f"{ours}peek."
        self._limit = f"{ours}limit."
        self.limit_changes = f"{ours}limits"
        self._binding = f"{prefix}_kombu.binding."
        self._permanent = f"{prefix}_kombu.binding_permanent."
        self._step_of = [max(step for step in steps if step <= level) for level in range(_HIGHEST_PRIORITY + 1)]

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Keys:
        """As ``broker_transport_options`` say. Raises ``ImproperlyConfigured``."""
        separator = options.get("sep", _DEFAULT_SEPARATOR)
        if isinstance(separator, bytes):
            separator = separator.decode("latin-1")
        steps = {0, *options.get("priority_steps", _DEFAULT_STEPS)}
        if not all(isinstance(step, int) and 0 <= step <= _HIGHEST_PRIORITY for step in steps):
            raise ImproperlyConfigured(
                f"broker_transport_options: priority_steps must be whole numbers from 0 to {_HIGHEST_PRIORITY}"
            )
        if not isinstance(separator, str) or not separator:
            raise ImproperlyConfigured("broker_transport_options: sep must be text, and not empty")
        return cls(str(options.get("global_keyprefix") or ""), separator, tuple(sorted(steps)))

    # ── Celery's ─────────────────────────────────────────────────────────────────────────────────────────────────

    def list_of(self, queue: str, step: int = 0) -> str:
        return f"{self.prefix}{queue}{self.separator}{step}" if step else self.prefix + queue

    def lists(self, queue: str) -> list[str]:
        """All lists of a queue, the most urgent first."""
        return [self.list_of(queue, step) for step in self.steps]

    def step_of(self, priority: Any) -> int:
        """The step a message of this priority goes to: the largest one that is not above it."""
        if not isinstance(priority, int):
            return 0
        return self._step_of[min(max(priority, 0), _HIGHEST_PRIORITY)]

    def binding(self, exchange: str) -> str:
        return self._binding + exchange

    def permanent_binding(self, exchange: str) -> str:
        return self._permanent + exchange

    def exchange_of(self, key: str) -> str:
        """The exchange whose bindings stand under ``key``."""
        return key.removeprefix(self._binding)

    # ── ours ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def held(self, owner: str) -> str:
        return self._held + owner

    def lease(self, owner: str) -> str:
        return self._lease + owner

    def fence(self, owner: str) -> str:
        return self._fence + owner

    def settled(self, owner: str) -> str:
        return self._settled + owner

    def peek(self, list_: str) -> str:
        return self._peek + list_

    def limit(self, counter: str) -> str:
        return self._limit + counter

    def served(self, queue: str) -> str:
        return self._served + queue

    def delayed(self, queue: str) -> str:
        return self._delayed + queue

    def wake(self, queue: str) -> str:
        return self._wake + queue

    def bell(self, owner: str) -> str:
        return self._bell + owner

    def buried(self, queue: str, quarantine: bool) -> str:
        return f"{self.prefix}{queue}.{'quarantine' if quarantine else 'dead'}"


# ── members of sets ──────────────────────────────────────────────────────────────────────────────────────────────


def binding_member(keys: Keys, queue: str, routing_key: str, exchange_type: str) -> str:
    """How kombu writes a binding; its producers match the pattern of a topic exchange."""
    pattern = _topic_pattern(routing_key) if exchange_type == "topic" else ""
    return keys.separator.join((routing_key, pattern, queue))


def read_binding(keys: Keys, member: bytes) -> tuple[str, str] | None:
    """(routing key, queue) of a member, or None if it is not one."""
    parts = member.decode("utf-8", "replace").split(keys.separator)
    return (parts[0], parts[2]) if len(parts) == 3 and parts[2] else None


@lru_cache(maxsize=1024)
def _topic_pattern(routing_key: str) -> str:
    words = {"*": r"[^\.]+", "#": r".*?"}
    return "^" + r"\.".join(words.get(word) or re.escape(word) for word in routing_key.split(".")) + "$"


class Field(NamedTuple):
    """A field of a ``held`` hash, taken apart."""

    claim: int
    number: int
    step: int
    queue: str


def read_field(field: str) -> Field:
    claim, index, step, queue = field.split(".", 3)
    return Field(int(claim), int(index), int(step), queue)
