"""docs/metrics.md: every metric of Prometheus that the operator and the gateway's agents export, and what Ray exports.

    python scripts/metrics_page.py --write docs/metrics.md
    python scripts/metrics_page.py --check docs/metrics.md     # ends with 1 when the page is stale; in `make check`

Names, types, labels and texts are read from what the processes' own registries export after one of each event.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tierserve.controller.metrics import Metrics
from tierserve.status.pools import RESOURCES
from tierserve_serving.gateway.access_log import RequestRecord
from tierserve_serving.gateway.admin import PoolState
from tierserve_serving.gateway.agent_config import AgentPool
from tierserve_serving.gateway.metrics import DECISION, GatewayMetrics
from tierserve_serving.policy_runtime.decisions import GAUGES

LABELS = {
    "namespace, name": "a GenAIDeployment; series go with it",
    "pool, tier": "pools of a service: tiers times sites; pool `-` is what the gateway answered itself",
    "class": "classes of `spec.traffic`, and `-`",
    "code": "HTTP status codes, some twenty in practice",
    "condition": "the nine conditions of a GenAIDeployment",
    "result": "`success`, `error`",
    "source": "`constant`, `series`, the names of providers, and `NAME, last value` while one fails; one for each pool",
}
UNITS = (
    "seconds",
    "bytes",
    "erlangs",
    "ratio",
    "probability",
    "watts",
    "joules",
    "grams",
    "grams_per_hour",
    "grams_per_kwh",
)
REPLICA = {
    "ray_tierserve_replica_service_seconds": "Time in a slot of the engine.",
    "ray_tierserve_replica_first_token_seconds": "Time to first token since arrival.",
    "ray_tierserve_replica_output_tokens": "Output tokens per request.",
}
Row = tuple[str, str, str, str, str]


def operator() -> CollectorRegistry:
    """Return the operator's registry after one reconcile of a service that downloads a model."""
    metrics = Metrics()
    metrics.reconciles.labels("success").inc()
    metrics.duration.observe(0.1)
    download = {"doneBytes": 1, "totalBytes": 2}
    usage = dict.fromkeys((*RESOURCES, "carbonIntensity"), 1.0) | {"carbonIntensitySource": "constant"}
    pools = [{"pool": "cloud-default", "running": 1, "desired": 1, "download": download, **usage}]
    status = {"conditions": [{"type": "Ready", "status": "True"}], "pools": pools, "recommendation": {"saving": 0.1}}
    metrics.update("chat", "assistant", status, 0.0)
    return metrics.registry


def gateway() -> CollectorRegistry:
    """Return the registry of a gateway's agent after one request and one decision."""
    metrics, pool = GatewayMetrics(), AgentPool(name="cloud-default", tier="cloud", slots=8)
    metrics.configure([pool])
    for end in ("--", "CD"):
        metrics.record(RequestRecord("cloud-default", "chat", 200, 1.0, 0.1, 0.2, 1000, end, 1, "id"), "cloud")
    metrics.update(pool, PoolState(1, 0, 8, up=True, drained=False, total=1))
    metrics.count(pool, 1.0, 1.0, 1.0)
    metrics.decided(pool, {field: 1.0 for field, _ in DECISION.values()}, 0.1)
    metrics.malformed(1)
    return metrics.registry


def exported(registry: CollectorRegistry) -> list[Row]:
    """Return name, type, unit, labels and text of each metric, by name."""
    rows = []
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        if family.name.endswith("_created"):
            continue
        labels = sorted({key for sample in family.samples for key in sample.labels} - {"le"})
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append((name, family.type, unit(family.name), ", ".join(labels), family.documentation))
    return sorted(rows)


def unit(name: str) -> str:
    """Return the unit that a name ends with."""
    found = [one for one in UNITS if name.endswith(f"_{one}")]
    return found[0] if found else ""


def of_ray() -> list[Row]:
    """Return what the policy and the replicas give to Ray, which exports it with its own labels too."""
    policy = [(f"ray_tierserve_policy_{k}", "gauge", unit(k), "pool", f"{text}.") for k, text in GAUGES.items()]
    return sorted([*policy, *((k, "histogram", unit(k), "pool", text) for k, text in REPLICA.items())])


def table(rows: Iterable[Row]) -> str:
    lines = ["| metric | type | unit | labels | |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {' | '.join(more)} |" for name, *more in rows)])


def page() -> str:
    """Return the Markdown page."""
    labels = "\n".join(f"| {name} | {text} |" for name, text in LABELS.items())
    return f"""# Metrics

Made by `make metrics-page` from what the processes export; `make check` fails when it is stale. [Runbooks](runbooks/)
explain the alerts: those of a service are in the PrometheusRule that the operator makes, those of the operator in
`charts/tierserve/files/alerts.yaml`.

## Operator

Port `metrics` of the Service `tierserve-operator` (`metrics.serviceMonitor.enabled` of the chart).

{table(exported(operator()))}

## Gateway

Port `agent` of the headless Service NAME-gateway-agents; the operator makes a ServiceMonitor. Port `metrics` there is
HAProxy's own exporter. Each pod of a gateway has the same decision (`tierserve_policy_*`): take the maximum over pods,
not the sum.

{table(exported(gateway()))}

## Ray

Port 8080 of the pods of a pool's Ray cluster, with Ray's own labels and metrics beside them; nothing of TierServe
scrapes it.

{table(of_ray())}

## Labels

| label | at most |
|---|---|
{labels}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--write", type=Path)
    how.add_argument("--check", type=Path)
    arguments = parser.parse_args()
    if arguments.write:
        arguments.write.write_text(page())
    elif arguments.check.read_text() != page():
        sys.exit(f"{arguments.check} is stale\n    hint: run `make metrics-page` and commit the file")


if __name__ == "__main__":
    main()
