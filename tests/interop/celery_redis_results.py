"""Run by Celery's interpreter: writes, reads and waits for results in Redis as Celery does.

python celery_redis_results.py OPTIONS     OPTIONS: JSON with url, serializer, compression, prefix and steps
"""

import json
import sys

from celery import Celery
from celery.exceptions import TaskRevokedError
from celery.result import GroupResult

RESULTS = {
    "SUCCESS": {"a": [1, 2.5, None, "ü"]},
    "FAILURE": ValueError("boom", 9),
    "RETRY": KeyError("k"),
    "REVOKED": TaskRevokedError("revoked"),
    "STARTED": {"hostname": "h", "pid": 1},
    "PROGRESS": {"done": 3},
}


def main() -> None:
    options = json.loads(sys.argv[1])
    app = Celery("interop", broker="memory://", backend=options["url"])
    app.conf.update(
        result_serializer=options["serializer"], accept_content=["json", "pickle", "yaml", "msgpack"],
        result_compression=options["compression"], result_expires=3600, result_failure_expires=60,
        result_backend_transport_options={"global_keyprefix": options["prefix"]} if options["prefix"] else {},
    )  # fmt: skip
    said = {}
    for step, argument in options["steps"]:
        said[step] = STEPS[step](app, argument)
    print(json.dumps(said))


def write(app: Celery, prefix: str) -> None:
    for state, result in RESULTS.items():
        app.backend.store_result(f"{prefix}-{state}", result, state, traceback="where" if state == "FAILURE" else None)
    result = GroupResult(
        f"{prefix}-group", [app.AsyncResult(f"{prefix}-SUCCESS"), app.AsyncResult(f"{prefix}-FAILURE")]
    )
    result.save(backend=app.backend)


def read(app: Celery, ids: list) -> dict:
    found = {}
    for task_id in ids:
        meta = app.backend.get_task_meta(task_id)
        found[task_id] = {
            "status": meta["status"], "result": repr(meta["result"]), "traceback": meta.get("traceback"),
            "children": meta.get("children") and [repr(child) for child in meta["children"]],
            "date_done": meta.get("date_done"), "task_id": meta.get("task_id"),
        }  # fmt: skip
    return found


def overwrite(app: Celery, ids: list) -> None:
    """What a worker does that got a message twice."""
    for task_id in ids:
        app.backend.store_result(task_id, "again", "STARTED")


def wait(app: Celery, ids: list) -> list:
    print("waiting", file=sys.stderr, flush=True)
    return [repr(app.AsyncResult(task_id).get(timeout=60, propagate=False)) for task_id in ids]


def restore(app: Celery, group_id: str) -> list:
    result = GroupResult.restore(group_id, app=app)
    return [child.id for child in result.results]


STEPS = {"write": write, "read": read, "overwrite": overwrite, "wait": wait, "restore": restore}

if __name__ == "__main__":
    main()
