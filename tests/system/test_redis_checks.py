"""Workers and ``celeriac check`` look at a real server before they trust it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import redis

from celeriac.clock import SYSTEM_CLOCK
from celeriac.results.redis import RedisStore
from celeriac.settings import Settings
from celeriac.testing.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(private_redis: RedisServer) -> RedisServer:
    return private_redis


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis(port=server.port) as client:
        yield client
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "0")
        client.config_set("appendonly", "yes")
        client.acl_deluser("blind")


def texts(store: RedisStore) -> list[str]:
    found = [f"{finding.level}: {finding.text}" for finding in store.examine()]
    store.close()
    return found


def store_of(server: RedisServer, login: str = "") -> RedisStore:
    return RedisStore(f"redis://{login}127.0.0.1:{server.port}/0", Settings(), SYSTEM_CLOCK)


def test_what_a_server_says_of_itself_is_understood(server: RedisServer, client: redis.Redis):
    assert not texts(store_of(server))
    client.config_set("maxmemory", "100mb")
    assert not texts(store_of(server))
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.config_set("appendonly", "no")
    evicts, keeps = texts(store_of(server))
    assert "allkeys-lru" in evicts
    assert "keeps nothing on disk" in keeps
    client.config_set("save", "3600 1")
    assert len(texts(store_of(server))) == 1
    client.config_set("save", "")


def test_what_may_not_be_asked_is_said(server: RedisServer, client: redis.Redis):
    client.execute_command("ACL", "SETUSER", "blind", "on", ">pw", "~*", "&*", "+@all", "-config")
    (note,) = texts(store_of(server, "blind:pw@"))
    assert note.startswith("note")
    assert "whether it takes snapshots" in note
    client.execute_command("ACL", "SETUSER", "blind", "-info")
    (note,) = texts(store_of(server, "blind:pw@"))
    assert "INFO, CONFIG GET save" in note


class House:
    def __init__(self, folder: Path, server: RedisServer, options: str = "{}") -> None:
        self._folder = folder
        (folder / "checked.py").write_text(
            "from celeriac import Celeriac\n"
            f"app = Celeriac('checked', broker={server.url()!r}, backend={server.url()!r})\n"
            f"app.conf.broker_transport_options = {options}\n"
        )

    def run(self, *arguments: str, timeout: float = 50.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "celeriac", "-A", "checked", *arguments], cwd=self._folder, capture_output=True,
            text=True, timeout=timeout, env={**os.environ, "PYTHONWARNINGS": "default"},
        )  # fmt: skip

    def findings(self, code: int) -> list[dict[str, Any]]:
        done = self.run("check", "--json")
        assert done.returncode == code, done.stdout + done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
        return found


def test_a_broker_that_evicts_is_refused(tmp_path: Path, server: RedisServer, client: redis.Redis):
    client.config_set("maxmemory", "100mb")
    client.config_set("maxmemory-policy", "allkeys-lru")
    house = House(tmp_path, server)
    levels = {(one["level"], one["setting"]) for one in house.findings(1)}
    assert {("error", "broker_url"), ("warning", "result_backend")} <= levels
    done = house.run("worker", "-c", "1", "-P", "solo")
    assert done.returncode != 0
    assert "noeviction" in done.stdout + done.stderr
    assert "allow_eviction" in house.run("report").stdout

    allowed = House(tmp_path, server, "{'allow_eviction': True}")
    assert {one["level"] for one in allowed.findings(0)} == {"warning"}
