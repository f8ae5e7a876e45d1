"""Kubernetes objects of a service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tierserve.api import parse
from tierserve.plan.placement import place
from tierserve.render.kubernetes.metadata import child_name
from tierserve.render.kubernetes.objects import KINDS, kube_objects
from tierserve.render.kubernetes.ray_service import replaces_cluster, with_pod_metadata_of
from tierserve.render.kubernetes.settings import KubeSettings, cores

EXAMPLE = yaml.safe_load((Path(__file__).parents[4] / "examples" / "assistant.yaml").read_text())
METADATA = {"name": "assistant", "namespace": "chat", "uid": "0a1b"}


def objects(settings: KubeSettings | None = None, **tiers: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Objects of the example by kind and name; `tiers` changes its tiers by name."""
    spec = {**EXAMPLE["spec"], "tiers": [{**t, **tiers.get(t["name"], {})} for t in EXAMPLE["spec"]["tiers"]]}
    gaid = parse({**EXAMPLE, "metadata": METADATA, "spec": spec})
    found = kube_objects(gaid, place(gaid), settings or KubeSettings())
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def test_every_object_is_labelled_owned_and_of_a_kind_that_is_pruned():
    for (kind, name), one in objects().items():
        assert one["metadata"]["labels"]["tierserve.io/deployment"] == "assistant", name
        assert one["metadata"]["ownerReferences"][0]["uid"] == "0a1b", name
        assert one["metadata"]["namespace"] == "chat", name
        assert (one["apiVersion"], kind) in KINDS, name


def test_a_worker_pod_holds_one_replica_on_a_node_of_its_tier():
    spec = objects()["RayService", "assistant-edge-default"]["spec"]
    (group,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (1, 0, 100_000), "Serve has the bounds"
    assert group["resources"]["tierserve_replica"] == "1"
    deployment = json.loads(spec["serveConfigV2"])["applications"][0]["deployments"][0]
    assert deployment["ray_actor_options"]["resources"] == {"tierserve_replica": 1}
    for pod in (group["template"]["spec"], spec["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]):
        assert pod["nodeSelector"] == {"tierserve.io/tier": "edge"}
        assert pod["tolerations"] == [{"key": "tierserve.io/tier", "operator": "Equal", "value": "edge"}]
        assert pod["restartPolicy"] == "Never", "required by Ray's autoscaler v2"
    assert spec["rayClusterConfig"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", "no replica on the head"


def test_a_tier_that_may_scale_to_zero_starts_without_a_worker_and_its_gateway_queues_requests():
    found = objects(edge={"replicas": {"min": 0, "max": 2, "scaleToZeroAfter": "5m"}})
    spec = found["RayService", "assistant-edge-default"]["spec"]
    (group,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    assert group["replicas"] == 0
    replica, settings = json.loads(spec["serveConfigV2"])["applications"][0]["deployments"]
    assert replica["autoscaling_config"]["min_replicas"] == 0
    assert settings["user_config"]["idle_window_s"] == 300.0
    assert "stabilization_window_s" not in settings["user_config"], "the autoscaler's own"
    files = next(one["data"] for (kind, name), one in found.items() if kind == "ConfigMap" and "gateway" in name)
    assert "server w unix@/run/tierserve/admin.sock.hold backup" in files["haproxy.cfg"]
    agent = json.loads(files["agent.json"])
    assert {p["name"] for p in agent["pools"] if p["scale_to_zero"]} == {"edge-default"}


def test_a_stabilization_window_reaches_the_policy():
    found = objects(edge={"replicas": {"min": 1, "max": 2, "stabilizationWindow": "90s"}})
    serve = json.loads(found["RayService", "assistant-edge-default"]["spec"]["serveConfigV2"])
    assert serve["applications"][0]["deployments"][1]["user_config"]["stabilization_window_s"] == 90.0


def test_a_site_has_a_cluster_of_its_own_on_nodes_of_its_own():
    sites = [{"name": "berlin"}, {"name": "lyon", "placement": {"nodeSelector": {"rack": "7"}}}]
    found = objects(edge={"sites": sites})

    def selector(name: str) -> dict[str, str]:
        cluster = found["RayService", name]["spec"]["rayClusterConfig"]
        nodes: dict[str, str] = cluster["workerGroupSpecs"][0]["template"]["spec"]["nodeSelector"]
        return nodes

    assert selector("assistant-edge-berlin") == {"tierserve.io/tier": "edge", "tierserve.io/site": "berlin"}
    assert selector("assistant-edge-lyon") == {"rack": "7"}


def test_accelerators_are_requested_only_by_an_engine_that_uses_them():
    emulated = objects()["RayService", "assistant-cloud-default"]
    assert "nvidia.com/gpu" not in json.dumps(emulated)


def test_a_request_is_retried_at_most_once():
    text = objects()["ConfigMap", "assistant-gateway"]["data"]["haproxy.cfg"]
    assert {line.strip() for line in text.splitlines() if line.strip().startswith("retries ")} == {"retries 1"}


def test_each_gateway_admits_its_share_and_polls_the_policy_of_the_pool():
    found = objects(KubeSettings(gateway_replicas=3))["ConfigMap", "assistant-gateway"]["data"]
    agent = json.loads(found["agent.json"])
    assert agent["gateways"] == 3
    assert agent["pools"][2]["decisions_url"] == "http://assistant-cloud-default-head-svc.chat.svc:8390/decisions"
    server = next(line for line in found["haproxy.cfg"].splitlines() if "assistant-cloud-default-serve-svc" in line)
    assert "server s assistant-cloud-default-serve-svc.chat.svc.cluster.local:8000 " in server
    assert " maxconn 6 " in server, "a third of 16 slots, rounded up"
    assert " init-addr last,libc,none" in server, "a pool that is not there yet keeps no gateway from starting"


def pods(found: dict[tuple[str, str], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Spec of each pod by name, with the autoscaler that KubeRay adds to a head."""
    specs = {"gateway": found["Deployment", "assistant-gateway"]["spec"]["template"]["spec"]}
    for (kind, name), one in found.items():
        if kind == "RayService":
            cluster = one["spec"]["rayClusterConfig"]
            head = cluster["headGroupSpec"]["template"]["spec"]
            sidecar = {"name": "autoscaler", **cluster["autoscalerOptions"]}
            specs[f"{name} head"] = {**head, "containers": [*head["containers"], sidecar]}
            specs[f"{name} worker"] = cluster["workerGroupSpecs"][0]["template"]["spec"]
    return specs


def test_every_container_meets_the_restricted_standard():
    for name, pod in pods(objects()).items():
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}, name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert not context["allowPrivilegeEscalation"], name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert context["runAsNonRoot"], name
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name


def test_a_gateway_pod_deleted_while_it_starts_takes_the_first_sigterm():
    assert pods(objects())["gateway"]["shareProcessNamespace"] is True, "no process of it is PID 1"


def test_the_gateway_writes_nowhere_and_has_no_token():
    pod = pods(objects())["gateway"]
    assert pod["automountServiceAccountToken"] is False
    assert all(container["securityContext"]["readOnlyRootFilesystem"] for container in pod["containers"])


def test_every_container_has_the_requests_and_limits_that_a_quota_requires():
    for name, pod in pods(objects()).items():
        for container in pod["containers"]:
            for kind in ("requests", "limits"):
                assert set(container["resources"][kind]) >= {"cpu", "memory"}, f"{name} {container['name']}"
            requests, limits = (container["resources"][kind]["cpu"] for kind in ("requests", "limits"))
            assert cores(limits) >= cores(requests), f"{name} {container['name']}"


def test_cpu_limits_are_optional_and_not_below_the_requests():
    pod = pods(objects(KubeSettings(head_cpu_limit="", worker_cpu_limit="")))["assistant-cloud-default worker"]
    assert "cpu" not in pod["containers"][0]["resources"]["limits"]
    with pytest.raises(ValueError, match=r"TIERSERVE_WORKER_CPU_LIMIT.*TIERSERVE_WORKER_CPU="):
        KubeSettings(worker_cpu="8", worker_cpu_limit="4000m")
    with pytest.raises(ValueError, match="CPU quantity"):
        KubeSettings(worker_cpu_limit="four")


@pytest.mark.parametrize("change", [{"replicas": {"min": 2, "max": 9}}, {"replicas": {"min": 1, "headroom": 0.5}}])
def test_min_and_max_change_no_field_for_which_kuberay_replaces_the_cluster(change):
    def heavy(one: dict[str, Any]) -> dict[str, Any]:
        cluster: dict[str, Any] = one["spec"]["rayClusterConfig"]
        for group in cluster["workerGroupSpecs"]:
            group.pop("replicas")  # KubeRay looks at it only when it makes the cluster
        return cluster

    name = ("RayService", "assistant-cloud-default")
    assert heavy(objects()[name]) == heavy(objects(cloud=change)[name])


def test_the_same_resource_is_always_rendered_to_the_same_text():
    assert json.dumps([*objects().values()]) == json.dumps([*objects().values()])


@given(
    st.from_regex(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True), st.from_regex(r"[a-z0-9]{1,81}", fullmatch=True)
)
def test_names_are_short_enough_and_unique_after_truncation(service, part):
    name = child_name(service, part, 47)
    assert len(name) <= 47
    assert name == child_name(service, part, 47)
    if len(f"{service}-{part}") > 47:
        assert name != child_name(service, f"{part}x", 47)


def test_pods_of_ray_keep_the_name_that_kuberay_gives_them():
    """KubeRay's head Service selects pods by it."""
    clusters = [o["spec"]["rayClusterConfig"] for (kind, _), o in objects().items() if kind == "RayService"]
    assert len(clusters) == 3
    for cluster in clusters:
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            labels = group["template"]["metadata"]["labels"]
            assert "app.kubernetes.io/name" not in labels
            assert labels["tierserve.io/deployment"]


def with_gateway(gateway: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    gaid = parse({**EXAMPLE, "metadata": METADATA, "spec": {**EXAMPLE["spec"], "gateway": gateway}})
    found = kube_objects(gaid, place(gaid), KubeSettings())
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def test_with_a_secret_the_gateway_serves_tls_and_its_probes_use_it():
    plain, secret = with_gateway({}), with_gateway({"tls": {"secretName": "cert"}})
    for found, scheme, port in ((plain, "HTTP", "http"), (secret, "HTTPS", "https")):
        probe = found["Deployment", "assistant-gateway"]["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]
        assert (probe["httpGet"].get("scheme", "HTTP"), probe["httpGet"]["port"]) == (scheme, port)
    volumes = secret["Deployment", "assistant-gateway"]["spec"]["template"]["spec"]["volumes"]
    assert {v["secret"]["secretName"] for v in volumes if "secret" in v} == {"cert"}


def test_the_agent_reads_the_certificate_without_its_key():
    plain, secret = with_gateway({}), with_gateway({"tls": {"secretName": "cert"}})
    for found, path in ((plain, None), (secret, "/etc/tierserve-certificate/tls.crt")):
        assert json.loads(found["ConfigMap", "assistant-gateway"]["data"]["agent.json"])["certificate"] == path
    pod = secret["Deployment", "assistant-gateway"]["spec"]["template"]["spec"]
    agent = next(c for c in pod["containers"] if c["name"] == "agent")
    mounted = {m["mountPath"]: m["name"] for m in agent["volumeMounts"]}
    volume = next(v for v in pod["volumes"] if v["name"] == mounted["/etc/tierserve-certificate"])
    assert [item["key"] for item in volume["secret"]["items"]] == ["tls.crt"]
    assert "tls" not in mounted.values()


def test_while_tls_is_being_enabled_pods_without_a_certificate_serve_port_80():
    plain, secret = with_gateway({}), with_gateway({"tls": {"secretName": "cert"}})
    ports = {p["name"]: (p["port"], p["targetPort"]) for p in secret["Service", "assistant-gateway"]["spec"]["ports"]}
    assert ports == {"http": (80, "http"), "https": (443, "https")}, "by name: 443 leads to no pod without TLS"
    before, after = (found["ConfigMap", "assistant-gateway"]["data"] for found in (plain, secret))
    assert after["haproxy.cfg"] == before["haproxy.cfg"], "pods from before find their file as it was"
    assert "ssl crt /etc/tierserve-tls/tls.pem" in after["haproxy-tls.cfg"]
    command = secret["Deployment", "assistant-gateway"]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert "/etc/tierserve/haproxy-tls.cfg" in command


def test_a_rollout_surges_only_in_a_pool_that_may_scale_up():
    found = objects(edge={"replicas": {"min": 2, "max": 2}}, cloud={"replicas": {"min": 1, "max": 4}})

    def surge(pool: str) -> int | None:
        config = json.loads(found["RayService", f"assistant-{pool}"]["spec"]["serveConfigV2"])
        percent: int | None = config["applications"][0]["deployments"][0].get("max_surge_percent")
        return percent

    assert surge("cloud-default") == 20
    assert surge("edge-default") is None, "there may be no node for one more: it would wait for good"


def test_with_a_redis_the_state_of_rays_control_plane_is_kept_in_it():
    settings = KubeSettings(gcs_redis_address="redis.ray:6379", gcs_redis_secret="redis")
    given = objects(settings)["RayService", "assistant-edge-default"]["spec"]["rayClusterConfig"]
    secret = {"secretKeyRef": {"name": "redis", "key": "password"}}
    assert given["gcsFaultToleranceOptions"] == {
        "redisAddress": "redis.ray:6379",
        "redisPassword": {"valueFrom": secret},
    }
    plain = objects()["RayService", "assistant-edge-default"]["spec"]["rayClusterConfig"]
    assert "gcsFaultToleranceOptions" not in plain


LABELS = {"team": "search", "cost-center": "4711"}
ANNOTATIONS = {"sidecar.istio.io/inject": "false", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
FOREIGN = {
    "kubectl.kubernetes.io/last-applied-configuration": "{}", "kopf.zalando.org/last-handled-configuration": "{}",
    "argocd.argoproj.io/tracking-id": "x", "kustomize.toolkit.fluxcd.io/name": "x", "helm.sh/chart": "x-1",
    "meta.helm.sh/release-name": "x", "app.kubernetes.io/managed-by": "Helm", "tierserve.io/tier": "x",
}  # fmt: skip


def labelled(labels: dict[str, str], annotations: dict[str, str]) -> dict[tuple[str, str], dict[str, Any]]:
    metadata = {**METADATA, "labels": labels, "annotations": annotations}
    gaid = parse({**EXAMPLE, "metadata": metadata})
    return {(one["kind"], one["metadata"]["name"]): one for one in kube_objects(gaid, place(gaid), KubeSettings())}


def templates(found: dict[tuple[str, str], dict[str, Any]]) -> list[dict[str, Any]]:
    """Metadata of every pod template."""
    clusters = [one["spec"]["rayClusterConfig"] for (kind, _), one in found.items() if kind == "RayService"]
    groups = [group for c in clusters for group in (c["headGroupSpec"], *c["workerGroupSpecs"])]
    gateway = found["Deployment", "assistant-gateway"]["spec"]["template"]
    return [gateway["metadata"], *(group["template"]["metadata"] for group in groups)]


def test_labels_and_annotations_of_the_resource_are_on_its_objects_and_pods():
    found = labelled(LABELS | FOREIGN, ANNOTATIONS | FOREIGN)
    for metadata in (*(one["metadata"] for one in found.values()), *templates(found)):
        assert metadata["labels"].items() >= LABELS.items()
        assert metadata["annotations"].items() >= ANNOTATIONS.items()
        assert metadata["labels"].get("app.kubernetes.io/managed-by") == "tierserve"
        kept = FOREIGN.keys() - {"app.kubernetes.io/managed-by", "tierserve.io/tier"}
        assert not kept & (metadata["labels"].keys() | metadata["annotations"].keys()), "bookkeeping of other tools"


def test_no_selector_has_a_label_of_the_resource():
    found = labelled(LABELS, {})
    for one in found.values():
        selector = one["spec"].get("selector", one["spec"].get("podSelector", {})) if "spec" in one else {}
        assert "search" not in json.dumps(selector)


def test_a_changed_label_replaces_no_ray_cluster():
    name = ("RayService", "assistant-edge-default")
    live, desired = labelled({"team": "search"}, {})[name], labelled({"team": "ads"}, {"a": "b"})[name]
    assert live["spec"]["rayClusterConfig"] != desired["spec"]["rayClusterConfig"], "KubeRay would replace it"
    assert not replaces_cluster(desired, live)
    kept = with_pod_metadata_of(desired, live)
    assert kept["spec"]["rayClusterConfig"] == live["spec"]["rayClusterConfig"]
    assert kept["metadata"]["labels"]["team"] == "ads", "the object itself has the new one"


def test_a_replaced_cluster_gets_the_new_labels():
    name = ("RayService", "assistant-edge-default")
    live = objects(KubeSettings(serving_image="old"))[name]
    desired = labelled({"team": "ads"}, {})[name]
    assert replaces_cluster(desired, live)
    assert with_pod_metadata_of(desired, live) == desired


@pytest.mark.parametrize("change", [{"replicas": {"min": 2, "max": 9}}, {"placement": {"tolerations": [{"key": "a"}]}}])
def test_what_kuberay_changes_in_place_is_no_replacement(change):
    name = ("RayService", "assistant-cloud-default")
    assert not replaces_cluster(objects(cloud=change)[name], objects()[name])


def test_several_heads_are_evicted_one_at_a_time_and_a_single_head_does_not_block_a_drain():
    budget = objects()["PodDisruptionBudget", "assistant-heads"]["spec"]
    assert budget["minAvailable"] == 2, "an integer: KubeRay's pods have no controller with a scale"
    labels = [t["labels"] for t in templates(objects())[1:]]
    assert all(one["tierserve.io/deployment"] == "assistant" for one in labels)
    assert budget["selector"]["matchLabels"] == {"tierserve.io/deployment": "assistant", "ray.io/node-type": "head"}
    tiers, routing = [EXAMPLE["spec"]["tiers"][2]], {**EXAMPLE["spec"]["routing"], "overflow": ["cloud"]}
    spec = {**EXAMPLE["spec"], "tiers": tiers, "routing": routing}
    spec["traffic"] = [{"name": "default"}]
    spec["routing"].pop("defaultClass", None)
    gaid = parse({**EXAMPLE, "metadata": METADATA, "spec": spec})
    names = {one["metadata"]["name"] for one in kube_objects(gaid, place(gaid), KubeSettings())}
    assert "assistant-heads" not in names


def scraping(settings: KubeSettings) -> dict[int, list[Any]]:
    """Allowed peers of each port of the gateway."""
    rules = objects(settings)["NetworkPolicy", "assistant-gateway"]["spec"]["ingress"]
    found: dict[int, list[Any]] = {}
    for rule in rules:
        for port in rule["ports"]:
            found.setdefault(port["port"], []).extend(rule.get("from", ["anybody"]))
    return found


def test_the_peers_that_may_read_metrics_are_a_setting():
    agent = {"namespaceSelector": {"matchLabels": {"team": "ops"}}, "podSelector": {"matchLabels": {"app": "vmagent"}}}
    reached = scraping(KubeSettings(scrape_from=(agent,)))
    assert agent in reached[8391]
    assert reached[8405] == [agent]
    unscraped = scraping(KubeSettings(scrape_from=()))
    assert 8405 not in unscraped
    assert "anybody" not in unscraped[8391]
    assert "anybody" in unscraped[8080]


def test_labels_by_which_a_prometheus_selects_are_a_setting():
    found = objects(KubeSettings(monitoring_labels={"release": "monitoring"}))
    for kind in ("ServiceMonitor", "PrometheusRule"):
        assert found[kind, "assistant-gateway"]["metadata"]["labels"]["release"] == "monitoring"


def test_on_an_ipv6_cluster_nothing_listens_on_ipv4_alone():
    found = objects(KubeSettings(ip_family="IPv6"))
    assert "0.0.0.0" not in json.dumps([*found.values()])
    cluster = found["RayService", "assistant-edge-default"]["spec"]
    assert cluster["rayClusterConfig"]["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "::"
    assert json.loads(cluster["serveConfigV2"])["http_options"]["host"] == "::0"
    text = found["ConfigMap", "assistant-gateway"]["data"]["haproxy.cfg"]
    assert "resolve-prefer ipv6" in text


def test_the_gateway_has_the_addresses_that_the_cluster_has_and_an_agent_has_one():
    found = objects()
    assert found["Service", "assistant-gateway"]["spec"]["ipFamilyPolicy"] == "PreferDualStack"
    assert found["Service", "assistant-gateway-agents"]["spec"]["ipFamilyPolicy"] == "SingleStack"


def test_a_worker_pod_without_a_replica_is_removed_within_a_minute_and_after_its_service_has_dropped_it():
    cluster = objects()["RayService", "assistant-edge-default"]["spec"]["rayClusterConfig"]
    (container,) = cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    draining_s = int({e["name"]: e["value"] for e in container["env"]}["RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S"])
    assert draining_s >= 10, "KubeRay's readiness probe (5 s) and kube-proxy take it out of the Service first"
    assert draining_s + cluster["autoscalerOptions"]["idleTimeoutSeconds"] <= 60
