"""An AMQP connection without I/O: bytes in, events out; calls in, bytes out; time is an argument.

The shells own the socket. They hand over what they read (:meth:`Connection.receive`), write what
:meth:`Connection.take_output` gives them, and call :meth:`Connection.tick` when :meth:`Connection.next_tick` is due.
Nothing but events leaves ``receive``, whatever the peer sends.
"""

from __future__ import annotations

from struct import error as struct_error
from typing import TYPE_CHECKING, Any

from celeriac.amqp.channel import Channel
from celeriac.amqp.errors import (
    AmqpError,
    ConnectFailed,
    ConnectionClosed,
    ConnectionLost,
    LoginRefused,
    Malformed,
    NotAmqp,
    ProtocolViolation,
    VhostRefused,
)  # fmt: skip
from celeriac.amqp.events import Blocked, Call, ConnectionEnded, Unblocked
from celeriac.amqp.frames import (
    ACK,
    ACK_BYTES,
    BODY,
    DELIVER,
    END,
    FRAME_HEAD_BYTES,
    FRAME_MIN_BYTES,
    FRAME_OVERHEAD_BYTES,
    HEADER,
    HEARTBEAT,
    HEARTBEAT_FRAME,
    METHOD,
    PROTOCOL_HEADER,
    frame_head,
    method_frame,
)  # fmt: skip
from celeriac.amqp.methods import Method, decode_method, encode_method
from celeriac.amqp.tables import encode_table

if TYPE_CHECKING:
    from celeriac.amqp.events import Event
    from celeriac.amqp.parameters import Parameters

#: while the peer has not told its limits
_FRAME_MAX_BEFORE_TUNE = 131072


class Connection:
    """State of a connection. Not thread-safe."""

    def __init__(self, parameters: Parameters, now: float) -> None:
        self.parameters = parameters
        #: what is to be written, in order
        self.pieces: list[bytes] = [PROTOCOL_HEADER]
        #: bytes of a message that fit into one body frame
        self.body_limit = FRAME_MIN_BYTES - FRAME_OVERHEAD_BYTES
        self.message_limit = parameters.message_limit
        #: why it is over; None while it is usable
        self.error: ConnectionClosed | None = None
        #: why the broker takes no messages; None while it does
        self.blocked_reason: str | None = None
        self.server_properties: dict[str, Any] = {}
        #: seconds; 0: none
        self.heartbeat = 0.0
        #: done when the virtual host is open
        self.opening = Call("connection.open", ("connection.open-ok",))
        self._stage = "start"
        self._calls: list[Call] = []
        self._channels: dict[int, Channel] = {}
        self._channel_max = 0
        self._payload_limit = _FRAME_MAX_BEFORE_TUNE - FRAME_OVERHEAD_BYTES
        #: what came of a frame that is not whole yet, how much that is, and how much makes it worth a look
        self._parts: list[bytes] = []
        self._held_bytes = 0
        self._wanted_bytes = 1
        self._read_at = self._written_at = now
        self._consumer_tags: dict[bytes, str] = {}
        self._places: dict[bytes, tuple[str, str]] = {}

    @property
    def is_open(self) -> bool:
        return self._stage == "open" and self.error is None

    def heard_since(self, moment: float) -> bool:
        """Whether the broker has said anything after ``moment``."""
        return self._read_at > moment

    @property
    def is_blocked(self) -> bool:
        return self.blocked_reason is not None

    # ── what we say ──────────────────────────────────────────────────────────────────────────────────────────

    def take_output(self, now: float) -> bytes:
        """What is to be written now. The caller writes it, whole and before what it takes later."""
        pieces = self.pieces
        if not pieces:
            return b""
        self.pieces = []
        self._written_at = now
        return b"".join(pieces)

    def open_channel(self) -> tuple[Channel, Call]:
        """A new channel; it is usable once the call is done."""
        self._check()
        number = next((number for number in range(1, self._channel_max + 1) if number not in self._channels), 0)
        if not number:
            raise AmqpError(f"All {self._channel_max} channels of the connection are in use.")
        channel = self._channels[number] = Channel(self, number)
        return channel, channel.call("channel.open")

    def update_secret(self, secret: str, reason: str) -> Call:
        """Hand over a new password, for brokers whose passwords expire."""
        self._check()
        return self._call("connection.update-secret", {"new_secret": secret, "reason": reason})

    def close(self, code: int = 200, text: str = "bye") -> Call:
        """Say good-bye. The call is done when the broker answers or the connection ends."""
        if self._stage == "closing" and self._calls:
            return self._calls[-1]
        self._check()
        call = self._call("connection.close", {"reply_code": code, "reply_text": text})
        self._stage = "closing"
        return call

    def _call(self, name: str, arguments: dict[str, Any]) -> Call:
        call = Call(name, (name + "-ok",))
        self._calls.append(call)
        self._send(name, arguments)
        return call

    def _send(self, name: str, arguments: dict[str, Any] | None = None) -> None:
        self.pieces.append(method_frame(0, encode_method(name, arguments)))

    def _check(self) -> None:
        if self.error is not None:
            raise self.error.again()
        if self._stage != "open":
            raise ConnectionClosed(0, "The connection is not open.")

    def forget(self, channel: Channel) -> None:
        """The channel is closed on both sides; its number is free."""
        self._channels.pop(channel.number, None)

    # ── what we hear ─────────────────────────────────────────────────────────────────────────────────────────

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take in what was read; empty: the peer has closed the socket."""
        events: list[Event] = []
        if self.error is not None:
            return events
        if not data:
            self.lost("The broker closed the connection without a word.", events)
            return events
        self._read_at = now
        self._parts.append(data)
        self._held_bytes += len(data)
        if self._held_bytes < self._wanted_bytes:
            return events
        if len(self._parts) > 1:
            data = b"".join(self._parts)
        try:
            rest = data[self._frames(data, events) :]
            self._parts = [rest] if rest else []
            self._held_bytes = len(rest)
        except ConnectionClosed as error:
            self._give_up(error, events)
        except (Malformed, IndexError, struct_error, UnicodeDecodeError) as error:
            reason = str(error) if isinstance(error, Malformed) else "A frame ends in the middle of a value."
            self._give_up(ProtocolViolation(501, f"The broker broke the protocol: {reason}"), events)
        return events

    def _frames(self, data: bytes, events: list[Event]) -> int:
        """Work through the whole frames in ``data``; where the rest begins."""
        at = 0
        self._wanted_bytes = 1
        last_head = len(data) - FRAME_OVERHEAD_BYTES
        if self._stage == "start":
            self._check_greeting(data)
        while at <= last_head:
            kind, number, length = frame_head(data, at)
            if length > self._payload_limit:
                raise ProtocolViolation(
                    501, f"The broker sent a frame of {length} bytes; {self._payload_limit} is the limit."
                )
            start = at + FRAME_HEAD_BYTES
            end = start + length
            if end >= len(data):
                self._wanted_bytes = end + 1 - at
                break
            if data[end] != END:
                raise ProtocolViolation(501, "The broker sent a frame without its end.")
            at = end + 1
            if number:
                channel = self._channels.get(number)
                if channel is None:
                    raise ProtocolViolation(504, f"The broker sent a frame on channel {number}, which is not open.")
                if kind == METHOD:
                    payload = data[start:end]
                    if payload.startswith(DELIVER):
                        channel.on_deliver(payload, self._consumer_tags, self._places)
                    elif length == ACK_BYTES and payload.startswith(ACK):
                        channel.on_ack(payload, events)
                    else:
                        channel.on_method(decode_method(payload), events)
                elif kind == HEADER:
                    channel.on_header(data[start:end], events)
                elif kind == BODY:
                    channel.on_body(data[start:end], events)
                else:
                    raise ProtocolViolation(501, f"The broker sent a frame of the unknown type {kind}.")
            elif kind == METHOD:
                self._on_method(decode_method(data[start:end]), events)
                if self.error is not None:
                    return len(data)
            elif kind != HEARTBEAT:
                raise ProtocolViolation(501, f"The broker sent a frame of type {kind} on channel 0.")
        return at

    def _check_greeting(self, data: bytes) -> None:
        """The first bytes tell whether this is AMQP 0-9-1 at all."""
        where = self.parameters.address
        if data.startswith(b"AMQP"[: len(data)]):
            if len(data) < len(PROTOCOL_HEADER):
                return
            raise NotAmqp(0, f"The broker at {where} does not speak AMQP 0-9-1; it offers {data[4:8].hex('.')}.")
        if not data.startswith(b"\x01\x00\x00"[: len(data)]):
            hint = " It may want TLS: amqps://" if data[0] == 0x15 else ""  # an alert of TLS
            raise NotAmqp(
                0, f"What answers at {where} does not speak AMQP. Check host and port of the broker URL.{hint}"
            )

    def _on_method(self, method: Method, events: list[Event]) -> None:
        name = method.name
        if name == "connection.close":
            self._on_close(method, events)
        elif name == "connection.blocked":
            self.blocked_reason = method["reason"]
            events.append(Blocked(method["reason"]))
        elif name == "connection.unblocked":
            self.blocked_reason = None
            events.append(Unblocked())
        elif self._calls and name in self._calls[0].expects:
            call = self._calls.pop(0)
            call.reply = method
            events.append(call)
            if name == "connection.close-ok":
                self._end(ConnectionClosed(0, "The connection is closed."), events)
        elif self._stage == "closing":
            return
        elif (self._stage, name) not in _STEPS:
            raise ProtocolViolation(503, f"The broker sent {name} out of turn.")
        else:
            _STEPS[self._stage, name](self, method, events)

    def _on_start(self, method: Method, events: list[Event]) -> None:
        parameters = self.parameters
        offered = method["mechanisms"].split()
        mechanism = parameters.login_method
        self.server_properties = method["server_properties"]
        if (method["major"], method["minor"]) != (0, 9):
            raise NotAmqp(0, f"The broker at {parameters.address} does not speak AMQP 0-9-1.")
        if mechanism not in offered:
            raise LoginRefused(
                0,
                f"The broker at {parameters.address} does not offer the login method {mechanism}, but "
                f"{', '.join(offered)}. Set broker_login_method to one of them.",
            )
        self._send("connection.start-ok", {
            "client_properties": parameters.client_properties, "mechanism": mechanism,
            "response": _credentials(mechanism, parameters.username, parameters.password), "locale": "en_US",
        })  # fmt: skip
        self._stage = "login"

    def _on_tune(self, method: Method, events: list[Event]) -> None:
        parameters = self.parameters
        frame_max = max(FRAME_MIN_BYTES, _smaller(method["frame_max"], parameters.frame_max))
        self._channel_max = _smaller(method["channel_max"], parameters.channel_max)
        heartbeat = -int(-parameters.heartbeat // 1) and _smaller(method["heartbeat"], -int(-parameters.heartbeat // 1))
        self.heartbeat = float(heartbeat)
        self._payload_limit = self.body_limit = frame_max - FRAME_OVERHEAD_BYTES
        self._send("connection.tune-ok", {
            "channel_max": self._channel_max, "frame_max": frame_max, "heartbeat": heartbeat
        })  # fmt: skip
        self._send("connection.open", {"virtual_host": parameters.vhost})
        self._stage = "vhost"

    def _on_open_ok(self, method: Method, events: list[Event]) -> None:
        self._stage = "open"
        self.opening.reply = method
        events.append(self.opening)

    def _on_close(self, method: Method, events: list[Event]) -> None:
        self._send("connection.close-ok")
        self._end(self._explained(method["reply_code"], method["reply_text"]), events)

    def _explained(self, code: int, text: str) -> ConnectionClosed:
        """While it is being set up, the stage tells what the broker did not like."""
        parameters = self.parameters
        if self._stage == "login":
            return LoginRefused(
                code,
                f"The broker at {parameters.address} refused the login of the user {parameters.username!r}. Check user "
                f"and password in the broker URL, and broker_login_method. It said: {text}",
            )
        if self._stage == "vhost":
            return VhostRefused(
                code,
                f"The broker at {parameters.address} refused the virtual host {parameters.vhost!r} to the user "
                f"{parameters.username!r}. Check the path of the broker URL, and the user's permissions. "
                f"It said: {text}",
            )
        if self._stage == "start":
            return ConnectFailed(code, f"The broker at {parameters.address} refused the connection: {text}")
        return ConnectionClosed(code, text)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────

    def lost(self, reason: str, events: list[Event]) -> None:
        """The socket is gone."""
        if self.error is not None:
            return
        error: ConnectionClosed
        if self._stage in ("login", "vhost"):
            error = self._explained(0, "nothing, it closed the connection")
        elif self._stage == "start":
            where = self.parameters.address
            error = ConnectFailed(
                0,
                f"The connection to {where} ended before the broker said a word: {reason} Check that host and port of "
                "the broker URL are those of AMQP, and whether it wants TLS (amqps://).",
            )
        else:
            error = ConnectionLost(0, reason)
        self._end(error, events)

    def _give_up(self, error: ConnectionClosed, events: list[Event]) -> None:
        """The peer cannot be talked to any more; tell it why, as far as it listens."""
        if self._stage == "open":
            self._send("connection.close", {"reply_code": error.code, "reply_text": error.text[:200]})
        self._end(error, events)

    def _end(self, error: ConnectionClosed, events: list[Event]) -> None:
        self.error = error
        self._parts = []
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.fail(error, events)
        calls, self._calls = self._calls, []
        for call in [self.opening, *calls]:
            if not call.is_done:
                call.error = error
                events.append(call)
        events.append(ConnectionEnded(error))

    # ── heartbeats ───────────────────────────────────────────────────────────────────────────────────────────

    def tick(self, now: float) -> list[Event]:
        """Say that we live, and find out whether the peer does."""
        events: list[Event] = []
        if not self.heartbeat or self.error is not None:
            return events
        if now - self._read_at >= 2 * self.heartbeat:
            self.lost(f"The broker has been silent for {now - self._read_at:.0f} seconds.", events)
        elif now - self._written_at >= self.heartbeat / 2:
            self.pieces.append(HEARTBEAT_FRAME)
        return events

    def next_tick(self) -> float | None:
        """When :meth:`tick` has something to do; None: never."""
        if not self.heartbeat or self.error is not None:
            return None
        return min(self._written_at + self.heartbeat / 2, self._read_at + 2 * self.heartbeat)


def _smaller(theirs: int, ours: int) -> int:
    """Zero means no limit."""
    return min(theirs, ours) if theirs and ours else theirs or ours


def _credentials(mechanism: str, username: str, password: str) -> bytes:
    if mechanism == "PLAIN":
        return b"\0%b\0%b" % (username.encode(), password.encode())
    if mechanism == "AMQPLAIN":
        return encode_table({"LOGIN": username, "PASSWORD": password})[4:]
    return b""  # EXTERNAL: the certificate says who we are


_STEPS = {
    ("start", "connection.start"): Connection._on_start,
    ("login", "connection.tune"): Connection._on_tune,
    ("vhost", "connection.open-ok"): Connection._on_open_ok,
}
