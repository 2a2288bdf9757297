"""Bytes that other implementations must understand. Pure: no I/O, no clock, no settings."""
