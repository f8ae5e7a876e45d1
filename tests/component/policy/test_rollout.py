"""What of a changed service restarts a replica: only what its process is made from (real Ray Serve, real replicas)."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tierserve.api import parse
from tierserve.plan.placement import place
from tierserve.render.serve import ServeTarget, serve_config

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.haproxy]

SERVICE: dict[str, Any] = {
    "apiVersion": "serving.tierserve.io/v1alpha1",
    "kind": "GenAIDeployment",
    "metadata": {"name": "live"},
    "spec": {
        "objective": {"responseTime": {"percentile": 95, "target": "30s"}},
        "traffic": [{"name": "all", "input": 100}],
        "models": [
            {
                # No profile: the roofline estimate depends on the lengths of requests, and the replica emulates it.
                "name": "small",
                "engine": "emulated",
                "memory": {"weights": "2Gi", "perRequest": "64Mi"},
                "output": {"tokens": 4},
                "maxConcurrency": 4,
            },
            {
                "name": "other",
                "engine": "emulated",
                "memory": {"weights": "2Gi", "perRequest": "64Mi"},
                "profile": {"alpha": "10ms"},
                "maxConcurrency": 4,
            },
        ],
        "tiers": [
            {
                "name": "edge",
                "kind": "edge",
                "network": {"rtt": "4ms"},
                "models": ["small"],
                "replicas": {"min": 1, "max": 2},
            }
        ],
        "routing": {"overflow": ["edge"]},
    },
}
POOL = "edge-default"


def changed(path: str, value: Any) -> dict[str, Any]:
    """The service with one more field set; a path like `tiers.0.network.rtt`."""
    document = copy.deepcopy(SERVICE)
    place_of: Any = document["spec"]
    *folders, last = path.split(".")
    for name in folders:
        place_of = place_of[int(name)] if name.isdigit() else place_of.setdefault(name, {})
    place_of[last] = value
    return document


class Rollout:
    """One service in a Serve cluster, deployed the declarative way, as KubeRay and the local runtime do."""

    def __init__(self, url: str, decisions_address: str) -> None:
        from ray.serve.context import _get_global_client

        self.url, self.address, self.client = url, decisions_address, _get_global_client()

    def apply(self, document: dict[str, Any]) -> None:
        from ray.serve.schema import ServeDeploySchema

        gaid = parse(document)
        target = ServeTarget(
            http_host="127.0.0.1", http_port=1, decisions_address=self.address, demand_urls={},
            response_timeout_s=gaid.spec.gateway.response_timeout.value, emulate_network=True,
        )  # fmt: skip
        (application,) = serve_config(gaid.name, place(gaid), target)["applications"]
        # The test cluster has one node, without the tier's labels.
        application["deployments"][0]["ray_actor_options"] = {"num_cpus": 0}
        self.client.deploy_apps(ServeDeploySchema.model_validate({"applications": [application]}))

    def app(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get_serve_details()["applications"].get(POOL, {})
        return found

    def replicas(self) -> set[str]:
        """Ids of the replicas, in whatever state; none while the application is being built."""
        return {one["replica_id"] for one in self._details()}

    def states(self) -> list[str]:
        return [one["state"] for one in self._details()]

    def _details(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.app().get("deployments", {}).get("replica", {}).get("replicas", [])
        return found

    def is_settled(self) -> bool:
        deployments = self.app().get("deployments", {}).values()
        states = {one["state"] for d in deployments for one in d["replicas"]}
        return self.app().get("status") == "RUNNING" and states == {"RUNNING"}

    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"http://{self.address}/settings").json().get(POOL, {})
        return found

    def live(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.url}/{POOL}/healthz", timeout=5.0).json()["user_config"]
        return found

    def delete(self) -> None:
        from ray import serve

        serve.delete(POOL, _blocking=True)


@pytest.fixture
def rollout(ray_serve, decisions_address, wait) -> Iterator[Rollout]:
    made = Rollout(f"http://127.0.0.1:{ray_serve.http_port}", decisions_address)
    made.apply(SERVICE)
    wait(made.is_settled, 40.0)
    wait(lambda: made.settings() and made.live(), 20.0)
    yield made
    made.delete()


@pytest.fixture
def traffic(rollout) -> Iterator[Callable[[], list[Any]]]:
    """Four connections that ask for answers for as long as the test runs; returns what went wrong so far."""
    ended, faults = threading.Event(), []
    body = {"model": "live", "prompt": "hello", "max_tokens": 4}

    def ask() -> None:
        with httpx.Client(timeout=60.0) as client:
            while not ended.is_set():
                try:
                    answer = client.post(f"{rollout.url}/{POOL}/v1/completions", json=body)
                    if answer.status_code != 200:
                        faults.append((answer.status_code, answer.text[:200]))
                except httpx.HTTPError as error:
                    faults.append(error)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    yield lambda: list(faults)
    ended.set()
    for thread in threads:
        thread.join(timeout=60.0)


class Stream:
    """A streamed answer that is read to its end in a thread."""

    def __init__(self, url: str, body: dict[str, Any]) -> None:
        self.events: list[str] = []
        self.fault: Exception | None = None
        self.ended = False
        self.thread = threading.Thread(target=self._read, args=(url, body), daemon=True)
        self.thread.start()

    def _read(self, url: str, body: dict[str, Any]) -> None:
        try:
            with httpx.stream("POST", url, json=body, timeout=60.0) as answer:
                for line in answer.iter_lines():
                    if line:
                        self.events.append(line)
        except httpx.HTTPError as error:
            self.fault = error
        self.ended = True


LIVE = [
    ("objective.responseTime.target", "31s", lambda s: 30.9 < s["target_s"] < 31.0),
    ("objective.responseTime.percentile", 90, lambda s: s["percentile"] == 90),
    ("tiers.0.replicas.headroom", 0.5, lambda s: s["headroom"] == 0.5),
    ("tiers.0.startup", "77s", lambda s: s["startup_s"] == 77.0),
    ("tiers.0.network.rtt", "40ms", lambda s: s["target_s"] < 29.97),
    ("traffic.0.input", 200, lambda s: s["input_tokens"] == 200),
    ("models.0.output.tokens", 6, lambda s: s["output_tokens"] == 6),
]
"""(field, value, what the policy's settings are then): none of them changes what a replica's process is made from."""


def test_objective_traffic_and_network_reach_policy_and_replicas_without_a_restart(rollout, traffic, wait):
    before, first = rollout.replicas(), rollout.live()
    assert len(before) == 1
    for path, value, is_taken in LIVE:
        rollout.apply(changed(path, value))
        wait(lambda is_taken=is_taken: is_taken(rollout.settings()), 20.0)
    wait(lambda: rollout.live()["output_tokens"] == 6, 20.0)
    rollout.apply(changed("tiers.0.network.rtt", "40ms"))
    wait(lambda: rollout.live()["uplink_s"] - first["uplink_s"] == pytest.approx(0.018), 20.0)
    rollout.apply(changed("traffic.0.input", 200))
    wait(lambda: rollout.live()["profile"] != first["profile"], 20.0)
    wait(rollout.is_settled, 20.0)
    assert before <= rollout.replicas(), "the policy may have added one"
    assert traffic() == [], "no request was lost on the way"


def test_another_number_of_slots_or_another_model_makes_new_replicas(rollout, wait):
    for path, value in (("models.0.maxConcurrency", 3), ("tiers.0.models", ["other"])):
        before = rollout.replicas()
        rollout.apply(changed(path, value))
        wait(lambda before=before: not rollout.replicas() & before and rollout.is_settled(), 60.0)


def test_bounds_change_without_a_restart(rollout, wait):
    rollout.apply(changed("tiers.0.replicas", {"min": 1, "max": 1}))
    wait(lambda: len(rollout.replicas()) == 1 and rollout.is_settled(), 40.0)
    before = rollout.replicas()
    rollout.apply(changed("tiers.0.replicas", {"min": 2, "max": 2}))  # what it learned before may ask for more
    wait(lambda: len(rollout.replicas()) == 2 and rollout.is_settled(), 40.0)
    assert before < rollout.replicas()


def test_a_replica_that_stops_serves_what_it_has_begun_to_the_end(rollout, wait):
    """Three replicas with two streams each; two of the three stop at once, long before the streams end."""
    rollout.apply(changed("tiers.0.replicas", {"min": 3, "max": 3}))
    wait(lambda: len(rollout.replicas()) == 3 and rollout.is_settled(), 60.0)
    # Some 25 s: more than Ray gave a replica that stops when 10 s were the bound.
    body = {"model": "live", "prompt": "a long story", "max_tokens": 200, "stream": True}
    streams = [Stream(f"{rollout.url}/{POOL}/v1/completions", body) for _ in range(6)]
    wait(lambda: all(stream.events for stream in streams), 20.0)
    rollout.apply(changed("tiers.0.replicas", {"min": 1, "max": 1}))
    wait(lambda: sorted(rollout.states()) == ["RUNNING", "STOPPING", "STOPPING"], 20.0)
    assert not any(stream.ended for stream in streams)
    for stream in streams:
        stream.thread.join(120.0)
    assert [(stream.fault, stream.events[-1]) for stream in streams] == [(None, "data: [DONE]")] * 6
    wait(lambda: rollout.states() == ["RUNNING"], 30.0)
