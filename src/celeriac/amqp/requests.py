"""What the shells ask of a broker, once for both colours: the arguments of each method, in our words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping


class Request(msgspec.Struct, frozen=True):
    """A method that is answered, by ``<method>-ok`` or by one of ``expects``."""

    method: str
    arguments: Mapping[str, Any]
    expects: tuple[str, ...] = ()


def declare_queue(
    name: str, durable: bool, auto_delete: bool, exclusive: bool, arguments: Mapping[str, Any] | None, passive: bool
) -> Request:
    return Request("queue.declare", {
        "queue": name, "durable": durable, "auto_delete": auto_delete, "exclusive": exclusive, "arguments": arguments,
        "passive": passive,
    })  # fmt: skip


def declare_exchange(
    name: str, kind: str, durable: bool, auto_delete: bool, internal: bool, arguments: Mapping[str, Any] | None,
    passive: bool,
) -> Request:  # fmt: skip
    return Request("exchange.declare", {
        "exchange": name, "type": kind, "durable": durable, "auto_delete": auto_delete, "internal": internal,
        "arguments": arguments, "passive": passive,
    })  # fmt: skip


def bind_queue(queue: str, exchange: str, routing_key: str, arguments: Mapping[str, Any] | None) -> Request:
    return Request("queue.bind", {
        "queue": queue, "exchange": exchange, "routing_key": routing_key, "arguments": arguments
    })  # fmt: skip


def unbind_queue(queue: str, exchange: str, routing_key: str, arguments: Mapping[str, Any] | None) -> Request:
    return Request("queue.unbind", {
        "queue": queue, "exchange": exchange, "routing_key": routing_key, "arguments": arguments
    })  # fmt: skip


def bind_exchange(destination: str, source: str, routing_key: str, arguments: Mapping[str, Any] | None) -> Request:
    return Request("exchange.bind", {
        "destination": destination, "source": source, "routing_key": routing_key, "arguments": arguments
    })  # fmt: skip


def delete_queue(name: str, if_unused: bool, if_empty: bool) -> Request:
    return Request("queue.delete", {"queue": name, "if_unused": if_unused, "if_empty": if_empty})


def delete_exchange(name: str, if_unused: bool) -> Request:
    return Request("exchange.delete", {"exchange": name, "if_unused": if_unused})


def purge_queue(name: str) -> Request:
    return Request("queue.purge", {"queue": name})


def qos(count: int, global_: bool) -> Request:
    return Request("basic.qos", {"prefetch_count": count, "global_": global_})


def get(queue: str, no_ack: bool) -> Request:
    return Request("basic.get", {"queue": queue, "no_ack": no_ack}, ("basic.get-ok", "basic.get-empty"))


def cancel(consumer_tag: str) -> Request:
    return Request("basic.cancel", {"consumer_tag": consumer_tag})


def consume(
    queue: str, consumer_tag: str, no_ack: bool, exclusive: bool, arguments: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The arguments of basic.consume, which :meth:`Channel.consume` sends."""
    return {
        "queue": queue, "consumer_tag": consumer_tag, "no_ack": no_ack, "exclusive": exclusive, "arguments": arguments
    }  # fmt: skip


CLOSE_CHANNEL = Request("channel.close", {"reply_code": 200, "reply_text": "bye"})
