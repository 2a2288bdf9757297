"""The screen of ``celeriac events``."""
