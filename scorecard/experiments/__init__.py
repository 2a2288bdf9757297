"""The experiments, by the number they have in the specification."""

from __future__ import annotations

from scorecard.experiments import (
    brokers,
    control,
    data,
    deploys,
    durability,
    kills,
    limits,
    pools,
    programs,
    results,
    revocations,
    sentinel,
    soak,
    stops,
    times,
    wire,
)
from scorecard.experiments.catalogue import CATALOGUE, Experiment

__all__ = [
    "CATALOGUE",
    "Experiment",
    "brokers",
    "control",
    "data",
    "deploys",
    "durability",
    "kills",
    "limits",
    "pools",
    "programs",
    "results",
    "revocations",
    "sentinel",
    "soak",
    "stops",
    "times",
    "wire",
]
