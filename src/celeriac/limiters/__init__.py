"""Where limits of a whole cluster are counted: ``base.py`` is the seam, the rest are drivers, reached by name."""
