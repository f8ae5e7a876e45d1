"""A field that is set but not acted on is named once; a line of the table that names no field is a mistake."""

from __future__ import annotations

from typing import Any

import pytest

from tierserve.api import ValidationFailed, parse
from tierserve.api.schema.crd import at, schema
from tierserve.api.schema.unused import ONLY_PLANNED, UNUSED
from tierserve.api.warnings import unused_fields

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
    written = {**TIER, "placement": {"nodesOnDemand": False}}
    assert paths(objective={**OBJECTIVE, "optimize": {"by": "cost"}}, tiers=[written]) == []


@pytest.mark.parametrize("unused", UNUSED, ids=lambda unused: unused.path)
def test_every_line_names_a_field_of_the_schema(unused: Any) -> None:
    assert at(schema(), unused.path)["description"]


def test_each_is_named_once_at_its_first_place() -> None:
    placed = {**TIER, "placement": {"nodeSelector": {"a": "b"}}}
    assert paths(tiers=[placed, {**placed, "name": "other"}]) == ["spec.tiers[0].placement"]


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"gateway": {"tls": {"secretName": "tls.example.com"}}}, "spec.gateway.tls"),
        ({"objective": {**OBJECTIVE, "optimize": {"by": "carbon"}}}, "spec.objective.optimize.by"),
        ({"models": [{**MODEL, "quality": 0.5}]}, "spec.models[0].quality"),
        ({"traffic": [{"name": "a", "origin": "cloud"}]}, "spec.traffic[0].origin"),
    ],
)
def test_what_is_set_but_not_acted_on_is_named(spec: dict[str, Any], path: str) -> None:
    assert paths(**spec) == [path]


@pytest.mark.parametrize(
    "unused",
    [one for one in UNUSED if one.why.startswith(ONLY_PLANNED) and not one.optimized],
    ids=lambda one: one.path,
)
def test_a_field_that_only_the_planner_reads_is_described_as_such(unused: Any) -> None:
    assert "Only `tierserve plan --best` reads" in at(schema(), unused.path)["description"]


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"cache": {"tier": "cloud"}}, "spec.cache"),
        ({"pipeline": {}}, "spec.pipeline"),
        ({"sync": {}}, "spec.sync"),
        ({"guard": {}}, "spec.guard"),
        ({"routing": {"privacy": "failClosed"}}, "spec.routing.privacy"),
        ({"gateway": {"auth": {"mode": "none"}}}, "spec.gateway.auth"),
        ({"gateway": {"rateLimits": []}}, "spec.gateway.rateLimits"),
        ({"gateway": {"tls": {"secretName": "a", "mutual": True}}}, "spec.gateway.tls.mutual"),
    ],
)
def test_a_field_of_a_feature_that_this_version_lacks_is_refused(spec: dict[str, Any], path: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        paths(**spec)
    assert [problem.path for problem in caught.value.problems] == [path]
    assert caught.value.problems[0].hint
