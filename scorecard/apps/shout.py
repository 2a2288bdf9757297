"""Says to everybody what no client of the product would: raw control requests and events. usage: shout.py < JSON lines

A line: ``{"exchange", "body": base64, "content_type", "headers": {}}``. celeriac only.
"""

from __future__ import annotations

import base64
import json
import sys
import time

import lab_app
from celeriac.wire.envelope import Envelope, Outgoing, Route

broadcast = lab_app.app.transport.broadcast()
for line in sys.stdin:
    said = json.loads(line)
    kind = "topic" if said["exchange"] == "celeryev" else "fanout"
    properties = {"content_type": said["content_type"], "content_encoding": "utf-8"}
    envelope = Envelope(base64.b64decode(said["body"]), said.get("headers", {}), properties)
    broadcast.publish([Outgoing(envelope, Route(said["exchange"], "task.failed", kind))], time.monotonic() + 10)
broadcast.close()
