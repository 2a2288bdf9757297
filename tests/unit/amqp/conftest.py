"""A broker's side of the conversation, as bytes: for the connection without I/O."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.amqp.channel import Channel
from celeriac.amqp.connection import Connection
from celeriac.amqp.events import Call, Event
from celeriac.amqp.frames import PROTOCOL_HEADER, content_frames, frame_head, method_frame
from celeriac.amqp.methods import Method, decode_method, encode_method
from celeriac.amqp.parameters import Parameters
from celeriac.amqp.properties import encode_properties

START = {"major": 0, "minor": 9, "mechanisms": "PLAIN AMQPLAIN EXTERNAL", "locales": "en_US"}
TUNE = {"channel_max": 2047, "frame_max": 131072, "heartbeat": 60}


class Talk:
    """A connection and its scripted broker. Time stands still unless a test moves ``now``."""

    def __init__(self, **parameters: Any) -> None:
        self.now = 1000.0
        self.core = Connection(Parameters(**parameters), self.now)

    def opened(self, **tune: Any) -> Talk:
        assert self.core.take_output(self.now) == PROTOCOL_HEADER
        self.says("connection.start", **START)
        self.says("connection.tune", **{**TUNE, **tune})
        self.says("connection.open-ok")
        assert self.core.is_open
        self.heard()
        return self

    def channel(self) -> Channel:
        channel, call = self.core.open_channel()
        self.says("channel.open-ok", channel.number)
        assert call.is_done
        self.heard()
        return channel

    def confirming(self) -> Channel:
        channel = self.channel()
        channel.confirm_select()
        self.says("confirm.select-ok", channel.number)
        self.heard()
        return channel

    def says(self, method: str, channel: int = 0, /, **arguments: Any) -> list[Event]:
        """Let the broker say something; what came of it."""
        return self.reads(method_frame(channel, encode_method(method, arguments)))

    def reads(self, data: bytes) -> list[Event]:
        return self.core.receive(data, self.now)

    def heard(self) -> list[Method]:
        """What the broker was told since the last look; content and heartbeats left out."""
        data = self.core.take_output(self.now)
        found: list[Method] = []
        at = 0
        while at < len(data):
            kind, _, length = frame_head(data, at)
            if kind == 1:
                found.append(decode_method(data[at + 7 : at + 7 + length]))
            at += 8 + length
        return found

    @staticmethod
    def content(
        method: str, channel: int, body: bytes, properties: dict[str, Any] | None = None,
        headers: dict[str, Any] | bytes | None = None, frame_max: int = 131072, **arguments: Any,
    ) -> bytes:  # fmt: skip
        """A method with a message, as bytes."""
        raw = encode_properties(properties or {}, headers)
        return method_frame(channel, encode_method(method, arguments)) + b"".join(
            content_frames(channel, raw, body, frame_max - 8)
        )

    def deliver(self, channel: int, tag: int, body: bytes = b"body", **more: Any) -> bytes:
        return self.content(
            "basic.deliver", channel, body, delivery_tag=tag, consumer_tag="me", exchange="e", routing_key="k", **more
        )  # fmt: skip


def calls_in(events: list[Event]) -> list[Call]:
    return [event for event in events if isinstance(event, Call)]


@pytest.fixture
def talk() -> Talk:
    return Talk().opened()


@pytest.fixture
def new_talk() -> type[Talk]:
    return Talk
