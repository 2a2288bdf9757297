"""The system's own locks, threads and sockets, as they are before a crew's prelude replaces them.

A child's bootstrap imports this first. The desk and its courier stay with these, so that orders are heeded while a
task keeps a whole process of greenlets from switching. Imports nothing that a prelude would have to come before.
"""

from __future__ import annotations

from _socket import socket as NativeSocket  # noqa: N812 - a class
from _socket import socketpair
from _thread import allocate_lock, get_ident, start_new_thread
from select import poll
from time import sleep

__all__ = ["NativeSocket", "allocate_lock", "get_ident", "poll", "sleep", "socketpair", "start_new_thread"]
