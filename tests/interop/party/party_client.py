"""A producer of either party: does what lines of JSON on standard input say, answers each with a line of JSON.

Values that JSON cannot tell come back as their ``repr``; samples that it cannot tell are named (``party_app.SAMPLES``).
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from datetime import UTC, datetime, timedelta
from typing import Any

import party_app

if party_app.SIDE == "celeriac":
    from celeriac.exceptions import TimeoutError as ResultTimeout
    from celeriac.result import AsyncResult
else:
    from celery.exceptions import TimeoutError as ResultTimeout
    from celery.result import AsyncResult

APPS: dict[str, Any] = {"{}": party_app.app}


def app_of(settings: dict[str, Any]) -> Any:
    key = json.dumps(settings, sort_keys=True)
    if key not in APPS:
        APPS[key] = party_app.make_app(settings)
    return APPS[key]


def as_signature(app: Any, call: dict[str, Any]) -> Any:
    if "group" in call:
        import celery

        return celery.group([as_signature(app, part) for part in call["group"]], app=app)
    made = app.signature(
        call["task"], args=tuple(call.get("args", ())), kwargs=call.get("kwargs", {}),
        options=options_of(app, call), immutable=call.get("immutable", False),
    )  # fmt: skip
    made._app = app
    return made


def options_of(app: Any, call: dict[str, Any]) -> dict[str, Any]:
    options = dict(call.get("options", {}))
    for name in ("link", "link_error"):
        if name in options:
            options[name] = [as_signature(app, callback) for callback in options[name]]
    if "eta_in" in options:
        options["eta"] = datetime.now(UTC) + timedelta(seconds=options.pop("eta_in"))
    return options


def send(app: Any, calls: list[dict[str, Any]]) -> list[str]:
    ids = []
    for call in calls:
        args = call.get("args", [])
        if "sample" in call:
            args = [party_app.SAMPLES[call["sample"]], *args]
        options = options_of(app, call)
        if call.get("by_name"):
            result = app.send_task(call["task"], args, call.get("kwargs"), **options)
        else:
            result = app.tasks[call["task"]].apply_async(args, call.get("kwargs"), **options)
        RESULTS[result.id] = result  # Celery's rpc results belong to the object that waits for them
        ids.append(result.id)
    return ids


RESULTS: dict[str, Any] = {}


def canvas(app: Any, kind: str, parts: list[dict[str, Any]], body: dict[str, Any] | None) -> dict[str, Any]:
    """Send a chain, group or chord; the ids of its result and of its parts."""
    import celery

    signatures = [as_signature(app, part) for part in parts]
    if kind == "chord":
        result = celery.chord(signatures, app=app)(as_signature(app, body or {}))
        return {"id": result.id, "parts": [child.id for child in result.parent.results]}
    result = getattr(celery, kind)(*signatures, app=app).apply_async()
    if kind == "group":
        return {"id": result.id, "parts": [child.id for child in result.results]}
    ids = []
    node = result
    while node is not None:
        ids.insert(0, node.id)
        node = node.parent
    return {"id": result.id, "parts": ids, "group": [child.id for child in getattr(result, "results", ())]}


def outcome(app: Any, task_id: str, timeout: float) -> dict[str, Any]:
    """What ``get`` and the attributes of the result say."""
    result = RESULTS.get(task_id) or AsyncResult(task_id, app=app)
    told: dict[str, Any] = {"id": task_id}
    try:
        value = result.get(timeout=timeout, propagate=False)
    except ResultTimeout:
        return {**told, "state": result.state, "timeout": True}
    told.update(state=result.state, repr=repr(value), traceback=result.traceback)
    if isinstance(value, BaseException):
        kind = type(value)
        # our exceptions have Celery's names in a module of our own
        module = "celery.exceptions" if kind.__module__ == "celeriac.errors" else kind.__module__
        told.update(error=f"{module}.{kind.__qualname__}", error_args=repr(value.args), text=str(value))
    else:
        told["value"] = as_json(value)
    return told


def as_json(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return None


def meta(app: Any, task_id: str) -> Any:
    found = dict(app.backend.get_task_meta(task_id))
    return {key: as_json(value) if as_json(value) is not None else repr(value) for key, value in found.items()}


def until_state(app: Any, task_id: str, state: str, timeout: float) -> dict[str, Any]:
    """Poll until the task has that state; what it had last, and the information that came with it."""
    ends = time.monotonic() + timeout
    while True:
        found = AsyncResult(task_id, app=app)
        seen = found.state
        if seen == state or time.monotonic() > ends:
            info = found.info
            return {"state": seen, "info": repr(info) if isinstance(info, BaseException) else as_json(info)}
        time.sleep(0.02)


def answer(order: dict[str, Any]) -> Any:
    app = app_of(order.get("settings", {}))
    match order["do"]:
        case "send":
            return send(app, order["calls"])
        case "get":
            ends = time.monotonic() + order["within"]
            return [outcome(app, task_id, max(0.05, ends - time.monotonic())) for task_id in order["ids"]]
        case "canvas":
            return canvas(app, order["kind"], order["parts"], order.get("body"))
        case "meta":
            return meta(app, order["id"])
        case "until":
            return until_state(app, order["id"], order["state"], order["within"])
        case "revoke":
            return app.control.revoke(order["ids"], **order.get("options", {}))
        case "broadcast":
            return as_json(app.control.broadcast(order["command"], reply=True, timeout=60.0, **order["options"]))
        case "inspect":
            nodes = [order["node"]] if "node" in order else None
            return as_json(getattr(app.control.inspect(nodes, timeout=order["within"]), order["what"])())
        case "ladder":  # how many messages rest on it; the management API would tell seconds later
            with app.connection_for_read() as connection:
                names = [f"celery_delayed_{level}" for level in range(28)]
                return sum(connection.default_channel.queue_declare(name, passive=True)[1] for name in names)
        case "samples":
            return {name: repr(value) for name, value in party_app.SAMPLES.items()}
        case "forget":
            AsyncResult(order["id"], app=app).forget()
            return AsyncResult(order["id"], app=app).state
        case unknown:
            raise LookupError(unknown)


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        reply: dict[str, Any] = {"number": order["number"]}
        try:
            reply["answer"] = answer(order)
        except Exception as error:
            kind = type(error)
            reply.update(error=f"{kind.__module__}.{kind.__qualname__}", text=str(error), tb=traceback.format_exc())
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


main()
