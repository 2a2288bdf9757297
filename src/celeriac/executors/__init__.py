"""Where tasks run: in child processes, always, except ``inline``."""
