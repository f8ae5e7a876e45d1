"""Values that do not go together are named, with what would."""

from __future__ import annotations

from typing import Any

from tierserve.api import hints, parse

HEAD = {"apiVersion": "serving.tierserve.io/v1alpha1", "kind": "GenAIDeployment", "metadata": {"name": "assistant"}}


def lines(timeout: str, *tiers: dict[str, Any]) -> list[str]:
    spec = {
        "objective": {"responseTime": {"target": "1s"}},
        "models": [{"name": "large", "engine": "emulated"}],
        "tiers": [{"name": f"t{k}", "kind": "cloud", "startup": "100s", **tier} for k, tier in enumerate(tiers)],
        "gateway": {"queueTimeout": timeout},
    }
    return [problem.format() for problem in hints(parse({**HEAD, "spec": spec}))]


def test_a_queue_timeout_below_the_start_up_time_of_tiers_at_zero_is_a_warning() -> None:
    (words,) = lines("30s", {"replicas": {"min": 0}})
    assert words.startswith("spec.gateway.queueTimeout: ")
    assert "150s" in words


def test_with_patience_or_a_tier_that_stands_ready_there_is_nothing_to_say() -> None:
    assert lines("2m", {"replicas": {"min": 0}}) == []
    assert lines("30s", {"replicas": {"min": 0}}, {"replicas": {"min": 1}}) == []
    assert lines("30s", {"replicas": {"min": 0}}, {"replicas": {"min": 0}, "startup": "20s"}) == []
