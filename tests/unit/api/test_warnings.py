"""A field that is set but not acted on is named once; a line of the table that names no field is a mistake."""

from __future__ import annotations

from typing import Any

import pytest

from tierserve.api import parse
from tierserve.api.schema.definition import at, schema
from tierserve.api.warnings import UNUSED, unused_fields

HEAD = {"apiVersion": "serving.tierserve.io/v1alpha1", "kind": "GenAIDeployment", "metadata": {"name": "assistant"}}
MODEL: dict[str, Any] = {"name": "large", "engine": "emulated"}
TIER: dict[str, Any] = {"name": "cloud", "kind": "cloud"}
OBJECTIVE: dict[str, Any] = {"responseTime": {"target": "1s"}}


def paths(**spec: Any) -> list[str]:
    whole = {"objective": OBJECTIVE, "models": [MODEL], "tiers": [TIER]} | spec
    return [problem.path for problem in unused_fields(parse({**HEAD, "spec": whole}))]


def test_a_plain_file_has_none() -> None:
    assert paths() == []


def test_defaults_written_out_are_none() -> None:
    assert paths(objective={**OBJECTIVE, "optimize": "cost"}, gateway={"auth": {"mode": "none"}}) == []


@pytest.mark.parametrize("unused", UNUSED, ids=lambda unused: unused.path)
def test_every_line_names_a_field_of_the_schema(unused: Any) -> None:
    assert at(schema(), unused.path)["description"]


def test_each_is_named_once_at_its_first_place() -> None:
    placed = {**TIER, "placement": {"nodeSelector": {"a": "b"}}}
    assert paths(tiers=[placed, {**placed, "name": "other"}]) == ["spec.tiers[0].placement"]
    vllm = {"name": "other", "engine": "vllm", "source": "hf://org/model"}
    assert paths(models=[MODEL, vllm]) == ["spec.models[1].engine"]


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"cache": {"tier": "cloud"}}, "spec.cache"),
        ({"pipeline": {"input": {"tiers": ["cloud"]}}}, "spec.pipeline"),
        ({"sync": {}}, "spec.sync"),
        ({"guard": {}}, "spec.guard"),
        ({"gateway": {"tls": {}}}, "spec.gateway.tls"),
        ({"gateway": {"auth": {"mode": "apiKey", "secretName": "keys"}}}, "spec.gateway.auth"),
        ({"gateway": {"rateLimits": [{"name": "a", "tokensPerMinute": 1}]}}, "spec.gateway.rateLimits"),
        ({"objective": {**OBJECTIVE, "optimize": "carbon"}}, "spec.objective.optimize"),
        ({"objective": {**OBJECTIVE, "caps": {"power": "1kW"}}}, "spec.objective.caps"),
        ({"models": [{**MODEL, "quality": 0.5}]}, "spec.models[0].quality"),
        ({"traffic": [{"name": "a", "origin": "cloud"}]}, "spec.traffic[0].origin"),
    ],
)
def test_what_is_set_but_not_acted_on_is_named(spec: dict[str, Any], path: str) -> None:
    assert paths(**spec) == [path]
