"""``celery.result`` under our name, for code that was ported by changing its imports. The classes: app/result.py."""

from __future__ import annotations

from celeriac.app.group_result import GroupResult, ResultSet
from celeriac.app.result import (
    AsyncResult,
    EagerResult,
    allow_join_result,
    assert_will_not_block,
    denied_join_result,
    result_from_tuple,
)

__all__ = [
    "AsyncResult", "EagerResult", "GroupResult", "ResultSet", "allow_join_result", "assert_will_not_block",
    "denied_join_result", "result_from_tuple",
]  # fmt: skip
