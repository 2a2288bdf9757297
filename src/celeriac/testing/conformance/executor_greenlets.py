"""What every executor whose tasks are greenlets must do besides."""

from __future__ import annotations

from celeriac.testing.conformance.executor_children import ChildrenSuite


class GreenletsSuite(ChildrenSuite):
    """For pools that switch where a patched standard library waits."""
