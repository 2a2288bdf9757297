"""The embedded engines: one SQLite file that is broker and result store, and its likeness in memory."""
