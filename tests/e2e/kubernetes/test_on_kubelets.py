"""A service on real kubelets with real KubeRay: from apply to delete. The tests build on each other, in this order."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import openai

EDGE, CLOUD = "edge-berlin", "cloud-default"
NOTICED_S = 6.0
"""By then a gateway knows that a pool is gone."""


def _uids(pods: list[dict[str, Any]]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods}


def _serve_config(cluster: Any, pool: str) -> dict[str, Any]:
    found = json.loads(cluster.get(f"rayservice assistant-{pool}")["spec"]["serveConfigV2"])
    return dict(found["applications"][0])


def test_an_openai_client_is_answered_through_the_gateway(gateway: Any) -> None:
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
    assert "chat" in {model.id for model in client.models.list()}
    answer = client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "Hello"}])
    assert answer.choices[0].message.content
    stream = client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "Hello"}], stream=True)
    assert sum(1 for _ in stream) > 10


def test_pods_run_on_the_nodes_of_their_tier(service: Any) -> None:
    nodes = {node["metadata"]["name"]: node["metadata"]["labels"] for node in service.items("nodes")}
    for tier, site in (("edge", "berlin"), ("cloud", None)):
        pods = service.items("pods", f"tierserve.io/tier={tier}")
        assert {pod["metadata"]["labels"]["ray.io/node-type"] for pod in pods} == {"head", "worker"}
        for pod in pods:
            labels = nodes[pod["spec"]["nodeName"]]
            assert labels["tierserve.io/tier"] == tier
            assert site is None or labels["tierserve.io/site"] == site
    for pod in service.items("pods", "app.kubernetes.io/component=gateway"):
        assert "tierserve.io/tier" not in nodes[pod["spec"]["nodeName"]]


def test_the_columns_answer_whether_it_is_well(service: Any) -> None:
    header, row = service.kubectl("get gaid assistant").splitlines()
    columns = dict(zip(header.split(), row.split(), strict=False))
    assert columns["READY"] == "True"
    assert columns["TIERS"] == "2/2"
    assert columns["REPLICAS"] == "2"


def test_a_change_of_the_ceiling_restarts_no_pod(service: Any) -> None:
    before = _uids(service.items("pods", "tierserve.io/deployment=assistant"))
    patch = '{"op":"replace","path":"/spec/tiers/1/replicas/max","value":4}'
    service.kubectl(f"patch gaid assistant --type json -p '[{patch}]'")

    def ceiling() -> int:
        scaling = _serve_config(service, CLOUD)["deployments"][0]["autoscaling_config"]
        return int(scaling["max_replicas"])

    service.until(lambda: ceiling() == 4, "the ceiling in the RayService", 30)
    status = service.until(
        lambda: service.get(f"rayservice assistant-{CLOUD}")["status"].get("activeServiceStatus"), "a status", 30
    )
    assert status["rayClusterName"]
    service.until(service.is_ready, "Ready", 60)
    assert len(service.items("rayclusters")) == 2
    assert _uids(service.items("pods", "tierserve.io/deployment=assistant")) == before


def test_load_adds_worker_pods_also_while_the_operator_is_killed_and_quiet_takes_them_away(
    service: Any, users: Any, kill_operator: Callable[[Any], None], record_property: Callable[[str, object], None]
) -> None:
    with users(9) as crowd:  # the edge has four slots, and so has the one replica of the cloud
        service.until(lambda: len(service.items("pods", "ray.io/node-type=worker,tierserve.io/tier=cloud")) > 1,
                      "a second worker pod", 120)  # fmt: skip
        kill_operator(service)
        killed = time.monotonic()
        # Recovered: a change that is made after the kill is carried out.
        window = '{"op":"add","path":"/spec/tiers/1/replicas/stabilizationWindow","value":"60s"}'
        patch = '{"op":"replace","path":"/spec/tiers/1/replicas/max","value":3},' + window
        service.kubectl(f"patch gaid assistant --type json -p '[{patch}]'")
        generation = service.get("gaid assistant")["metadata"]["generation"]
        service.until(
            lambda: service.get("gaid assistant")["status"].get("observedGeneration") == generation, "recovery", 120
        )
        record_property("seconds from kill -9 of the operator to a change carried out", time.monotonic() - killed)
        service.until(lambda: len(service.workers("cloud")) >= 2, "two workers", 180)
        service.until(lambda: crowd.pools(time.monotonic() - 20)[CLOUD], "answers of the cloud", 60)
        crowd.more(20)
    assert not crowd.failed()
    assert len(service.items("rayservices")) == 2
    assert len(service.items("deployments")) == 1
    assert len(service.items("rayclusters")) == 2
    service.until(lambda: len(service.workers("cloud")) == 1, "one worker again", 240)


def test_a_change_of_the_model_under_load_loses_no_request(service: Any, users: Any) -> None:
    # The context is what a replica's process is made with; the profile alone would reach it while it runs.
    patch = (
        '{"op":"replace","path":"/spec/models/0/profile/alpha","value":"15ms"},'
        '{"op":"add","path":"/spec/models/0/contextTokens","value":4000}'
    )
    with users(4) as crowd:
        crowd.more(20)
        service.kubectl(f"patch gaid assistant --type json -p '[{patch}]'")
        # 32 tokens at 15 ms: half a second, where it was nearly one.
        service.until(
            lambda: any(s == 200 and took < 0.75 for _, s, took, _ in crowd.answers[-20:]), "the new model", 180
        )
        service.until(service.is_ready, "Ready", 120)
        crowd.more(20)
    assert not crowd.failed()
    assert len(crowd.answers) > 20
    assert len(service.items("rayclusters")) == 2, "a model is changed in the cluster that is there"


def test_a_tier_whose_node_is_lost_fails_over_is_reported_and_recovers(service: Any, users: Any) -> None:
    node = service.items("pods", "tierserve.io/tier=edge")[0]["spec"]["nodeName"]
    with users(2) as crowd:
        service.until(lambda: crowd.pools()[EDGE], "answers of the edge", 60)
        service.kubectl(f"cordon {node}")
        service.kubectl("delete pods -l tierserve.io/tier=edge --grace-period 0 --force")
        lost = time.monotonic()
        service.until(lambda: service.condition("Degraded")["status"] == "True", "Degraded", 60)
        degraded = service.condition("Degraded")
        service.until(lambda: crowd.pools(lost + NOTICED_S)[CLOUD] >= 5, "answers of the cloud", 60)
        service.kubectl(f"uncordon {node}")
        service.until(service.is_ready, "Ready again", 300)
        healed = time.monotonic()
        service.until(lambda: crowd.pools(healed)[EDGE], "answers of the edge again", 60)
    assert EDGE in degraded["message"]
    assert "cannot be scheduled" in degraded["message"]
    # Addresses of pods that are gone answer nothing: a connection to one is given up after 2 s, twice at most.
    late = [answer for answer in crowd.failed() if answer[0] > lost + NOTICED_S]
    assert not late, "requests that came when the loss was known"
    assert service.condition("Degraded")["status"] == "False"


def test_deleting_it_leaves_nothing(service: Any) -> None:
    service.kubectl("delete gaid assistant --timeout 60s")
    kinds = "rayservices,rayclusters,deployments,configmaps,services,poddisruptionbudgets,networkpolicies,pods"
    service.until(
        lambda: not service.items(kinds, "tierserve.io/deployment=assistant") and not service.items("rayclusters"),
        "nothing left", 180,
    )  # fmt: skip


def test_it_can_be_deleted_after_the_operator_was_uninstalled(cluster: Any) -> None:
    cluster.kubectl("apply -f examples/two-tiers.yaml")
    cluster.until(lambda: len(cluster.items("rayservices")) == 2, "both RayServices", 60)
    cluster.shell.run("helm uninstall tierserve --namespace tierserve-system --wait", quiet=True)
    cluster.kubectl("delete gaid assistant --timeout 60s")
    cluster.until(
        lambda: not cluster.items("rayservices,deployments,pods", "tierserve.io/deployment=assistant"),
        "nothing left",
        180,
    )
