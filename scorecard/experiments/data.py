"""24, 41 and 42: messages that make no sense, messages that are bombs, and servers that lie."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import lzma
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

from scorecard import checkers
from scorecard.experiments.catalogue import LEASE, experiment, judge
from scorecard.fleet import peak_kib
from scorecard.hostile import AMQP, RESP, HostileServer
from scorecard.lab import Lab
from scorecard.sites import RedisSite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scorecard.fleet import Worker

_JSON = "application/json"
#: how much a decompressed message may have, as celeriac has it by default
_LIMIT_MIB = 64


def message(
    body: bytes, *, kind: str = _JSON, encoding: str = "utf-8", task: str = "lab.swallow", **headers: Any
) -> Any:
    """A protocol-2 message; a header of None is left out."""
    task_id = str(uuid.uuid4())
    whole = {
        "lang": "py", "task": task, "id": task_id, "root_id": task_id, "parent_id": None, "group": None, "retries": 0,
        "timelimit": [None, None], "argsrepr": "", "kwargsrepr": "", "origin": "lab", "ignore_result": False,
        "shadow": None, "eta": None, "expires": None, "stamped_headers": None, "stamps": {}, **headers,
    }  # fmt: skip
    left_out = {name for name, value in headers.items() if value is None}
    return {
        "id": task_id, "body": base64.b64encode(body).decode(), "content_type": kind, "content_encoding": encoding,
        "headers": {name: value for name, value in whole.items() if name not in left_out},
    }  # fmt: skip


def call(*args: Any) -> bytes:
    return json.dumps([args, {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]).encode()


def bad_messages() -> dict[str, Any]:
    """What no worker can run."""
    return {
        "no JSON": message(b"\xff\xfe this is not JSON"),
        "truncated JSON": message(b'[[1], {}, {"callba'),
        "not a call": message(b'{"a": 1}'),
        "unknown task": message(call(1), task="lab.nobody"),
        "unknown content type": message(b"nonsense", kind="application/x-nonsense"),
        "unknown compression": message(b"nonsense again", compression="application/x-nonsense"),
        "lies about its compression": message(b"not gzip at all", compression="application/x-gzip"),
        "no headers": message(b"no headers", task=None, id=None),  # type: ignore[arg-type]
    }


@experiment(24, "Bad data, no loss", brokers=("sqlite", "redis", "rabbitmq"), quick=75, full=120)
def bad_data(lab: Lab) -> None:
    """Each kind of nonsense between good tasks: set aside with its bytes, and the others run."""
    worker = lab.worker(concurrency=2)
    pid = worker.pid
    bad = bad_messages()
    lab.send(10, limit=10.0)
    lab.inject(list(bad.values()))
    raw = _inject_raw(lab)
    odd = [message(call(1, 2, 3, 4, 5, 6), task="lab.mark"), _protocol_1()]
    for one in odd:
        lab.note("invoke", id=one["id"], task="lab.mark")
        lab.note("ok", id=one["id"])
    lab.inject(odd)
    lab.send(10, limit=10.0)
    lab.drain(20)
    bodies = {name: base64.b64decode(one["body"]) for name, one in bad.items()}
    lab.until(lambda: not _missing(lab, {**bodies, **raw}), 5)
    missing = _missing(lab, {**bodies, **raw})
    judge(lab)
    lab.findings.add(
        checkers.holds("quarantine", "each is set aside with its bytes", not missing, ", ".join(missing)),
        checkers.holds("alive", "the worker lives", worker.status is None and worker.pid == pid),
        checkers.holds("settled", "nothing goes round in circles", _is_empty(lab), f"{lab.site.outstanding()} left"),
    )
    lab.findings.numbers["kinds"] = len(bodies) + len(raw)


def _protocol_1() -> Any:
    task_id = str(uuid.uuid4())
    whole = {
        "task": "lab.mark", "id": task_id, "args": [7], "kwargs": {}, "retries": 0, "eta": None, "expires": None,
        "utc": True, "callbacks": None, "errbacks": None, "timelimit": [None, None], "taskset": None, "chord": None,
    }  # fmt: skip
    return {
        "id": task_id, "body": base64.b64encode(json.dumps(whole).encode()).decode(), "content_type": _JSON,
        "content_encoding": "utf-8", "headers": {},
    }  # fmt: skip


def _inject_raw(lab: Lab) -> dict[str, bytes]:
    """Elements that are no messages at all, where a broker takes such things."""
    if not isinstance(lab.site, RedisSite):
        return {}
    wrong_base64 = {
        "body": "*** not base64 ***", "content-type": _JSON, "content-encoding": "utf-8", "headers": {},
        "properties": {"body_encoding": "base64", "delivery_info": {"exchange": "", "routing_key": "celery"}},
    }  # fmt: skip
    raw = {"no envelope": b"this is no JSON, either", "bad base64": json.dumps(wrong_base64).encode(), "a list": b"[1]"}
    with closing(lab.site.client) as client:
        for element in raw.values():
            client.lpush("celery", element)
    return raw


def _missing(lab: Lab, bodies: dict[str, bytes]) -> list[str]:
    buried = lab.site.buried()
    return [
        name
        for name, body in bodies.items()
        if not any(body in one or base64.b64encode(body) in one for one in buried)
    ]  # fmt: skip


def _is_empty(lab: Lab) -> bool:
    return lab.until(lambda: lab.site.outstanding() in (0, None), 10)


def bombs(mib: int, codecs: bool) -> Iterator[tuple[str, Any]]:
    """Small messages that want to be large. ``mib``: how large."""
    zeros = bytes(1024 * 1024) * mib
    yield "gzip", message(gzip.compress(zeros, 6), compression="application/x-gzip")
    if codecs:
        yield "bzip2", message(bz2.compress(zeros), compression="application/x-bz2")
        yield "lzma", message(lzma.compress(zeros, preset=1), compression="application/x-lzma")
        with_zstd = _zstd(zeros)
        if with_zstd is not None:
            yield "zstd", message(with_zstd, compression="application/zstd")
    yield "gzip in gzip", message(gzip.compress(gzip.compress(zeros[: 1 << 26])), compression="application/x-gzip")
    yield "JSON 100,000 deep", message(b"[" * 100_000 + b"]" * 100_000)
    yield "a million digits", message(b"[[1, " + b"9" * 1_000_000 + b"], {}, {}]")
    yield "a million keys", message(b"[[1], {" + b",".join(b'"%x":1' % n for n in range(1_050_000)) + b"}, {}]")
    yield "bad UTF-8", message(b'[[1, "\xff\xc0\x80"], {}, {}]')
    yield "msgpack 100,000 deep", message(b"\x91" * 100_000 + b"\xc0", kind="application/x-msgpack", encoding="binary")
    aliases = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))])
    yield "YAML aliases", message(f"[[1, {{{aliases.replace(chr(10), ', ')}}}], {{}}, {{}}]".encode(),
                                  kind="application/x-yaml")  # fmt: skip


def _zstd(data: bytes) -> bytes | None:
    try:
        import zstandard
    except ImportError:
        return None
    return zstandard.ZstdCompressor().compress(data)


@experiment(41, "Bombs", brokers=("sqlite", "redis", "rabbitmq"), quick=90, full=300)
def message_bombs(lab: Lab) -> None:
    """Messages that would take memory, stack or time if somebody believed them."""
    lab.settings["accept_content"] = ["json", "msgpack", "yaml"]
    worker = lab.worker(concurrency=1)
    pid = worker.pid
    lab.send(5, limit=10.0)
    lab.drain(20)
    idle = _family_peak(worker)
    found = dict(bombs(lab.size(150, 1024), codecs=not lab.quick))
    for name, bomb in found.items():
        lab.say(name)
        lab.inject([bomb])
    lab.send(5, limit=10.0)
    lab.drain(10 + len(found))
    bodies = {name: base64.b64decode(bomb["body"]) for name, bomb in found.items()}
    lab.until(lambda: not _missing(lab, bodies), 5)
    missing = _missing(lab, bodies)
    grown = _family_peak(worker) - idle
    judge(lab)
    lab.findings.add(
        checkers.holds("memory", "peak ≤ idle + 3 × limit", grown <= 3 * _LIMIT_MIB, f"{grown:.0f} MiB"),
        checkers.holds("quarantine", "each is set aside with its bytes", not missing, ", ".join(missing)),
        checkers.holds("alive", "the worker lives", worker.status is None and worker.pid == pid),
    )
    lab.findings.numbers.update(bombs=len(found), grown_mib=round(grown))


def _family_peak(worker: Worker) -> float:
    """MiB that the largest process of a worker has had."""
    return max(peak_kib(pid) for pid in (worker.pid, *worker.children())) / 1024


@experiment(42, "Hostile wire", brokers=("redis", "rabbitmq"), quick=150, full=300)
def hostile_wire(lab: Lab) -> None:
    """A client and a worker connect to servers that speak their protocol wrongly."""
    limit = 3.0
    lab.settings.update(lab.product.with_publish_limit(limit))
    manners = RESP if lab.site.name == "redis" else AMQP
    restless = []
    heavy = []
    for one in manners:
        lab.say(one.name)
        with HostileServer(one) as server:
            lab.point_at(server.port)
            worker = lab.worker(f"w-{one.name.replace(' ', '-')}", concurrency=1, wait=0)
            producer = lab.produce(1, limit=limit)[0]
            if producer.wait(lab.left(limit + 12)) is None:
                restless.append(f"{one.name}: the producer hangs")
            if peak_kib(worker.pid) > 400 * 1024:
                heavy.append(f"{one.name}: {peak_kib(worker.pid) // 1024} MiB")
            if worker.stop(lab.left(15)) is None:
                restless.append(f"{one.name}: the worker does not stop")
    lab.point_at(None)
    worker = lab.worker(concurrency=2)
    lab.send(10, limit=10.0)
    lab.drain(LEASE)
    history = judge(lab)
    trusted = [event for event in history.of("ok") if history.invoked[event.id].limit == limit]
    lab.findings.add(
        checkers.holds("ends", "nothing hangs", not restless, "; ".join(restless)),
        checkers.holds("memory", "no process takes 400 MiB", not heavy, "; ".join(heavy)),
        checkers.holds("believed", "no lie is taken for a success", not trusted, f"{len(trusted)} accepted"),
    )
    lab.findings.numbers["manners"] = len(manners)
