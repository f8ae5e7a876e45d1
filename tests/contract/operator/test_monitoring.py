"""Objects of the Prometheus operator: made where its kinds are served, and not missed where they are not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.apiserver]
GROUP = "monitoring.coreos.com"
KINDS = {"servicemonitors": "ServiceMonitor", "prometheusrules": "PrometheusRule"}


def definition(plural: str, kind: str) -> dict[str, Any]:
    """As the Prometheus operator serves it, with a schema that takes anything."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP, "scope": "Namespaced", "versions": [version],
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
        },
    }  # fmt: skip


@pytest.fixture
def prometheus_operator(apiserver: Any, definitions: str, eventually: Any) -> Iterator[None]:
    for plural, kind in KINDS.items():
        code, reply = apiserver.create(definitions, definition(plural, kind))
        assert code == 201, reply.get("message")
    for plural in KINDS:
        eventually(lambda plural=plural: apiserver.get(f"/apis/{GROUP}/v1/{plural}")[0] == 200, f"{plural} are served")
    yield
    for plural in KINDS:
        apiserver.delete(f"{definitions}/{plural}.{GROUP}")


def test_without_its_kinds_nothing_is_missed(operator, kuberay, space, assistant, eventually):
    space.create(assistant)
    eventually(lambda: len(space.names("RayService")) == 3, "a RayService for each pool")
    eventually(lambda: space.condition("assistant", "Degraded").get("status"), "a status")
    assert "Monitor" not in space.condition("assistant", "Degraded")["message"]


def test_with_its_kinds_the_service_is_scraped_and_watched(
    operator, kuberay, prometheus_operator, apiserver, space, assistant, eventually
):
    space.create(assistant)

    def made(plural: str) -> list[str]:
        found = apiserver.get(f"/apis/{GROUP}/v1/namespaces/{space.name}/{plural}")[1]
        return [one["metadata"]["name"] for one in found.get("items", ())]

    # The operator looks for kinds that were not there once a minute.
    for plural in KINDS:
        eventually(lambda plural=plural: made(plural) == ["assistant-gateway"], f"the {plural}", 90.0)
