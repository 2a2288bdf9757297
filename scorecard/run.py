"""Runs experiments one after the other, each on a workbench of its own, and keeps what they found."""

from __future__ import annotations

import importlib
import shutil
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from celeriac.testing.servers import RabbitServer, ServerMissing
from scorecard.experiments.catalogue import judge
from scorecard.lab import Lab, OutOfTime
from scorecard.sites import RabbitSite, RedisSite, SqliteSite, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

    from scorecard.experiments import Experiment
    from scorecard.products import Product
    from scorecard.sites import Site

Verdict = Literal["pass", "fail", "error", "skipped"]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One experiment on one broker with one product."""

    number: int
    name: str
    broker: str
    broker_version: str = ""
    product: str
    product_version: str = ""
    verdict: Verdict
    seed: int = 0
    quick: bool = False
    seconds: float = 0.0
    numbers: dict[str, Any] = {}
    checks: list[str] = []
    reason: str = ""  #: why it was skipped, or what went wrong with the experiment itself
    kept: str = ""  #: folder with the history and the logs

    @property
    def title(self) -> str:
        return f"{self.number} {self.name} on {self.broker} with {self.product}"


class Runner:
    """Owns what experiments share: the RabbitMQ node, which takes seconds to start."""

    def __init__(self, results: Path, *, quick: bool, seed: int, keep: bool, show: Callable[[str], None]) -> None:
        self._results = results
        self._quick = quick
        self._seed = seed
        self._keep = keep
        self._show = show
        self._node: RabbitServer | None = None
        self._vhosts = 0

    def run(self, experiment: Experiment, broker: str, product: Product) -> Outcome:
        """Never raises, except for KeyboardInterrupt."""
        facts: dict[str, Any] = {
            "number": experiment.number, "name": experiment.name, "broker": broker, "product": product.name,
            "product_version": product.version, "seed": self._seed, "quick": self._quick,
        }  # fmt: skip
        if self._quick and experiment.quick is None:
            return Outcome(verdict="skipped", reason="has no short form", **facts)
        if not speaks(product, broker):
            return Outcome(verdict="skipped", reason=f"{product.name} has no driver for {broker} here", **facts)
        folder = Path(tempfile.mkdtemp(prefix=f"lab{experiment.number}-"))
        began = time.monotonic()
        try:
            outcome = self._try(experiment, broker, product, folder, facts)
        except (ServerMissing, Unsupported) as error:
            outcome = Outcome(verdict="skipped", reason=str(error), **facts)
        outcome = msgspec.structs.replace(outcome, seconds=round(time.monotonic() - began, 1))
        if self._keep or outcome.verdict in ("fail", "error"):
            outcome = msgspec.structs.replace(outcome, kept=self._store(folder, outcome))
        shutil.rmtree(folder, ignore_errors=True)
        return outcome

    def _try(
        self, experiment: Experiment, broker: str, product: Product, folder: Path, facts: dict[str, Any]
    ) -> Outcome:
        title = f"{experiment.number} {experiment.name} on {broker} with {product.name}"
        self._show(title)
        site = self._site(experiment, broker, folder)
        deadline = experiment.deadline(self._quick)
        lab: Lab | None = None
        try:
            version = site.version()
            lab = Lab(
                folder, product, site, seed=self._seed, quick=self._quick, deadline=deadline,
                say=lambda text: self._show(f"{title}: {text}"),
            )  # fmt: skip
            reason = ""
            try:
                experiment.run(lab)
                verdict: Verdict = "pass" if lab.findings.ok else "fail"
            except OutOfTime:
                verdict, reason = "fail", f"not done within {deadline:g} s"
                judge(lab, stored=False)
            except Unsupported:
                raise
            except Exception:
                verdict, reason = "error", traceback.format_exc(limit=-4)
            checks = [str(check) for check in lab.findings.checks]
            return Outcome(
                verdict=verdict, reason=reason, checks=checks, numbers=lab.findings.numbers, broker_version=version,
                **facts,
            )  # fmt: skip
        finally:
            site.keep_logs(folder)
            if lab is not None:
                lab.close()
            else:
                site.close()

    def _site(self, experiment: Experiment, broker: str, folder: Path) -> Site:
        match broker:
            case "sqlite":
                return SqliteSite(folder)
            case "redis":
                return RedisSite(folder, *experiment.redis_options)
            case "rabbitmq":
                self._vhosts += 1
                if experiment.rabbit_configuration:
                    return RabbitSite(folder, _started(experiment.rabbit_configuration), "lab", owns_node=True)
                if self._node is None:
                    self._node = _started("")
                return RabbitSite(folder, self._node, f"lab{self._vhosts}")
        raise ValueError(f"no broker is called {broker!r}")

    def _store(self, folder: Path, outcome: Outcome) -> str:
        """Move what a failure left to the results; where it is."""
        kept = self._results / f"{outcome.number:02}-{outcome.broker}-{outcome.product}"
        shutil.rmtree(kept, ignore_errors=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("*-bells"))  # sockets can't be copied
        (kept / "outcome.json").write_bytes(msgspec.json.format(msgspec.json.encode(outcome)))
        return str(kept)

    def close(self) -> None:
        if self._node is not None:
            self._node.stop()
            self._node = None


def _started(configuration: str) -> RabbitServer:
    node = RabbitServer(configuration)
    try:
        node.start()
    except BaseException:
        node.stop()
        raise
    return node


def speaks(product: Product, broker: str) -> bool:
    """Whether the product has a driver for the broker, as far as can be told without starting anything."""
    if product.name != "celeriac" or broker == "sqlite":
        return True
    module = {"redis": "celeriac.transports.redis.transport", "rabbitmq": "celeriac.transports.amqp.transport"}[broker]
    try:
        importlib.import_module(module)
    except ModuleNotFoundError:
        return False
    return True
