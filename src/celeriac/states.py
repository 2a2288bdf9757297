"""``celery.states`` under our name, for code that was ported by changing its imports. The facts: rules/states.py."""

from __future__ import annotations

from celeriac.rules.states import (
    ALL_STATES,
    EXCEPTION_STATES,
    FAILURE,
    IGNORED,
    PENDING,
    PRECEDENCE,
    PROPAGATE_STATES,
    READY_STATES,
    RECEIVED,
    REJECTED,
    RETRY,
    REVOKED,
    STARTED,
    SUCCESS,
    UNREADY_STATES,
    precedence,
)
from celeriac.rules.states import State as state

__all__ = [
    "ALL_STATES", "EXCEPTION_STATES", "FAILURE", "IGNORED", "PENDING", "PRECEDENCE", "PROPAGATE_STATES", "READY_STATES",
    "RECEIVED", "REJECTED", "RETRY", "REVOKED", "STARTED", "SUCCESS", "UNREADY_STATES", "precedence", "state",
]  # fmt: skip
