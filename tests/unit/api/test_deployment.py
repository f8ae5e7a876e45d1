"""What the other parts ask a deployment: which tiers, models, sites and hardware, with the defaults resolved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tierserve.api import GenAIDeployment, ValidationFailed, parse
from tierserve.api.presets import ACCELERATORS, TIERS

ROOT = Path(__file__).resolve().parents[3]


def deployment(**spec: Any) -> GenAIDeployment:
    base: dict[str, Any] = {
        "objective": {"responseTime": {"target": "1s"}},
        "models": [{"name": "large", "engine": "emulated"}, {"name": "light", "engine": "emulated"}],
        "tiers": [
            {"name": "cloud", "kind": "cloud", "accelerator": {"preset": "A100-80GB"}, "models": ["large"]},
            {"name": "edge", "kind": "edge", "sites": [{"name": "berlin"}, {"name": "lyon"}]},
            {"name": "home", "kind": "device", "models": ["light"]},
        ],
    }
    head = {"apiVersion": "serving.tierserve.io/v1alpha1", "kind": "GenAIDeployment", "metadata": {"name": "assistant"}}
    return parse({**head, "spec": {**base, **spec}})


def names(parts: Any) -> list[str]:
    return [part.name for part in parts]


def test_without_an_order_the_nearest_tier_is_filled_first() -> None:
    assert names(deployment().overflow) == ["home", "edge", "cloud"]


def test_the_order_of_routing_goes_first() -> None:
    assert names(deployment(routing={"overflow": ["cloud"]}).overflow) == ["cloud", "home", "edge"]


@pytest.mark.parametrize(
    ("privacy", "tiers"), [("public", ["edge", "cloud"]), ("site", ["edge"]), ("device", ["home"])]
)
def test_a_private_class_never_sees_a_tier_it_may_not(privacy: str, tiers: list[str]) -> None:
    order = {"overflow": ["edge", "cloud"], "defaultClass": "one"}
    gaid = deployment(traffic=[{"name": "one", "privacy": privacy}], routing=order)
    assert names(gaid.tiers_for(gaid.spec.traffic[0])) == tiers


def test_the_default_class_must_be_written_where_a_class_is_not_public() -> None:
    traffic = [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5, "privacy": "site"}]
    with pytest.raises(ValidationFailed) as caught:
        deployment(traffic=traffic)
    assert [problem.path for problem in caught.value.problems] == ["spec.routing.defaultClass"]
    assert deployment(traffic=traffic, routing={"defaultClass": "b"}).default_class.name == "b"


def test_the_first_class_is_the_default_where_all_are_public() -> None:
    traffic = [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5}]
    assert deployment(traffic=traffic).default_class.name == "a"


def test_a_tier_that_names_no_models_may_run_all() -> None:
    gaid = deployment()
    assert names(gaid.models_of(gaid.tier("edge"))) == ["large", "light"]
    assert names(gaid.models_of(gaid.tier("home"))) == ["light"]


def test_pools_are_named_after_tier_and_site() -> None:
    gaid = deployment()
    assert gaid.tier("edge").pools == ("edge-berlin", "edge-lyon")
    assert gaid.tier("cloud").pools == ("cloud-default",)


def test_network_and_replicas_come_from_the_kind_of_tier() -> None:
    gaid = deployment()
    cloud, edge, home = gaid.spec.tiers
    assert (cloud.rtt_s, edge.rtt_s, home.rtt_s) == (0.040, 0.008, 0.0)
    assert (cloud.max_replicas, edge.max_replicas, home.max_replicas) == (100, 8, 1)
    assert {tier.min_replicas for tier in gaid.spec.tiers} == {1}


def test_a_minimum_above_the_default_maximum_raises_the_maximum() -> None:
    gaid = deployment(tiers=[{"name": "home", "kind": "device", "replicas": {"min": 3}}])
    assert gaid.tier("home").max_replicas == 3


def test_figures_of_the_file_go_before_those_of_the_preset() -> None:
    accelerator = {"preset": "V100-32GB", "memory": "30Gi", "flops": "100T", "perReplica": 2, "reserve": "1Gi"}
    tier = {"name": "cloud", "kind": "cloud", "accelerator": accelerator, "power": {"max": "250W"}, "price": 1.25}
    hardware = deployment(tiers=[tier]).tier("cloud").hardware
    assert (hardware.memory_bytes, hardware.reserve_bytes, hardware.flops) == (30 * 2**30, 2**30, 100e12)
    assert (hardware.max_w, hardware.idle_w, hardware.price, hardware.per_replica) == (250, 40, 1.25, 2)


def test_startup_defaults_depend_on_the_engine() -> None:
    gaid = deployment(tiers=[{"name": "cloud", "kind": "cloud", "startup": "90s"}, {"name": "edge", "kind": "edge"}])
    assert gaid.tier("cloud").startup_s("vllm") == 90
    assert gaid.tier("edge").startup_s("vllm") > gaid.tier("edge").startup_s("emulated")


def test_the_presets_have_the_figures_of_the_paper() -> None:
    assert [ACCELERATORS[name].flops for name in ("A100-80GB", "V100-32GB")] == ["312T", "120T"]
    cloud, edge, device = (TIERS[kind] for kind in ("cloud", "edge", "device"))
    assert (cloud.memory_bytes, cloud.storage_bytes, cloud.rtt_range_s) == (24e12, 25e15, (0.030, 0.050))
    assert (cloud.connections, edge.connections, device.connections) == (500_000, 1_000, 1)
    assert (edge.memory_bytes, edge.rtt_range_s[1], device.rtt_s) == (500e9, 0.010, 0.0)


def test_the_size_class_is_read_from_the_name() -> None:
    large, light = deployment().spec.models
    assert (large.size_class, light.size_class) == ("large", "light")
    assert large.output_bytes == 800
