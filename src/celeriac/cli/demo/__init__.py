"""``celeriac demo``: one task per Python file of a folder, run by a real worker process."""
