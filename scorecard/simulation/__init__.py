"""Deterministic simulation: real worker engines over virtual time, and everything around them left to one seed."""
