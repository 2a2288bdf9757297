"""What a fuzzer feeds to the AMQP codec, and what must hold: nothing but our own errors, and what is read can be
written and is read the same again.

``python amqp_target.py [libFuzzer options] [corpus]`` fuzzes, guided by coverage, with ``atheris``; :func:`check` tries
one input, whose first byte chooses the reader.
"""

from __future__ import annotations

import contextlib
import struct
import sys
from typing import Any


def load() -> None:
    """Import what is fuzzed; under atheris, instrumented."""
    global Connection, ConnectionClosed, Malformed, Parameters, Publication, Unencodable
    global decode_method, decode_properties, decode_table, encode_method, encode_properties, encode_table, method_frame
    from celeriac.amqp.connection import Connection
    from celeriac.amqp.errors import ConnectionClosed, Malformed, Unencodable
    from celeriac.amqp.frames import method_frame
    from celeriac.amqp.messages import Publication
    from celeriac.amqp.methods import decode_method, encode_method
    from celeriac.amqp.parameters import Parameters
    from celeriac.amqp.properties import decode_properties, encode_properties
    from celeriac.amqp.tables import decode_table, encode_table


def check(data: bytes) -> None:
    """Raises what should not have been raised."""
    if data:
        (table, properties, method, stream, greeting)[data[0] % 5](data[1:])


def same(one: Any, other: Any) -> bool:
    """Equality, for which NaN is NaN."""
    return repr(one) == repr(other)


def table(data: bytes) -> None:
    try:
        found = decode_table(data)
    except Malformed:
        return
    try:
        again = decode_table(encode_table(found)[4:])
    except Unencodable:
        return  # an array of one-byte numbers grows when it is written
    assert same(again, found), (found, again)


def properties(data: bytes) -> None:
    try:
        found, headers = decode_properties(data)
    except Malformed:
        return
    try:
        again = decode_properties(encode_properties(found, headers))
    except Unencodable:
        return
    assert same(again, (found, headers)), (found, headers, again)


def method(data: bytes) -> None:
    try:
        found = decode_method(data)
    except Malformed:
        return
    try:
        again = decode_method(encode_method(found.name, found.arguments))
    except Unencodable:
        return
    assert same(again, found), (found, again)


def opened() -> Any:
    connection = Connection(Parameters(message_limit=5000), 0.0)
    for name, arguments in (
        ("connection.start", {"minor": 9, "mechanisms": "PLAIN"}), ("connection.tune", {"frame_max": 8192}),
        ("connection.open-ok", {}),
    ):  # fmt: skip
        connection.receive(method_frame(0, encode_method(name, arguments)), 0.0)
    for number in (1, 2):
        channel, _ = connection.open_channel()
        connection.receive(method_frame(number, encode_method("channel.open-ok")), 0.0)
        channel.call("queue.declare")
        channel.call("basic.get", {}, "basic.get-ok", "basic.get-empty")
        channel.call("basic.cancel")
    channel.confirm_select()
    channel.publish([Publication("", "k", {}, None, b"x", True)] * 3)
    assert connection.is_open
    return connection


def stream(data: bytes) -> None:
    """Frames on an open connection. The fuzzer does not find end octets and lengths by chance, so they are made: each
    piece is type, channel, length, payload."""
    connection = opened()
    at = 0
    pieces = []
    while at + 3 <= len(data):
        kind, number, length = data[at], data[at + 1] % 4, data[at + 2]
        payload = data[at + 3 : at + 3 + length]
        at += 3 + length
        pieces.append(struct.pack(">BHI", kind, number, len(payload)) + payload + b"\xce")
    together = b"".join(pieces)
    feed(connection, [together])
    slowly = opened()
    feed(slowly, [together[at : at + 5] for at in range(0, len(together), 5)])
    # however it is cut, the same comes out; the texts of errors may tell of cuts
    assert type(slowly.error) is type(connection.error), (slowly.error, connection.error)


def greeting(data: bytes) -> None:
    """The very first bytes, unframed."""
    feed(Connection(Parameters(), 0.0), [data[:3], data[3:]])


def feed(connection: Any, pieces: list[bytes]) -> None:
    for piece in filter(None, pieces):
        connection.receive(piece, 0.0)
    assert connection.error is None or isinstance(connection.error, ConnectionClosed), connection.error
    assert connection.error is None or 0 < len(str(connection.error)) < 1000
    for channel in list(connection._channels.values()):
        assert sum(map(len, channel._chunks)) <= 5000
        for message in channel.inbox:
            with contextlib.suppress(Malformed):
                message.decoded()


if __name__ == "__main__":
    import atheris

    with atheris.instrument_imports(include=["celeriac.amqp"]):
        load()
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
else:
    load()
