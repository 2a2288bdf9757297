"""A client that lives as long as its workers: sends tasks of all kinds, reads and forgets their results, revokes and
inspects. usage: live.py PLAN (JSON) {"seed", "threads", "rate", "warm": by how much faster until its first rest}.
celeriac only.

SIGUSR1 makes it rest or go on; it prints ``resting`` when nothing of it is left anywhere. SIGTERM ends it.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import threading
import time
import uuid
from collections import deque
from typing import Any

import lab_app
import record
from celeriac import errors
from celeriac.exceptions import TaskRevokedError

over, rest = threading.Event(), threading.Event()
#: seconds that a result may take; tasks that a cut has left behind come back after a lease
PATIENCE = 90.0
#: results that one thread has not read yet
OPEN = 20
#: seconds after which what was revoked has been seen, and dropped, by a worker
DUE = 12.0
ASKED = ("stats", "active", "reserved", "scheduled", "revoked", "active_queues")

#: kind → task, keyword arguments, options, how often of 100
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any], int]] = {
    "plain": ("lab.mark", {}, {}, 50),
    "slow": ("lab.mark", {"seconds": 0.1}, {}, 10),
    "other": ("lab.mark", {}, {"queue": "other"}, 10),
    "retry": ("lab.flaky", {"times": 2, "countdown": 0.2}, {}, 8),
    "failure": ("lab.fail", {}, {}, 8),
    "later": ("lab.mark", {}, {"countdown": 2.0}, 6),
    "large": ("lab.swallow", {"load": "x" * 300_000}, {}, 4),
    "revoked": ("lab.mark", {}, {"countdown": 6.0}, 4),
}


def sent(number: int, kind: str, task_id: str) -> None:
    """Again and again until it is accepted."""
    task, kwargs, options, _ = KINDS[kind]
    while True:
        began = time.monotonic()
        record.note("invoke", id=task_id, n=number, task=task, queue=options.get("queue", ""))
        try:
            lab_app.app.send_task(task, args=[number], kwargs=kwargs, task_id=task_id, **options)
        except errors.OperationalError as error:
            outcome = "info" if isinstance(error, errors.PublishUnknown) else "fail"
            record.note(outcome, id=task_id, error=repr(error)[:300], seconds=time.monotonic() - began)
            time.sleep(0.2)
        else:
            record.note("ok", id=task_id, seconds=time.monotonic() - began)
            return


def revoked(task_id: str) -> None:
    while True:
        try:
            lab_app.app.control.revoke(task_id)
        except (errors.OperationalError, errors.BackendError):
            time.sleep(0.2)
        else:
            record.note("revoked", id=task_id)
            return


def collected(task_id: str) -> bool:
    """Read it, write down what it is, forget it; whether it is over: what was revoked has an end before its time, and
    gets another one then."""
    found = lab_app.app.AsyncResult(task_id)
    began = time.monotonic()
    state, value = "SUCCESS", None
    while True:
        try:
            value = found.get(timeout=PATIENCE)
        except TaskRevokedError:
            state = "REVOKED"
        except errors.TimeoutError:
            state = "PENDING"
        except (errors.OperationalError, errors.BackendError) as error:
            record.note("interrupted", id=task_id, error=repr(error)[:300])
            if time.monotonic() < began + PATIENCE:
                time.sleep(0.2)
                continue
            state = "?"
        except Exception as error:
            state, value = "FAILURE", f"{type(error).__name__}: {error}"[:300]
        break
    record.note("result", id=task_id, state=state, value=value)
    if state == "REVOKED":
        return False
    while not forgotten(found) and time.monotonic() < began + 2 * PATIENCE:
        time.sleep(0.2)
    return True


def forgotten(found: Any) -> bool:
    try:
        found.forget()
    except (errors.OperationalError, errors.BackendError):
        return False
    return True


def cleared(waiting: deque[tuple[float, str]], *, all_of_them: bool = False) -> None:
    """Forget the results of what was revoked and is due by now."""
    while waiting and (all_of_them or waiting[0][0] < time.monotonic()):
        due, task_id = waiting.popleft()
        time.sleep(max(0.0, due - time.monotonic()))
        while not forgotten(lab_app.app.AsyncResult(task_id)) and not over.wait(0.2):
            pass


def live(index: int, plan: dict[str, Any], at_rest: threading.Semaphore) -> None:
    dice = random.Random(plan["seed"] * 100 + index)
    names, weights = list(KINDS), [kind[3] for kind in KINDS.values()]
    open_: deque[str] = deque()
    waiting: deque[tuple[float, str]] = deque()

    def collect() -> None:
        task_id = open_.popleft()
        if not collected(task_id):
            waiting.append((time.monotonic() + DUE, task_id))

    number = index * 1_000_000
    rate = plan["rate"] * plan["warm"]
    while not over.is_set():
        if rest.is_set():
            while open_:
                collect()
            cleared(waiting, all_of_them=True)
            at_rest.release()
            rate = plan["rate"]
            while rest.is_set() and not over.wait(0.1):
                pass
            continue
        kind = dice.choices(names, weights)[0]
        task_id = str(uuid.UUID(int=dice.getrandbits(128), version=4))
        number += 1
        sent(number, kind, task_id)
        if kind == "revoked":
            revoked(task_id)
        open_.append(task_id)
        if len(open_) >= OPEN:
            collect()
        cleared(waiting)
        over.wait(dice.uniform(0.5, 1.5) * plan["threads"] / rate)
    while open_:
        collect()


def ask() -> None:
    """What an operator's tools do all day."""
    inspect = lab_app.app.control.inspect(timeout=1.0)
    step = 0
    while not over.wait(2.0):
        if rest.is_set():
            continue
        step += 1
        what = ASKED[step % len(ASKED)]
        began = time.monotonic()
        facts: dict[str, Any] = {"what": f"inspect {what}", "limit": 15.0}
        try:
            answers = len(getattr(inspect, what)() or {})
        except (errors.OperationalError, errors.BackendError) as error:
            record.note("call", seconds=time.monotonic() - began, error=repr(error)[:300], **facts)
        else:
            record.note("call", seconds=time.monotonic() - began, count=answers, **facts)


def main() -> None:
    plan = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    signal.signal(signal.SIGUSR1, lambda *_: rest.clear() if rest.is_set() else rest.set())
    at_rest = threading.Semaphore(0)
    threads = [threading.Thread(target=live, args=(index, plan, at_rest)) for index in range(plan["threads"])]
    asker = threading.Thread(target=ask)
    for thread in (*threads, asker):
        thread.start()
    print("ready", flush=True)
    resting = 0
    while not over.is_set():
        if at_rest.acquire(timeout=0.1):
            resting += 1
            if resting == plan["threads"]:
                resting = 0
                print("resting", flush=True)
    for thread in (*threads, asker):
        thread.join(3 * PATIENCE * OPEN)


main()
