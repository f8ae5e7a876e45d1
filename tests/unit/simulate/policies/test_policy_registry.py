"""All rules by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tierserve.simulate.policies.registry import RULES
from tierserve.simulate.types import Pool, Snapshot

Snap = Callable[..., Snapshot]
Pools = Callable[..., Pool]

NAMES = [
    "static", "paper", "hpa", "keda", "kpa", "aibrix", "ray-serve", "skyserve", "dynamo-throughput", "dynamo-load",
    "dynamo-both", "wva-queue", "wva-saturation", "llm-d-queue", "llm-d-saturation", "llm-d-tokens", "llm-d-slo",
    "kubeai",
]  # fmt: skip


def test_every_rule_is_listed_under_its_name() -> None:
    assert list(RULES) == NAMES
    assert [rule.name for rule in RULES.values()] == NAMES
    assert all(rule.source and rule.title and rule.knob for rule in RULES.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_can_be_tuned_around_its_default(name: str) -> None:
    rule = RULES[name]
    assert 6 <= len(rule.values) <= 9
    assert len(set(rule.values)) == len(rule.values)
    assert name == "static" or rule.default in rule.values


@pytest.mark.parametrize("name", NAMES)
def test_the_values_of_a_knob_run_from_few_replicas_to_many(name: str, snap: Snap, pool: Pools) -> None:
    asked = pool(
        profile=(0.01, 0.001, 0.0), input_tokens=9.0, response_s=1.0, ttft_s=0.05, itl_s=0.03, max_replicas=500
    )
    wanted = [_after_ten_minutes(RULES[name].make(asked, value), snap) for value in RULES[name].values]
    assert wanted == sorted(wanted)
    assert wanted[0] < wanted[-1]


def _after_ten_minutes(policy: object, snap: Snap) -> int:
    """What a rule wants after ten minutes of 800 requests per second on 20 replicas that stay as they are."""
    answer, t = -1, 0.0
    while t < 600.0:
        t += policy.interval_s  # type: ignore[attr-defined]
        seen = snap(
            t, 20, batch=6.5, waiting=0.2, arrivals=800 * t, completions=800 * t, first_tokens=800 * t,
            ttft_sum_s=24 * t, itl_sum_s=18 * t, response_sum_s=160 * t, input_tokens=7200 * t, output_tokens=7200 * t,
            in_system_s=134 * t, running_s=130 * t, replica_s=20 * t,
        )  # fmt: skip
        answer = policy.decide(seen)  # type: ignore[attr-defined]
        if isinstance(answer, int) and answer != 20 and t > 300.0:
            return answer
    return answer
