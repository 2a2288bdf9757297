"""Waiting for sockets where ``poll`` is gone."""

from __future__ import annotations

import select
import socket
import time

import pytest

from celeriac.polling import READABLE, WRITABLE, poller


@pytest.fixture(params=[True, False], ids=["poll", "select"])
def poll_exists(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        monkeypatch.delattr(select, "poll")
    exists: bool = request.param
    return exists


def test_what_can_be_read_and_written_is_told(poll_exists: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        waiting = poller()
        assert hasattr(select, "poll") == poll_exists
        waiting.register(ours.fileno(), READABLE)
        began = time.monotonic()
        assert waiting.poll(20) == []
        assert time.monotonic() - began >= 0.015
        theirs.send(b"x")
        assert waiting.poll(None) == [(ours.fileno(), READABLE)]
        waiting.register(ours.fileno(), READABLE | WRITABLE)
        assert waiting.poll(0) == [(ours.fileno(), READABLE | WRITABLE)]
        waiting.unregister(ours.fileno())
        assert waiting.poll(0) == []
