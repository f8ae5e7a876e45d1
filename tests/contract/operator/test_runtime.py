"""The cluster runtime by itself on a real API server, with watches that see nothing."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient

from tierserve.api import GenAIDeployment
from tierserve.observe.agents import AgentReader
from tierserve.plan.placement import place
from tierserve.reconcile import InUse
from tierserve.render.kubernetes.settings import KubeSettings
from tierserve.runtime.kubernetes.apply import KubeRuntime
from tierserve.runtime.kubernetes.client import Cluster
from tierserve.state import Observed

pytestmark = [pytest.mark.slow, pytest.mark.apiserver]


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def blind(apiserver: Any, make_operator: Any, tmp_path: Any) -> AsyncIterator[tuple[KubeRuntime, Clock]]:
    """A runtime whose watches show nothing, and its clock."""
    file = make_operator(tmp_path, apiserver.url, apiserver.certificate, apiserver.token).kubeconfig
    await config.load_kube_config(config_file=str(file))
    async with ApiClient() as client:
        clock, agents = Clock(), AgentReader()
        yield KubeRuntime(Cluster(client), KubeSettings(), lambda *_: [], agents, clock), clock
        await agents.close()


async def test_what_the_watches_do_not_show_is_read_and_not_written_again(blind, kuberay, space, assistant):
    runtime, clock = blind
    space.create(assistant)
    gaid = GenAIDeployment.model_validate(space.get("GenAIDeployment", "assistant"))
    placements = place(gaid)
    await runtime.apply(gaid, runtime.render(gaid, placements), InUse())
    ray = space.get("RayService", "assistant-cloud-default")
    ray["status"] = {"activeServiceStatus": {"applicationStatuses": {"cloud-default": {"status": "RUNNING"}}}}
    code, written = space.server.replace_status(space.path("RayService", "assistant-cloud-default"), ray)
    assert code == 200
    assert (await runtime.observe(gaid)).pools == {}, "a watch may still bring it"
    clock.now += 6.0
    assert (await runtime.observe(gaid)).pools["cloud-default"].app == "RUNNING"
    await runtime.apply(gaid, runtime.render(gaid, placements), InUse())
    after = space.get("RayService", "assistant-cloud-default")["metadata"]["resourceVersion"]
    assert after == written["metadata"]["resourceVersion"]


async def test_objects_no_longer_desired_are_deleted_and_those_of_others_kept(blind, kuberay, space, assistant):
    runtime, _ = blind
    space.create(assistant)
    gaid = GenAIDeployment.model_validate(space.get("GenAIDeployment", "assistant"))
    desired = runtime.render(gaid, place(gaid))
    await runtime.apply(gaid, desired, InUse())
    foreign = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "name": "mine", "namespace": space.name, "labels": {"tierserve.io/deployment": "assistant"}}}  # fmt: skip
    space.create(foreign)
    rest = tuple(one for one in desired if one["metadata"]["name"] != "assistant-cloud-default")
    await runtime.apply(gaid, rest, InUse())
    assert space.names("RayService") == {"assistant-device-default", "assistant-edge-default"}
    assert "mine" in space.names("ConfigMap")


async def test_a_pool_that_is_in_use_outlives_its_tier_until_gateways_have_left_it(blind, kuberay, space, assistant):
    runtime, clock = blind
    space.create(assistant)
    gaid = GenAIDeployment.model_validate(space.get("GenAIDeployment", "assistant"))
    desired = runtime.render(gaid, place(gaid))
    await runtime.apply(gaid, desired, InUse())
    before = space.get("ConfigMap", "assistant-gateway")["metadata"]["resourceVersion"]

    renamed = copy.deepcopy(assistant["spec"])
    renamed["tiers"][1]["name"] = "near"
    renamed["routing"] = {"overflow": ["near", "cloud"]}
    space.edit("GenAIDeployment", "assistant", {"spec": renamed})
    gaid = GenAIDeployment.model_validate(space.get("GenAIDeployment", "assistant"))
    desired, old = runtime.render(gaid, place(gaid)), frozenset({"edge-default"})

    await runtime.apply(gaid, desired, InUse(old, hold_routes=True))
    assert space.names("RayService") >= {"assistant-edge-default", "assistant-near-default"}
    assert space.get("ConfigMap", "assistant-gateway")["metadata"]["resourceVersion"] == before, "gateways stay with it"

    await runtime.apply(gaid, desired, InUse(old))
    assert "edge-default" not in space.get("ConfigMap", "assistant-gateway")["data"]["haproxy.cfg"]
    await runtime.apply(gaid, desired, InUse())
    assert "assistant-edge-default" in space.names("RayService"), "what gateways sent before they left is served"
    clock.now += gaid.spec.gateway.response_timeout.value + 1.0
    await runtime.apply(gaid, desired, InUse())
    assert "assistant-edge-default" not in space.names("RayService")


async def test_the_age_of_a_pod_is_by_the_clock_of_the_api_server(blind, kuberay, space, assistant):
    runtime, clock = blind
    space.create(assistant)
    gaid = GenAIDeployment.model_validate(space.get("GenAIDeployment", "assistant"))
    labels = {
        "app.kubernetes.io/managed-by": "tierserve", "tierserve.io/deployment": "assistant",
        "tierserve.io/tier": "edge", "tierserve.io/site": "default",
    }  # fmt: skip
    metadata = {"name": "young", "namespace": space.name, "labels": labels}
    spec = {"containers": [{"name": "main", "image": "none"}]}
    space.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    pod = space.get("Pod", "young")
    pod["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]
    assert space.server.replace_status(space.path("Pod", "young"), pod)[0] == 200
    await runtime.apply(gaid, runtime.render(gaid, place(gaid)), InUse())
    for skew_s in (-3600.0, 3600.0):
        clock.now = time.time() + skew_s
        found = await runtime.observe(gaid)
        assert not any("young" in problem for problem in found.problems), f"operator {skew_s:+.0f} s"

    def is_reported(state: Observed) -> bool:
        return any("young" in problem for problem in state.problems)

    clock.now = time.time() - 3600.0
    until = time.monotonic() + 60.0
    while not is_reported(await runtime.observe(gaid)):
        assert time.monotonic() < until, "a pod that stays without a node is reported, however the clocks differ"
        await asyncio.sleep(1.0)
