"""Suites that every driver of a family must pass, ours and strangers'."""
