"""One channel of a connection, without I/O: calls and their answers, messages put together, confirms."""

from __future__ import annotations

from collections import deque
from struct import Struct
from typing import TYPE_CHECKING, Any

from celeriac.amqp.confirms import Batch, Confirms
from celeriac.amqp.errors import ChannelClosed, ConnectionClosed, Malformed, ProtocolViolation, Unencodable
from celeriac.amqp.events import Arrived, Call, CameBack, ChannelEnded, ConsumerEnded
from celeriac.amqp.frames import CONTENT_HEAD_BYTES, content_frames, content_head, method_frame
from celeriac.amqp.messages import CONFIRMED, REJECTED, Fate, Message, Publication
from celeriac.amqp.methods import Method, encode_method, name_of
from celeriac.amqp.properties import encode_properties

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celeriac.amqp.connection import Connection
    from celeriac.amqp.events import Event

_PREFIXES_KEPT = 1024
#: frame head, class and method, tag, bits, end octet of basic.ack and basic.nack
_pack_settlement = Struct(">BHIHHQBB").pack
_BASIC, _ACK, _NACK = 60, 80, 120
_delivery_tag_and_bit = Struct(">QB").unpack_from

#: exchange, routing key, delivery tag, redelivered, consumer tag
_Address = tuple[str, str, int, bool, str]


class Channel:
    """State of a channel. Made by :meth:`Connection.open_channel`."""

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self.number = number
        #: why it is over; None while it is usable
        self.error: ChannelClosed | ConnectionClosed | None = None
        #: messages that came and were not fetched
        self.inbox: deque[Message] = deque()
        self.consumer_tags: set[str] = set()
        #: we closed it and wait for the answer: whatever else comes is of no interest
        self.is_closing = False
        self._calls: deque[Call] = deque()
        self._confirms: Confirms | None = None
        self._prefixes: dict[tuple[str, str, bool], bytes] = {}
        # the message that is being put together
        self._method: Method | None = None
        self._address: _Address | None = None
        self._header: bytes | None = None
        self._body_size = 0
        self._received = 0
        self._chunks: list[bytes] = []

    # ── what we say ──────────────────────────────────────────────────────────────────────────────────────────

    def call(self, name: str, arguments: Mapping[str, Any] | None = None, *expects: str) -> Call:
        """Send a method that is answered, by ``<name>-ok`` or one of ``expects``."""
        self._check()
        call = Call(name, expects or (name + "-ok",))
        payload = encode_method(name, arguments)
        if len(payload) > self.connection.body_limit:
            raise Unencodable(f"The arguments of {name} do not fit into a frame of {self.connection.body_limit} bytes.")
        self.connection.pieces.append(method_frame(self.number, payload))
        self._calls.append(call)
        if name == "channel.close":
            self.is_closing = True
        return call

    def publish(self, publications: Sequence[Publication]) -> Batch:
        """Write a batch, all or nothing. Raises ``Unencodable``. Without confirms it is done when it returns."""
        self._check()
        body_limit = self.connection.body_limit
        number = self.number
        prefixes = self._prefixes
        pieces: list[bytes] = []
        for one in publications:
            prefix = prefixes.get((one.exchange, one.routing_key, one.mandatory))
            if prefix is None:
                prefix = self._prefix(one)
            raw = encode_properties(one.properties, one.headers)
            if len(raw) + CONTENT_HEAD_BYTES > body_limit:
                raise Unencodable(f"Headers of {len(raw)} bytes do not fit into a frame of {body_limit} bytes.")
            pieces.append(prefix)
            pieces += content_frames(number, raw, one.body, body_limit)
        self.connection.pieces += pieces
        if self._confirms is not None:
            return self._confirms.register(publications)
        batch = Batch(publications, 0)
        batch.settle_through(len(publications) - 1, CONFIRMED)
        return batch

    def _prefix(self, one: Publication) -> bytes:
        """The method frame, which publications to one place share."""
        if len(self._prefixes) >= _PREFIXES_KEPT:
            self._prefixes.clear()
        arguments = {"exchange": one.exchange, "routing_key": one.routing_key, "mandatory": one.mandatory}
        frame = method_frame(self.number, encode_method("basic.publish", arguments))
        self._prefixes[one.exchange, one.routing_key, one.mandatory] = frame
        return frame

    def confirm_select(self) -> Call:
        """Ask for confirms; they count from here."""
        if self._confirms is None:
            self._confirms = Confirms()
        return self.call("confirm.select")

    def consume(self, arguments: Mapping[str, Any]) -> Call:
        """``arguments`` names the ``consumer_tag``: deliveries may come before the answer does."""
        call = self.call("basic.consume", arguments)
        self.consumer_tags.add(arguments["consumer_tag"])
        return call

    def ack(self, tag: int, multiple: bool = False) -> None:
        self._check()
        self.connection.pieces.append(_pack_settlement(1, self.number, 13, _BASIC, _ACK, tag, multiple, 0xCE))

    def nack(self, tag: int, requeue: bool, multiple: bool = False) -> None:
        self._check()
        bits = multiple | requeue << 1
        self.connection.pieces.append(_pack_settlement(1, self.number, 13, _BASIC, _NACK, tag, bits, 0xCE))

    def _check(self) -> None:
        if self.error is not None:
            raise self.error.again()
        if self.is_closing:
            raise ChannelClosed(0, "The channel is closed.")

    # ── what we hear ─────────────────────────────────────────────────────────────────────────────────────────

    def on_deliver(self, payload: bytes, consumer_tags: dict[bytes, str], places: dict[bytes, tuple[str, str]]) -> None:
        """basic.deliver, read by hand for speed. The dictionaries remember the names that repeat."""
        if self._address is not None or self._method is not None:
            raise self._violation("a method came in the middle of a message")
        tag_end = 5 + payload[4]
        raw_tag = payload[5:tag_end]
        delivery_tag, redelivered = _delivery_tag_and_bit(payload, tag_end)
        raw_place = payload[tag_end + 9 :]
        consumer_tag = consumer_tags.get(raw_tag)
        if consumer_tag is None:
            consumer_tag = _remember(consumer_tags, raw_tag, name_of(raw_tag))
        place = places.get(raw_place)
        if place is None:
            place = _remember(places, raw_place, _place(raw_place))
        self._address = (place[0], place[1], delivery_tag, redelivered != 0, consumer_tag)

    def on_method(self, method: Method, events: list[Event]) -> None:
        """Any other method but those of the connection."""
        if self._address is not None:
            raise self._violation("a method came in the middle of a message")
        name = method.name
        if name == "channel.close":
            self._on_close(method, events)
        elif self.is_closing and name != "channel.close-ok":
            return
        elif name in ("basic.ack", "basic.nack"):
            self._on_confirm(method, events)
        elif name in ("basic.return", "basic.get-ok"):
            self._method = method
            self._address = (
                method["exchange"], method["routing_key"], method.arguments.get("delivery_tag", 0),
                method.arguments.get("redelivered", False), "",
            )  # fmt: skip
        elif name == "basic.cancel":
            self._on_cancel(method, events)
        elif name == "channel.flow":
            self.connection.pieces.append(
                method_frame(self.number, encode_method("channel.flow-ok", {"active": method["active"]}))
            )
        else:
            self._answer(method, events)

    def _answer(self, method: Method, events: list[Event], message: Message | None = None) -> None:
        # not always the first: RabbitMQ's channel answers basic.qos itself while its queue has still to answer
        # a basic.consume that was sent before
        call = next((call for call in self._calls if method.name in call.expects), None)
        if call is None:
            raise self._violation(f"{method.name} came unasked")
        self._calls.remove(call)
        call.message = message
        call.reply = method
        if method.name == "basic.cancel-ok":
            self.consumer_tags.discard(method["consumer_tag"])
        elif method.name == "channel.close-ok":
            self.connection.forget(self)
            self.fail(ChannelClosed(0, "The channel is closed."), events)
        events.append(call)

    def _on_close(self, method: Method, events: list[Event]) -> None:
        self.connection.pieces.append(method_frame(self.number, encode_method("channel.close-ok")))
        self.connection.forget(self)
        error = ChannelClosed(method["reply_code"], method["reply_text"])
        self.fail(error, events)
        events.append(ChannelEnded(self, error))

    def on_ack(self, payload: bytes, events: list[Event]) -> None:
        """basic.ack, read by hand for speed: every message that is published brings one."""
        if self._address is not None:
            raise self._violation("a method came in the middle of a message")
        if not self.is_closing:
            tag, bits = _delivery_tag_and_bit(payload, 4)
            self._settle(tag, bits & 1 != 0, CONFIRMED, events)

    def _on_confirm(self, method: Method, events: list[Event]) -> None:
        fate = CONFIRMED if method.name == "basic.ack" else REJECTED
        self._settle(method["delivery_tag"], method["multiple"], fate, events)

    def _settle(self, tag: int, multiple: bool, fate: Fate, events: list[Event]) -> None:
        if self._confirms is None:
            raise self._violation("a confirm came without having been asked for")
        done = self._confirms.settle(tag, multiple, fate)
        if done is None:
            raise self._violation("a confirm came for what was never published")
        events.extend(done)

    def _on_cancel(self, method: Method, events: list[Event]) -> None:
        tag = method["consumer_tag"]
        self.consumer_tags.discard(tag)
        if not method["no_wait"]:
            self.connection.pieces.append(
                method_frame(self.number, encode_method("basic.cancel-ok", {"consumer_tag": tag}))
            )
        events.append(ConsumerEnded(self, tag))

    def on_header(self, payload: bytes, events: list[Event]) -> None:
        if self._address is None or self._header is not None:
            raise self._violation("a header came without its method")
        class_id, _, size = content_head(payload, 0)
        if class_id != _BASIC or size >= 1 << 63:
            raise self._violation(f"a header has the class {class_id} and the size {size}")
        self._header = payload[12:]
        self._body_size = size
        if size == 0:
            self._complete(b"", events)

    def on_body(self, payload: bytes, events: list[Event]) -> None:
        if self._header is None:
            raise self._violation("a body came without its header")
        size = self._body_size
        received = self._received + len(payload)
        if received > size:
            raise self._violation("a body is longer than its header says")
        if received == size and not self._chunks and size <= self.connection.message_limit:
            self._complete(payload, events)
            return
        self._received = received
        if size <= self.connection.message_limit:
            self._chunks.append(payload)
        if received == size:
            self._complete(b"".join(self._chunks), events)

    def _complete(self, body: bytes, events: list[Event]) -> None:
        address, header, method = self._address, self._header, self._method
        assert address is not None
        assert header is not None
        oversize = self._body_size if self._body_size > self.connection.message_limit else 0
        message = Message(*address, header, body, oversize)
        self._address = self._header = self._method = None
        if self._received:
            self._received = 0
            self._chunks = []
        if self.is_closing:
            return
        if method is None:
            if not self.inbox:
                events.append(Arrived(self))
            self.inbox.append(message)
        elif method.name == "basic.get-ok":
            self._answer(method, events, message)
        else:
            self._on_return(method, message, events)

    def _on_return(self, method: Method, message: Message, events: list[Event]) -> None:
        fate = Fate("returned", method["reply_code"], method["reply_text"])
        try:
            properties = message.properties
        except Malformed:
            properties = {}
        confirms = self._confirms
        if confirms is None or not confirms.returned(message.exchange, message.routing_key, properties, fate):
            events.append(CameBack(self, message, fate))

    def fail(self, error: ChannelClosed | ConnectionClosed, events: list[Event]) -> None:
        """The channel is over: whoever waits on it is told."""
        if self.error is None:
            self.error = error
        calls, self._calls = self._calls, deque()
        for call in calls:
            call.error = error
            events.append(call)
        if self._confirms is not None:
            events.extend(self._confirms.abandon(error))
        self._chunks = []
        self.consumer_tags.clear()

    def _violation(self, what: str) -> ProtocolViolation:
        return ProtocolViolation(505, f"The broker broke the protocol on channel {self.number}: {what}.")


def _remember(memory: dict[bytes, Any], raw: bytes, value: Any) -> Any:
    if len(memory) >= _PREFIXES_KEPT:
        memory.clear()
    memory[raw] = value
    return value


def _place(raw: bytes) -> tuple[str, str]:
    """Exchange and routing key, two short strings that fill ``raw``. Raises ``IndexError`` or ``Malformed``."""
    exchange_end = 1 + raw[0]
    key_end = exchange_end + 1 + raw[exchange_end]
    if key_end != len(raw):
        raise Malformed("basic.deliver is not as long as its arguments say.")
    return name_of(raw[1:exchange_end]), name_of(raw[exchange_end + 1 :])
