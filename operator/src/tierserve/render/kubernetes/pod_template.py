"""`podTemplate` of tier and site merged over a rendered pod, as a strategic merge patch of Kubernetes (pure).

Maps are merged. Lists with a merge key are merged by it: elements of the same key are merged, others are appended. All
other lists and values are replaced. Directives (`$patch`, `$setElementOrder`) are not supported.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from tierserve.api import GenAIDeployment
from tierserve.api.v1alpha1.pod_template import RAY_CONTAINERS, PodTemplate
from tierserve.plan.placement import Placement
from tierserve.render.kubernetes.settings import cores

HEAD, WORKER = RAY_CONTAINERS
# As `patchMergeKey` in k8s.io/api/core/v1.
MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "imagePullSecrets": "name",
    "resourceClaims": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}
# KubeRay binds the Role of Ray's autoscaler to the ServiceAccount of the head, and the replica is not in the head pod.
WORKERS_ONLY = ("serviceAccountName", "automountServiceAccountToken", "initContainers", "resourceClaims")

Node = dict[str, Any]


def pod_template(gaid: GenAIDeployment, placement: Placement) -> Node:
    """The template of a pool: that of the site merged over that of the tier; empty if neither is set."""
    tier = gaid.tier(placement.tier)
    site = next((s.pod_template for s in tier.sites if s.name == placement.site), None)
    merged: Node = {}
    for template in (tier.pod_template, site):
        if template is not None:
            merged = merge(merged, _plain(template))
    return merged


def with_template(pod: Mapping[str, Any], template: Mapping[str, Any]) -> Node:
    """`pod` (metadata and spec, the Ray container first) with the template merged over it."""
    name = pod["spec"]["containers"][0]["name"]
    spec = _for_pod_of(name, template.get("spec", {}))
    merged = merge(pod, {"metadata": template.get("metadata", {}), "spec": spec})
    container = merged["spec"]["containers"][0]
    own: Node = next((c.get("resources", {}) for c in spec.get("containers", ()) if c["name"] == name), {})
    container["resources"] = _with_both(container["resources"], own)
    if name == HEAD:
        merged["spec"] = _with_mounted_volumes(merged["spec"])
    return merged


def merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> Node:
    """`base` with `patch` merged over it; neither is modified."""
    merged = copy.deepcopy(dict(base))
    for field, value in patch.items():
        before = merged.get(field)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            merged[field] = merge(before, value)
        elif field in MERGE_KEYS and before is not None:
            merged[field] = _merged_list(before, value, MERGE_KEYS[field])
        else:
            merged[field] = copy.deepcopy(value)
    return merged


def _merged_list(base: Sequence[Node], patch: Sequence[Node], key: str) -> list[Node]:
    changes = {item.get(key): item for item in patch}
    known = {item.get(key) for item in base}
    kept = [merge(item, changes.get(item.get(key), {})) for item in base]
    return kept + [copy.deepcopy(item) for item in patch if item.get(key) not in known]


def _plain(template: PodTemplate) -> Node:
    """The fields that the user set, as in YAML; fields that are passed on as they were written."""
    return template.model_dump(by_alias=True, exclude_unset=True, exclude_none=True, mode="json")


def _for_pod_of(container: str, spec: Mapping[str, Any]) -> Node:
    """The part of the template for the pod of this Ray container: added containers are for workers only."""
    other = WORKER if container == HEAD else HEAD
    names = {c["name"] for c in spec.get("containers", ())} - {other}
    kept = names if container == WORKER else names & {HEAD}
    fields = {field: value for field, value in spec.items() if container == WORKER or field not in WORKERS_ONLY}
    return fields | {"containers": [c for c in spec.get("containers", ()) if c["name"] in kept]}


def _with_both(resources: Node, own: Mapping[str, Any]) -> Node:
    """Requests and limits that agree where the user set only one of them.

    A limit alone is the request too, as in Kubernetes. A request alone is the limit of memory, as the operator sets it,
    and raises a lower limit of CPU.
    """
    requests, limits = dict(resources["requests"]), dict(resources["limits"])
    set_requests, set_limits = own.get("requests", {}), own.get("limits", {})
    for name in ("cpu", "memory"):
        if name in set_limits and name not in set_requests:
            requests[name] = limits[name]
        elif name in set_requests and name not in set_limits and name in limits:
            is_enough = name == "cpu" and cores(str(limits[name])) >= cores(str(requests[name]))
            limits[name] = limits[name] if is_enough else requests[name]
    return resources | {"requests": requests, "limits": limits}


def _with_mounted_volumes(spec: Node) -> Node:
    """`spec` with the volumes that a container mounts: a ReadWriteOnce volume of the workers may be on another node."""
    mounted = {m["name"] for c in spec["containers"] for m in (*c.get("volumeMounts", ()), *c.get("volumeDevices", ()))}
    volumes = [volume for volume in spec.get("volumes", ()) if volume["name"] in mounted]
    rest = {field: value for field, value in spec.items() if field != "volumes"}
    return rest | ({"volumes": volumes} if volumes else {})
