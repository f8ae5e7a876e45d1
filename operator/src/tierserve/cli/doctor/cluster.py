"""Checks of a cluster: what is installed, whether it is ready, nodes for each pool, and permissions.

Each check judges documents of the API server (pure); `checks` reads them through kubectl.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tierserve.api import GenAIDeployment, ValidationFailed
from tierserve.api.loading import load_text
from tierserve.api.schema.crd import crd as rendered_crd
from tierserve.api.v1alpha1.tiers import Toleration
from tierserve.cli import cluster as kube
from tierserve.cli.doctor.checks import Check, missing, ok, warning
from tierserve.cli.errors import UserError
from tierserve.plan.placement import Placement, place
from tierserve.render.kubernetes.scheduling import accelerators, node_placement

LEAST_KUBERNETES = (1, 30)
"""`kubeVersion` of the chart."""
OPERATOR, KUBERAY = "app.kubernetes.io/name=tierserve-operator", "app.kubernetes.io/name=kuberay-operator"
CRD = "kubectl apply --server-side -f crds/genaideployments.yaml (or helm upgrade the chart)"
HELM = "helm install tierserve charts/tierserve --namespace tierserve-system --create-namespace (docs/kubernetes.md)"
HELM_RAY = "helm install kuberay-operator kuberay-operator --repo https://ray-project.github.io/kuberay-helm/"
OF_RAY = ("rayservices.ray.io", "rayclusters.ray.io")
OF_PROMETHEUS = ("servicemonitors.monitoring.coreos.com", "prometheusrules.monitoring.coreos.com")
OPERATOR_NEEDS = (
    ("watch", "genaideployments.serving.tierserve.io"),
    ("patch", "genaideployments.serving.tierserve.io/status"),
    ("create", "rayservices.ray.io"),
    ("create", "deployments.apps"),
    ("create", "configmaps"),
    ("create", "services"),
    ("create", "poddisruptionbudgets.policy"),
    ("create", "networkpolicies.networking.k8s.io"),
)
"""Rights without which the operator cannot make a service (charts/tierserve/templates/_rules.tpl has all)."""
Objects = Sequence[Mapping[str, Any]]


def checks(namespace: str | None, context: str | None) -> list[Check]:
    """Return all checks of the cluster that kubectl is configured for.

    Args:
        namespace: whose GenAIDeployments are checked for nodes; None: all that may be read.
        context: of the kubeconfig; None: the current one.
    """
    reader = _Reader(["--context", context] if context else [])
    server = reader.get("version")
    if server is None or "serverVersion" not in server:
        hint = "check the context and the credentials: kubectl config get-contexts; kubectl cluster-info"
        return [missing("API server", f"does not answer: {reader.error}", hint)]
    found = [api_server(server), crd(reader.get("get", "crd", kube.RESOURCE), reader.error)]
    operators = reader.items("get", "deployments", "--all-namespaces", "-l", OPERATOR)
    found.append(operator(operators, reader.error))
    found += [installed(name, reader.get("get", "crd", name), HELM_RAY) for name in OF_RAY]
    found.append(kuberay(reader.items("get", "deployments", "--all-namespaces", "-l", KUBERAY), reader.error))
    found += [monitoring(name, reader.get("get", "crd", name)) for name in OF_PROMETHEUS]
    found += reader.permissions(operators or ())
    where = ["--namespace", namespace] if namespace else ["--all-namespaces"]
    services, nodes = reader.items("get", kube.RESOURCE, *where), reader.items("get", "nodes")
    if nodes is None:
        return [*found, warning("nodes", f"cannot be read: {reader.error}", "ask for the right to list nodes")]
    return [*found, *(check for service in services or () for check in of_service(service, nodes))]


class _Reader:
    """Reads documents through kubectl; `error` is the message of the last read that failed."""

    def __init__(self, flags: Sequence[str]) -> None:
        self.flags, self.error = tuple(flags), ""

    def get(self, *words: str) -> dict[str, Any] | None:
        done = kube.run_kubectl(*words, "-o", "json", *self.flags, "--request-timeout=10s")
        self.error = _first_line(done.stderr)
        try:
            # `kubectl version` prints what it has of the client also where the server does not answer.
            found: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
        except ValueError:
            return None
        return found or None

    def items(self, *words: str) -> list[Mapping[str, Any]] | None:
        found = self.get(*words)
        return None if found is None else list(found.get("items") or ())

    def permissions(self, operators: Objects) -> Iterator[Check]:
        """Check the rights of this user, and those of each operator as its service account."""
        yield user_permission(self._may("create", kube.RESOURCE))
        for one in operators:
            account = one["spec"]["template"]["spec"].get("serviceAccountName", "default")
            user = f"system:serviceaccount:{one['metadata']['namespace']}:{account}"
            for where in watched(one):
                verdicts = {need: self._may(*need, "--as", user, *where) for need in OPERATOR_NEEDS}
                yield operator_permissions(user, verdicts, where[-1])

    def _may(self, verb: str, resource: str, *flags: str) -> bool | None:
        """Return whether it is allowed; None where that cannot be asked (impersonation may be forbidden)."""
        name, _, subresource = resource.partition("/")
        more = ["--subresource", subresource] if subresource else []
        done = kube.run_kubectl("auth", "can-i", verb, name, *more, *flags, *self.flags)
        answer = done.stdout.strip().splitlines()[-1:] or [""]
        return {"yes": True, "no": False}.get(answer[0].split(" ")[0])


def watched(operator: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the flags of kubectl for each namespace that a Deployment of the operator watches, or for all."""
    containers = operator["spec"]["template"]["spec"]["containers"]
    words = [str(word) for container in containers for word in container.get("args") or ()]
    named = [word.partition("=")[2] for word in words if word.startswith("--namespace=")]
    return [("--namespace", name) for name in named] or [("--all-namespaces",)]


def _first_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason given")


def user_permission(allowed: bool | None) -> Check:
    """Check whether this user may create services; without that right the other commands still work."""
    if allowed:
        return ok("permissions", f"create {kube.RESOURCE}: allowed")
    verdict = "cannot be checked" if allowed is None else "not allowed"
    hint = "to apply services ask for the ClusterRole edit, to which the chart adds GenAIDeployments"
    return warning("permissions", f"create {kube.RESOURCE}: {verdict}", hint)


def operator_permissions(user: str, verdicts: Mapping[tuple[str, str], bool | None], where: str) -> Check:
    """Check the rights of an operator.

    Args:
        user: its service account, as the API server names it.
        verdicts: whether each of `OPERATOR_NEEDS` is allowed; None: that cannot be asked.
        where: namespace, or --all-namespaces.
    """
    name = f"rights of {user.rpartition(':')[2]}"
    denied = ", ".join(f"{verb} {resource}" for (verb, resource), allowed in verdicts.items() if allowed is False)
    if denied:
        hint = f"install the roles of the chart (rbac.create), or grant these rights to {user}"
        return missing(name, f"not allowed ({where}): {denied}", hint)
    if None in verdicts.values():
        hint = f"ask for the right to impersonate: kubectl auth can-i --list --as {user}"
        return warning(name, f"cannot be checked ({where})", hint)
    return ok(name, f"all that a service needs ({where})")


def api_server(version: Mapping[str, Any]) -> Check:
    """Check the version of the API server, from `kubectl version -o json`."""
    shown = str(version["serverVersion"].get("gitVersion", ""))
    numbers = re.match(r"v?(\d+)\.(\d+)", shown)
    if numbers and (int(numbers[1]), int(numbers[2])) < LEAST_KUBERNETES:
        return missing("API server", f"{shown}, older than 1.30", "upgrade the cluster to Kubernetes 1.30 or newer")
    return ok("API server", shown)


def crd(found: Mapping[str, Any] | None, error: str = "") -> Check:
    """Check that the CRD is there, serves v1alpha1, and has the schema of this version."""
    if found is None:
        return missing("CRD GenAIDeployment", error, CRD)
    served = {one["name"]: one for one in found["spec"]["versions"] if one.get("served")}
    own = rendered_crd()["spec"]["versions"][0]
    if own["name"] not in served:
        return missing("CRD GenAIDeployment", f"does not serve {own['name']}, but {', '.join(served)}", CRD)
    if served[own["name"]]["schema"] != own["schema"]:
        return warning("CRD GenAIDeployment", "its schema is of another version than this command", CRD)
    return ok("CRD GenAIDeployment", f"{own['name']}, the schema of this version")


def operator(found: Objects | None, error: str = "") -> Check:
    """Check that a Deployment of the operator is available."""
    if found is None:
        return warning("operator", f"cannot be read: {error}", "ask for the right to list deployments")
    if not found:
        return missing("operator", f"no Deployment with {OPERATOR}", HELM)
    return _available("operator", found)


def kuberay(found: Objects | None, error: str = "") -> Check:
    """Check that KubeRay's operator is available; it may be installed in other ways than with its chart."""
    if found is None:
        return warning("KubeRay", f"cannot be read: {error}", "ask for the right to list deployments")
    if not found:
        return warning("KubeRay", f"no Deployment with {KUBERAY}", f"if it is not installed otherwise: {HELM_RAY}")
    return _available("KubeRay", found)


def _available(name: str, found: Objects) -> Check:
    for one in found:
        where = f"{one['metadata']['namespace']}/{one['metadata']['name']}"
        if not (one.get("status") or {}).get("availableReplicas"):
            namespace, _, deployment = where.partition("/")
            hint = f"kubectl describe deployment {deployment} -n {namespace}"
            return missing(name, f"{where}: no pod is available", hint)
    one = found[0]
    images = ", ".join(c["image"].rpartition("/")[2] for c in one["spec"]["template"]["spec"]["containers"])
    return ok(name, f"{one['metadata']['namespace']}/{one['metadata']['name']} is available ({images})")


def installed(name: str, found: Mapping[str, Any] | None, hint: str) -> Check:
    """Check that a required CRD is there."""
    if found is None:
        return missing(f"CRD {name}", "not found", hint)
    return ok(f"CRD {name}", ", ".join(one["name"] for one in found["spec"]["versions"] if one.get("served")))


def monitoring(name: str, found: Mapping[str, Any] | None) -> Check:
    """Check a CRD of the Prometheus operator, which only metrics and alerts need."""
    if found is None:
        hint = "for scraped metrics and alerts install the Prometheus operator (chart kube-prometheus-stack)"
        return warning(f"CRD {name.partition('.')[0]}", "not found: no metrics are scraped, no alerts fire", hint)
    return ok(f"CRD {name.partition('.')[0]}", "found")


def of_service(service: Mapping[str, Any], nodes: Objects) -> Iterator[Check]:
    """Check that there are nodes, and accelerators on them, for each pool of a GenAIDeployment."""
    name = f"{service['metadata'].get('namespace', 'default')}/{service['metadata']['name']}"
    try:
        gaid = load_text(kube.manifest(service))
        placements = place(gaid)
    except (ValidationFailed, UserError) as error:
        yield missing(name, str(error).partition("\n")[0], "see kubectl tierserve status; correct the resource")
        return
    for placement in placements:
        yield _nodes_for(f"{name} {placement.pool.removesuffix('-default')}", gaid, placement, nodes)


def _nodes_for(name: str, gaid: GenAIDeployment, placement: Placement, nodes: Objects) -> Check:
    where = node_placement(gaid, placement)
    selector = ", ".join(f"{key}={value}" for key, value in where.node_selector.items())
    usable = [node for node in nodes if _is_usable(node, where.node_selector, where.tolerations)]
    shown = f"{len(usable)} node{'s' * (len(usable) != 1)} with {selector}"
    if not usable:
        hint = f"kubectl label node NODE {' '.join(f'{k}={v}' for k, v in where.node_selector.items())}"
        if where.nodes_on_demand:
            return warning(name, f"no ready node with {selector}; the cluster's autoscaler must make one", hint)
        return missing(name, f"no ready node with {selector} whose taints are tolerated", hint)
    needs = accelerators(gaid, placement)
    if needs is None:
        return ok(name, shown)
    resource, count = needs
    free = max(_quantity(node, resource) for node in usable)
    if free < count:
        message = f"{shown}; none has {count} {resource} (the most is {free})"
        return missing(name, message, f"install the device plugin of {resource}, or set accelerator.resource")
    return ok(name, f"{shown}, {sum(_quantity(node, resource) for node in usable)} {resource}")


def _is_usable(node: Mapping[str, Any], selector: Mapping[str, str], tolerations: Iterable[Toleration]) -> bool:
    labels, spec = node["metadata"].get("labels") or {}, node.get("spec") or {}
    conditions = (node.get("status") or {}).get("conditions") or ()
    is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    taints = [t for t in spec.get("taints") or () if t.get("effect") in ("NoSchedule", "NoExecute")]
    tolerated = list(tolerations)
    return (
        is_ready
        and not spec.get("unschedulable")
        and all(labels.get(key) == value for key, value in selector.items())
        and all(any(_tolerates(one, taint) for one in tolerated) for taint in taints)
    )


def _tolerates(one: Toleration, taint: Mapping[str, Any]) -> bool:
    """Whether a toleration matches a taint, by the rules of Kubernetes: no key or no effect matches all."""
    if one.effect is not None and one.effect != taint.get("effect"):
        return False
    if one.key is not None and one.key != taint["key"]:
        return False
    return one.operator == "Exists" or (one.value or "") == (taint.get("value") or "")


def _quantity(node: Mapping[str, Any], resource: str) -> int:
    """Return the allocatable number of an extended resource, which is always whole."""
    return int(((node.get("status") or {}).get("allocatable") or {}).get(resource, 0))
