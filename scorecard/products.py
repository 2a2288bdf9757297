"""The contenders: celeriac, and Celery through the same app. What differs between their command lines and settings."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

APPS = Path(__file__).resolve().parent / "apps"
SOURCE = Path(__file__).resolve().parent.parent / "src"


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """A library whose workers are put to the test."""

    name: str
    python: str
    module: str
    worker_options: tuple[str, ...] = ()
    #: settings that make the product do its best: what it does by default is said in its own docs
    settings: dict[str, Any] = {}
    #: what a worker logs when it knows that the broker is gone
    lost_words: tuple[str, ...] = ()
    #: where our own code lies
    source: Path = SOURCE

    def environment(self) -> dict[str, str]:
        inherited = dict(os.environ)
        # a make target sets it for the repository's sake; what is installed has its bytecode compiled
        inherited.pop("PYTHONDONTWRITEBYTECODE", None)
        return {**inherited, "LAB_PRODUCT": self.name, **self.search_path(), "PYTHONUNBUFFERED": "1"}

    def search_path(self) -> dict[str, str]:
        path = [str(APPS)] if self.name == "celery" else [str(APPS), str(self.source)]
        return {"PYTHONPATH": os.pathsep.join(path)}

    def worker_command(self, name: str, concurrency: int, pool: str, queues: str, more: tuple[str, ...]) -> list[str]:
        return [
            self.python, "-m", self.module, "-A", "lab_app", "worker", "-n", f"{name}@lab", "-c", str(concurrency),
            "-P", pool, "-l", "INFO", *(("-Q", queues) if queues else ()), *self.worker_options, *more,
        ]  # fmt: skip

    def with_lease(self, seconds: float, broker: str) -> dict[str, Any]:
        """Settings under which a holder that is silent for so long loses what it holds."""
        if self.name == "celery" and broker != "redis":
            return {}  # it has no such time there
        if self.name == "celery":
            return {"broker_transport_options": {"visibility_timeout": seconds}}
        return {"broker_lease": seconds}

    def with_publish_limit(self, seconds: float) -> dict[str, Any]:
        """Settings under which no publish takes longer; nothing where there is no such promise."""
        return {} if self.name == "celery" else {"broker_publish_timeout": seconds}

    @property
    def version(self) -> str:
        return _version(self.python, self.name)


@cache
def _version(python: str, name: str) -> str:
    code = f"from importlib.metadata import version; print(version({name!r}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60.0)
    return done.stdout.strip() or "?"


CELERIAC = Product(
    name="celeriac", python=sys.executable, module="celeriac", lost_words=("broker lost",),
)  # fmt: skip


def celery() -> Product | None:
    """Celery, in the interpreter that the interop tests use, too; None where there is none."""
    python = os.environ.get("CELERIAC_INTEROP_PYTHON")
    if not python or not Path(python).exists():
        return None
    return Product(
        name="celery", python=python, module="celery",
        worker_options=("--without-gossip", "--without-mingle"),
        settings={"task_acks_late": True, "broker_connection_retry_on_startup": True},
        lost_words=("Connection to broker lost", "consumer: Cannot connect"),
    )  # fmt: skip
