"""Publishes messages that no client of the product would: raw bodies and headers. usage: inject.py < JSON lines

A line: ``{"body": base64, "content_type", "content_encoding", "headers": {}, "id"}``; through the product's own
connection, so that it arrives on any broker.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from typing import Any

import lab_app


def celery_sender() -> Any:
    producer = lab_app.app.amqp.producer_pool.acquire(block=True, timeout=10)

    def send(body: bytes, content_type: str, encoding: str, headers: dict[str, Any], task_id: str) -> None:
        producer.publish(
            body, content_type=content_type, content_encoding=encoding, headers=headers, correlation_id=task_id,
            exchange="", routing_key=os.environ.get("LAB_QUEUE", "celery"), retry=True,
        )  # fmt: skip

    return send


def celeriac_sender() -> Any:
    from celeriac.wire.envelope import Envelope, Outgoing, Route

    publisher = lab_app.app.transport.publisher()
    route = Route("", os.environ.get("LAB_QUEUE", "celery"))

    def send(body: bytes, content_type: str, encoding: str, headers: dict[str, Any], task_id: str) -> None:
        envelope = Envelope(
            body, headers,
            {
                "content_type": content_type, "content_encoding": encoding, "correlation_id": task_id,
                "delivery_mode": 2, "priority": 0,
            },
        )  # fmt: skip
        publisher.publish((Outgoing(envelope, route),), time.monotonic() + 10)

    return send


send = celery_sender() if os.environ["LAB_PRODUCT"] == "celery" else celeriac_sender()
for line in sys.stdin:
    bad = json.loads(line)
    send(base64.b64decode(bad["body"]), bad["content_type"], bad["content_encoding"], bad["headers"], bad.get("id", ""))
