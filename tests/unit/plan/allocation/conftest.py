"""Small services to allocate, and the answer by trying everything."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tierserve.api import GenAIDeployment, parse
from tierserve.plan.allocation.candidates import Group, Option, groups_of
from tierserve.plan.energy import energy_of

Made = Callable[..., GenAIDeployment]


def model(name: str, alpha: str = "20ms", quality: float | None = None, weights: str = "14Gi") -> dict[str, Any]:
    one: dict[str, Any] = {
        "name": name,
        "engine": "emulated",
        "memory": {"weights": weights, "perRequest": "512Mi"},
        "profile": {"alpha": alpha, "beta": "50us", "gamma": "100ns"},
        "output": {"tokens": 32},
        "maxConcurrency": 4,
    }
    return one if quality is None else {**one, "quality": quality}


def tier(name: str, kind: str = "cloud", *, most: int = 4, least: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "accelerator": {"preset": "A100-80GB"},
        "replicas": {"min": least, "max": most},
        "price": 2.0,
        "power": {"idle": "80W", "max": "400W"},
        **more,
    }


def service(
    tiers: list[dict[str, Any]],
    models: list[dict[str, Any]] | None = None,
    traffic: list[dict[str, Any]] | None = None,
    objective: dict[str, Any] | None = None,
    routing: dict[str, Any] | None = None,
    **more: Any,
) -> GenAIDeployment:
    traffic = traffic or [{"name": "chat", "input": 128}]
    spec = {
        "objective": {"responseTime": {"percentile": 95, "target": "1500ms"}, **(objective or {})},
        "models": models or [model("m")],
        "tiers": tiers,
        "traffic": traffic,
        "routing": {"defaultClass": traffic[0]["name"], **(routing or {})},
        **more,
    }
    meta = {"apiVersion": "serving.tierserve.io/v1alpha1", "kind": "GenAIDeployment", "metadata": {"name": "s"}}
    return parse({**meta, "spec": spec})


def cheapest(gaid: GenAIDeployment, rate: float) -> float | None:
    """Least money per hour for one class that may go anywhere, by trying every option and number at every site."""
    choices = [_choices(group) for group in groups_of(gaid) for _ in group.sites]
    best = None
    for plan in itertools.product(*choices):
        taken = sum(room for room, _ in plan)
        cost = sum(price for _, price in plan)
        if taken >= rate * (1 - 1e-9) and (best is None or cost < best):
            best = cost
    return best


def _choices(group: Group) -> list[tuple[float, float]]:
    nothing = [(0.0, 0.0)] if group.idle else []
    counts = range(max(1, group.tier.min_replicas), group.tier.max_replicas + 1)
    idle = {"utilisation": 0.0, "rate": 0.0, "slots": 1, "output_tokens": 1.0}
    return nothing + [(_takes(option, r), energy_of(group.tier, r, **idle).cost_per_hour)
                      for option in group.options for r in counts]  # fmt: skip


def _takes(option: Option, replicas: int) -> float:
    return (
        option.room(replicas) / max((use.weight for use in option.uses.values()), default=1.0) if option.uses else 0.0
    )


@pytest.fixture
def made() -> Made:
    """`made(tiers, models, traffic, objective)`: a valid service."""
    return service


@pytest.fixture
def a_model() -> Callable[..., dict[str, Any]]:
    return model


@pytest.fixture
def a_tier() -> Callable[..., dict[str, Any]]:
    return tier


@pytest.fixture
def brute() -> Callable[[GenAIDeployment, float], float | None]:
    return cheapest
