"""One suite per seam: what every driver must do. A driver is right when it passes; strangers run the same suites.

Needs pytest, which celeriac itself does not.
"""
