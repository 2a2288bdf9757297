"""Workflows as data: signatures and what is built from them."""
