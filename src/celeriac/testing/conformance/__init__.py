"""What every driver must do, as test suites: one per seam, run by us and by the authors of other drivers.

Subclass a suite in a test module and give it a ``driver`` fixture. Capabilities choose the tests.
"""
