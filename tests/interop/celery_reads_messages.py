"""Runs under an interpreter that has Celery: reads our messages and records with Celery's own code.

Standard input: JSON ``{"messages": [base64 of envelopes], "records": [[content type, encoding, base64]]}``. Standard
output: what Celery made of them, as reprs. Knows nothing of celeriac.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import kombu.utils.json
from celery import Celery
from celery.worker.request import Request
from celery.worker.strategy import proto1_to_proto2
from kombu.serialization import loads
from kombu.transport.virtual.base import Message

ACCEPT = ["json", "pickle", "yaml", "msgpack"]
app = Celery("reader", broker="memory://", backend="cache+memory://", set_as_current=True)
app.conf.accept_content = ACCEPT


@app.task(name="pkg.add", bind=True)
def add(self: Any, *args: Any, **kwargs: Any) -> Any:
    return self.request.id


def read_message(channel: Any, data: bytes) -> dict[str, Any]:
    message: Any = Message(payload=kombu.utils.json.loads(data), channel=channel, accept=set(content_types()))
    payload = message.decode()
    if "task" in message.headers:
        request = Request(message, app=app)
        args, kwargs, embed = payload
    else:
        body, headers, decoded, utc = proto1_to_proto2(message, payload)
        args, kwargs, embed = body
        request = Request(message, app=app, body=body, headers=headers, decoded=decoded, utc=utc)
    context = request.request_dict
    return {
        "args": repr(list(args)),
        "kwargs": repr(kwargs),
        "embed": {key: repr(embed.get(key)) for key in ("callbacks", "errbacks", "chain", "chord")},
        "id": request.id,
        "name": request.name,
        "eta": None if request.eta is None else request.eta.timestamp(),
        "expires": None if request.expires is None else request.expires.timestamp(),
        "time_limits": list(request.time_limits or ()),
        "correlation_id": request.correlation_id,
        "reply_to": request.reply_to,
        "group": request.group,
        "group_index": request.group_index,
        "retries": context.get("retries"),
        "root_id": request.root_id,
        "parent_id": request.parent_id,
        "argsrepr": request.argsrepr,
        "kwargsrepr": request.kwargsrepr,
        "ignore_result": request.ignore_result,
        "stamps": context.get("stamps"),
        "priority": message.properties.get("priority"),
        "expiration": message.properties.get("expiration"),
        "my": message.headers.get("my"),
    }


def content_types() -> list[str]:
    return ["application/json", "application/x-python-serialize", "application/x-yaml", "application/x-msgpack"]


def read_record(content_type: str, encoding: str, data: bytes) -> dict[str, str]:
    meta = loads(data, content_type, encoding, accept=content_types())
    meta = app.backend.meta_from_decoded(meta)
    result = meta["result"]
    kind = f"{type(result).__module__}.{type(result).__qualname__}" if isinstance(result, BaseException) else ""
    return {**{key: repr(value) for key, value in meta.items()}, "exception": kind}


def main() -> None:
    work = json.load(sys.stdin)
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        messages = [read_message(channel, base64.b64decode(data)) for data in work["messages"]]
    records = [read_record(kind, encoding, base64.b64decode(data)) for kind, encoding, data in work["records"]]
    json.dump({"messages": messages, "records": records}, sys.stdout)


main()
