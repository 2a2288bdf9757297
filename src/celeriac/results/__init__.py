"""Result stores. ``base.py`` is the seam; a driver is reached only by name through :mod:`celeriac.plugins`."""
