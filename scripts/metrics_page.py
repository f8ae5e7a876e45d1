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
from tierserve.runtime.kubernetes.client import ClusterError, Request
from tierserve.status.pools import RESOURCES
from tierserve_serving.engines.base import CHAT
from tierserve_serving.gateway.access_log import RequestRecord
from tierserve_serving.gateway.admin import PoolState
from tierserve_serving.gateway.agent_config import AgentPool
from tierserve_serving.gateway.metrics import DECISION, GatewayMetrics
from tierserve_serving.policy_runtime.decisions import GAUGES
from tierserve_serving.replica import metrics as replica

LABELS = {
    "namespace, name": "a GenAIDeployment; series go with it",
    "pool, tier": "pools of a service: tiers times sites; pool `-` is what the gateway answered itself",
    "class": "classes of `spec.traffic`, and `-`",
    "code": "HTTP status codes, some twenty in practice; `<error>`",
    "verb, resource": "requests that the operator makes, some twenty pairs",
    "reason": "twelve reasons, most of them of Kubernetes' API",
    "gen_ai_request_model": "the service, its models and adapters, and `-`",
    "gen_ai_operation_name": "`chat`, `text_completion`, `embeddings`",
    "gen_ai_provider_name": "`tierserve`",
    "error_type": "HTTP status codes from 400; without it the request has not failed",
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
Row = tuple[str, str, str, str, str]


def operator() -> CollectorRegistry:
    """Return the operator's registry after one reconcile of a service that downloads a model."""
    metrics = Metrics()
    metrics.reconciles.labels("success").inc()
    metrics.failed(ClusterError(409, ""))
    metrics.requested(Request("patch", "services", 200, 0.1))
    metrics.watch_queue(int)
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
        metrics.record(_request(end), "cloud")
    metrics.update(pool, PoolState(1, 0, 8, up=True, drained=False, total=1))
    metrics.count(pool, 1.0, 1.0, 1.0)
    metrics.decided(pool, {field: 1.0 for field, _ in DECISION.values()}, 0.1)
    metrics.malformed(1)
    metrics.certificate(1.0)
    return metrics.registry


def _request(end: str) -> RequestRecord:
    return RequestRecord("cloud-default", "chat", 200, 1.0, 0.1, 0.2, 1000, end, 1, "id", "large", CHAT, 0.3)


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
    histograms = [
        (f"ray_{one.name}", "histogram", unit(one.name), ", ".join(sorted(("pool", *one.labels))), one.text)
        for one in replica.HISTOGRAMS
    ]
    gauges = [(f"ray_{name}", "gauge", unit(name), "pool", text) for name, text in replica.GAUGES.values()]
    return sorted([*policy, *histograms, *gauges])


def table(rows: Iterable[Row]) -> str:
    lines = ["| metric | type | unit | labels | |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {' | '.join(more)} |" for name, *more in rows)])


def page() -> str:
    """Return the Markdown page."""
    labels = "\n".join(f"| {name} | {text} |" for name, text in LABELS.items())
    return f"""# Metrics

Made by `make metrics-page` from what the processes export; `make check` fails when it is stale.
[Runbooks](runbooks/README.md) explain the alerts: those of a service are in the PrometheusRule that the operator makes,
with the recording rules (`tierserve:...`) that the dashboards use; those of the operator are in
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
scrapes it. Sums and counts of the histograms are counters: `ray_tierserve_replica_prompt_tokens_sum` counts the prompt
tokens of a pool.

{table(of_ray())}

## OpenTelemetry's names

Beside TierServe's own, three histograms have the names, buckets and attributes of the
[semantic conventions for generative AI](https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/), in
Prometheus' form. `gen_ai_server_request_duration_seconds` and `gen_ai_server_time_to_first_token_seconds` of the
gateway are what clients see, with the time in the queue. `gen_ai_server_time_per_output_token_seconds` is measured by
the engines, so Ray exports it; this rule of a PodMonitor's `metricRelabelings` takes Ray's prefix away:

```yaml
- {{sourceLabels: [__name__], regex: ray_(gen_ai_.+), targetLabel: __name__}}
```

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
