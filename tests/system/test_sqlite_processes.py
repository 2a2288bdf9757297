"""The embedded broker between real processes: contention, kills, a full disk."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import BrokerFull
from celeriac.transports.base import ACK, Delivery, Envelope, Outgoing, QueueSpec, Route, Settlement
from celeriac.transports.sqlite import SqliteTransport

pytestmark = pytest.mark.system


class Numbers:
    broker_lease = 30.0
    broker_max_message_bytes = 1 << 24
    task_dead_letter_expires = 86400.0


PRELUDE = """
import json, os, sys, time
from celeriac.clock import SYSTEM_CLOCK
from celeriac.errors import OperationalError
from celeriac.transports.base import ACK, Envelope, Outgoing, QueueSpec, Route, Settlement
from celeriac.transports.sqlite import SqliteTransport

class Numbers:
    broker_lease = 30.0
    broker_max_message_bytes = 1 << 24
    task_dead_letter_expires = 86400.0

path, name = sys.argv[1:3]
transport = SqliteTransport("sqlite:///" + path, Numbers, SYSTEM_CLOCK)
publisher = transport.publisher()

def say(*words):
    os.write(1, (json.dumps(words) + "\\n").encode())

def publish(*texts, patience=10.0):
    batch = [Outgoing(Envelope(text.encode(), {"id": text}, {}), Route("", "q")) for text in texts]
    try:
        publisher.publish(batch, time.monotonic() + patience)
    except OperationalError as error:
        say(type(error).__name__, *texts)
    else:
        say("ok", *texts)
"""

PUBLISH_FOR_EVER = (
    PRELUDE
    + """
number = 0
while True:
    size = number % 5 + 1
    publish(*(f"{name}-{number}-{part}" for part in range(size)))
    number += 1
"""
)

PUBLISH_AND_CONSUME = (
    PRELUDE
    + """
count, total = int(sys.argv[3]), int(sys.argv[4])
consumer = transport.blocking_consumer([QueueSpec(name="q")])
for number in range(count):
    publish(f"{name}-{number}", patience=8.0)
    began = time.monotonic()
    found = consumer.receive(4, 0)
    say("claimed", time.monotonic() - began)
    say("got", *(one.envelope.body.decode() for one in found))
    say("lost", len(consumer.settle([Settlement(one.receipt, ACK) for one in found])))
idle = 0
while idle < 3:
    found = consumer.receive(16, 0.5)
    idle = 0 if found else idle + 1
    say("got", *(one.envelope.body.decode() for one in found))
    say("lost", len(consumer.settle([Settlement(one.receipt, ACK) for one in found])))
consumer.close()
"""
)

FOREIGN_WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
for _ in range(int(sys.argv[2])):
    connection.execute("BEGIN IMMEDIATE")
    print("locked", flush=True)
    time.sleep(float(sys.argv[3]))
    connection.execute("ROLLBACK")
    time.sleep(float(sys.argv[3]))
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True, env=os.environ
    )


def said(process: subprocess.Popen[str]) -> list[list[Any]]:
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    process.stdout.close()
    process.wait(60)
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:  # the kill came in the middle of it
            assert line is lines[-1]
    return found


def integrity(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()


def drain(path: Path) -> list[str]:
    transport = SqliteTransport(f"sqlite:///{path}", Numbers, SYSTEM_CLOCK)
    consumer = transport.blocking_consumer([QueueSpec(name="q")])
    bodies: list[str] = []
    while found := consumer.receive(1000, 0):
        bodies += [one.envelope.body.decode() for one in found]
        assert not consumer.settle([Settlement(one.receipt, ACK) for one in found])
    consumer.close()
    return bodies


def test_every_confirmed_message_survives_the_kill_of_its_publisher(tmp_path: Path) -> None:
    path, chance = tmp_path / "q.sqlite3", random.Random(7)
    confirmed: set[str] = set()
    for attempt in range(12):
        publishers = [start(PUBLISH_FOR_EVER, path, f"{attempt}-{place}") for place in range(2)]
        for process in publishers:
            assert process.stdout is not None
            process.stdout.readline()  # has begun
        time.sleep(chance.uniform(0, 0.15))  # when to kill is the luck that is tested
        for process in publishers:
            process.send_signal(signal.SIGKILL)
        for process in publishers:
            for word, *texts in said(process):
                assert word == "ok"
                confirmed.update(texts)
        assert integrity(path) == "ok"
    found = Counter(drain(path))
    assert len(confirmed) > 100
    assert confirmed <= set(found)
    assert set(found.values()) == {1}
    # a batch is stored wholly or not at all, confirmed or not
    batches = Counter(text.rsplit("-", 1)[0] for text in found)
    assert all(size == int(batch.rsplit("-", 1)[1]) % 5 + 1 for batch, size in batches.items())


def test_four_processes_and_a_foreign_writer(tmp_path: Path) -> None:
    path, count = tmp_path / "q.sqlite3", 150
    warm_up = SqliteTransport(f"sqlite:///{path}", Numbers, SYSTEM_CLOCK).publisher()
    warm_up.publish([Outgoing(Envelope(b"warm-up", {}, {}), Route("", "q"))], time.monotonic() + 10)
    warm_up.close()
    foreign = start(FOREIGN_WRITER, path, 3, 0.7)
    assert foreign.stdout is not None
    assert foreign.stdout.readline() == "locked\n"
    workers = [start(PUBLISH_AND_CONSUME, path, f"w{place}", count, 4 * count) for place in range(4)]
    heard = [line for worker in workers for line in said(worker)]
    assert foreign.wait(60) == 0
    foreign.stdout.close()  # not before: it prints as long as it lives
    assert [worker.returncode for worker in workers] == [0] * 4
    words = Counter(word for word, *_ in heard)
    assert set(words) == {"ok", "claimed", "got", "lost"}, words
    got = Counter(text for word, *texts in heard if word == "got" for text in texts)
    assert set(got) == {"warm-up", *(f"w{place}-{number}" for place in range(4) for number in range(count))}
    assert set(got.values()) == {1}
    assert {line[1] for line in heard if line[0] == "lost"} == {0}
    claims = sorted(line[1] for line in heard if line[0] == "claimed")
    assert claims[len(claims) // 2] < 0.25
    assert drain(path) == []
    assert integrity(path) == "ok"


HOLD = (
    PRELUDE
    + """
Numbers.broker_lease = float(sys.argv[3])
consumer = transport.blocking_consumer([QueueSpec(name="q")])
publish(*map(str, range(10)))
say("got", *(one.envelope.body.decode() for one in consumer.receive(6, 5)))
time.sleep(120)
"""
)


def take_all(path: Path) -> list[Delivery]:
    """The ten messages of a holder, as another process gets them."""
    transport = SqliteTransport(f"sqlite:///{path}", Numbers, SYSTEM_CLOCK)
    consumer = transport.blocking_consumer([QueueSpec(name="q")])
    found: list[Delivery] = []
    ends = time.monotonic() + 20
    while len(found) < 10 and time.monotonic() < ends:
        found += consumer.receive(10, 0.5)
    assert sorted(int(one.envelope.body) for one in found) == list(range(10))
    consumer.close()
    return found


def test_a_killed_holder_is_noticed_before_its_leases_end(tmp_path: Path) -> None:
    path = tmp_path / "q.sqlite3"
    holder = start(HOLD, path, "h", 3600)
    assert holder.stdout is not None
    assert [json.loads(holder.stdout.readline())[0] for _ in range(2)] == ["ok", "got"]
    holder.kill()
    said(holder)
    # in their old order, not blamed: nobody knows which of them had been started
    assert {int(one.envelope.body): one.redelivered for one in take_all(path)} == {n: n < 6 for n in range(10)}


def test_a_stopped_holder_loses_its_messages_when_its_leases_end(tmp_path: Path) -> None:
    path = tmp_path / "q.sqlite3"
    holder = start(HOLD, path, "h", 0.5)
    assert holder.stdout is not None
    assert [json.loads(holder.stdout.readline())[0] for _ in range(2)] == ["ok", "got"]
    holder.send_signal(signal.SIGSTOP)
    try:
        assert {int(one.envelope.body): one.attempt for one in take_all(path)} == {n: int(n < 6) for n in range(10)}
    finally:
        holder.kill()
        said(holder)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_refuses_new_work_and_finishes_the_old(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount here")
    try:
        transport = SqliteTransport(f"sqlite:///{disk}/q.sqlite3", Numbers, SYSTEM_CLOCK)
        publisher = transport.publisher()

        def publish(size: int, number: int) -> None:
            envelope = Envelope(b"%d " % number + b"x" * size, {}, {})
            publisher.publish([Outgoing(envelope, Route("", "q"))], time.monotonic() + 10)

        for number in range(200):
            publish(100, number)
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        accepted = 200
        refused = False
        while not refused:
            try:
                publish(10_000, accepted)
                accepted += 1
            except BrokerFull:
                refused = True
        publisher.close()  # and everything is closed: the worker starts on a full disk
        consumer = transport.blocking_consumer([QueueSpec(name="q")])
        numbers: list[int] = []
        while found := consumer.receive(7, 0):
            numbers += [int(one.envelope.body.split()[0]) for one in found]
            assert not consumer.settle([Settlement(one.receipt, ACK) for one in found])
        assert numbers == list(range(accepted))
        filler.unlink()
        publisher = transport.publisher()
        publish(10_000, 5)
        assert len(consumer.receive(7, 5)) == 1
        consumer.close()
        publisher.close()
        assert integrity(disk / "q.sqlite3") == "ok"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
