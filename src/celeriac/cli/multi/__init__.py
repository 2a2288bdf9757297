"""``celeriac multi``: several workers in the background, with Celery's syntax for nodes and options per node."""
