"""``celeriac status``: the queues and what is in them."""
