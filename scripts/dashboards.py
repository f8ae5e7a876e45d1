"""Grafana dashboards of the chart: fleet, one service, queueing; cost, energy and carbon.

    python scripts/dashboards.py --write charts/tierserve/files/dashboards
    python scripts/dashboards.py --check charts/tierserve/files/dashboards   # ends with 1 when stale; in `make check`

Made by a script so that units, colours and variables are the same everywhere; docs/metrics.md explains the metrics.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 8, 8
"""Of a panel, in Grafana's grid of 24 columns: three in a row."""
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
OF = '{namespace="$namespace",service="$service"}'
BY_POOL = "max by (pool) ({})"


@dataclass(frozen=True)
class Panel:
    """A time series: (query, legend) pairs, and the unit as Grafana calls it."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    about: str = ""


def gauge(name: str) -> str:
    """Return a gauge of a pool, which all gateways have alike."""
    return BY_POOL.format(f"tierserve_{name}{OF}")


def rate(name: str, by: str, more: str = "") -> str:
    inside = OF[:-1] + more + "}"
    return f"sum by ({by}) (rate(tierserve_{name}{inside}[$__rate_interval]))"


def quantile(q: float, name: str) -> str:
    """Return a quantile of a pool, from the buckets that a recording rule of the service has added up."""
    return f"histogram_quantile({q:g}, tierserve:{name}_bucket:rate5m{OF})"


def of_reconciles(q: float) -> str:
    buckets = "rate(tierserve_reconcile_duration_seconds_bucket[$__rate_interval])"
    return f"histogram_quantile({q:g}, sum by (le) ({buckets}))"


def condition(name: str, value: int) -> str:
    return f'sum(tierserve_deployment_condition{{condition="{name}"}} == bool {value})'


LATE = "gateway_late_responses_total"
RESPONSES = "gateway_responses_total"
FLEET = (
    Panel("Services", ((condition("Ready", 1), "ready"), (condition("Ready", 0), "not ready"),
                       (condition("Degraded", 1), "degraded"), (condition("SLOMet", 0), "objective missed"))),
    Panel("Replicas", (("sum by (namespace, name) (tierserve_pool_replicas)", "{{namespace}}/{{name}}"),)),
    Panel("Replicas lacking", (("sum by (namespace, name) (tierserve_pool_replicas_desired - tierserve_pool_replicas)",
                                "{{namespace}}/{{name}}"),),
          about="Desired less running; for long: TierServePodsPending."),
    Panel("Late responses", ((f"sum by (namespace, service) (rate(tierserve_{LATE}[$__rate_interval]))"
                              f" / sum by (namespace, service) (rate(tierserve_{RESPONSES}[$__rate_interval]))",
                              "{{namespace}}/{{service}}"),), "percentunit"),
    Panel("Requests", (("sum by (namespace, service) (rate(tierserve_gateway_requests_total[$__rate_interval]))",
                        "{{namespace}}/{{service}}"),), "reqps"),
    Panel("Downloads to do", (("sum by (namespace, name) (tierserve_pool_download_total_bytes"
                               " - tierserve_pool_download_done_bytes)", "{{namespace}}/{{name}}"),), "bytes"),
    Panel("Reconciles", (("sum by (result) (rate(tierserve_reconcile_total[$__rate_interval]))", "{{result}}"),),
          "ops"),
    Panel("Reconcile duration", tuple((of_reconciles(q), f"p{100 * q:g}") for q in (0.5, 0.95)), "s"),
    Panel("Since the last successful reconcile",
          (("time() - max(tierserve_reconcile_last_success_timestamp_seconds)", "age"),), "s"),
    Panel("Work queue", (("max(tierserve_operator_queue_depth)", "waiting"),),
          about="Resources that are due and wait for a worker."),
    Panel("Reconcile errors", (("sum by (reason) (rate(tierserve_reconcile_errors_total[$__rate_interval]))",
                                "{{reason}}"),), "ops"),
    Panel("Requests to the API server",
          (("sum by (verb, code) (rate(tierserve_operator_api_requests_total[$__rate_interval]))",
            "{{verb}} {{code}}"),), "reqps"),
)  # fmt: skip
SERVICE = (
    Panel("Requests by code", ((rate("gateway_requests_total", "code"), "{{code}}"),), "reqps"),
    Panel("Response time", (*((quantile(q, "request_duration_seconds"), f"{{{{pool}}}} p{100 * q:g}")
                              for q in (0.5, 0.95, 0.99)),
                            (gauge("policy_target_response_seconds"), "{{pool}} target")), "s"),
    Panel("Late responses", ((f"{rate(LATE, 'pool')} / {rate(RESPONSES, 'pool')}", "{{pool}}"),), "percentunit",
          "Share that missed the target; the objective allows 1 - percentile."),
    Panel("Time to the first byte", tuple((quantile(q, "first_byte_seconds"), f"{{{{pool}}}} p{100 * q:g}")
                                          for q in (0.5, 0.95)), "s"),
    Panel("Time in the queue", tuple((quantile(q, "queue_seconds"), f"{{{{pool}}}} p{100 * q:g}")
                                     for q in (0.5, 0.95)), "s"),
    Panel("Requests at the pool", tuple((f"sum by (pool) (tierserve_gateway_{name}{OF})", f"{{{{pool}}}} {words}")
                                        for name, words in (("in_flight", "in flight"), ("queued", "queued"),
                                                            ("max_in_flight", "limit")))),
    Panel("Replicas", tuple((gauge(f"policy_replicas_{name}"), f"{{{{pool}}}} {name}")
                            for name in ("desired", "running"))),
    Panel("Pool up", ((gauge("gateway_up"), "{{pool}}"),)),
    Panel("Aborted and sent once more", ((rate("gateway_aborted_total", "pool"), "{{pool}} aborted"),
                                         (rate("gateway_retries_total", "pool"), "{{pool}} retried")), "reqps"),
)  # fmt: skip
QUEUEING = (
    Panel("Arrivals (lambda)", ((gauge("policy_arrival_rate"), "{{pool}}"),), "reqps"),
    Panel("Service time (1 / mu)", ((gauge("policy_service_seconds"), "{{pool}}"),), "s"),
    Panel("Offered load and servers (c)", ((gauge("policy_offered_load_erlangs"), "{{pool}} erlangs"),
                                           (gauge("policy_servers"), "{{pool}} servers"))),
    Panel("Utilisation", ((gauge("policy_utilisation_ratio"), "{{pool}} carried"),
                          (gauge("policy_offered_load_ratio"), "{{pool}} offered")), "percentunit"),
    Panel("Probability of a wait", ((gauge("policy_wait_probability"), "{{pool}}"),), "percentunit"),
    Panel("Predicted and observed", ((gauge("policy_predicted_response_seconds"), "{{pool}} predicted"),
                                     (quantile(0.95, "request_duration_seconds"), "{{pool}} observed p95"),
                                     (gauge("policy_target_response_seconds"), "{{pool}} target")), "s",
          "The prediction is at the percentile of the objective."),
    Panel("Replicas desired", ((gauge("policy_replicas_desired"), "{{pool}}"),)),
    Panel("At the maximum, or held without metrics", ((gauge("policy_at_maximum"), "{{pool}} at maximum"),
                                                      (gauge("policy_stale"), "{{pool}} stale"))),
    Panel("Age of the last decision", ((gauge("gateway_decision_age_seconds"), "{{pool}}"),), "s"),
)  # fmt: skip


def used(name: str, by: str = "namespace, name") -> str:
    """Return what pools use, by service or pool."""
    return f"sum by ({by}) (tierserve_pool_{name})"


def per_request(name: str) -> str:
    """Return a counter of the operator over the requests that the gateways finished, by service."""
    requests = "rate(tierserve_gateway_requests_total[$__rate_interval])"
    done = f'label_replace({requests}, "name", "$1", "service", "(.*)-gateway-agents")'
    return (
        f"sum by (namespace, name) (rate(tierserve_pool_{name}[$__rate_interval])) / sum by (namespace, name) ({done})"
    )


WHOSE = "{{namespace}}/{{name}}"
FOOTPRINT = (
    Panel("Cost per hour", ((used("cost_per_hour"), WHOSE),), about="In the currency of the prices."),
    Panel("Power", ((used("power_watts"), WHOSE),), "watt"),
    Panel("Power that idle replicas would take too", ((used("idle_power_watts"), WHOSE),), "watt"),
    Panel("Emissions of the electricity", ((used("carbon_grams_per_hour"), WHOSE),), about="gCO2e per hour."),
    Panel("Emissions of the manufacture", ((used("embodied_carbon_grams_per_hour"), WHOSE),), about="gCO2e per hour."),
    Panel("Carbon intensity", ((used("carbon_intensity_grams_per_kwh", "namespace, name, pool, source"),
                                "{{namespace}}/{{name}} {{pool}} ({{source}})"),), about="gCO2e per kWh."),
    Panel("Energy per request", ((per_request("energy_joules_total"), WHOSE),), "joule"),
    Panel("Emissions per request", ((per_request("carbon_grams_total"), WHOSE),), about="gCO2e."),
    Panel("Saving that is recommended", (("tierserve_deployment_recommended_saving_ratio", WHOSE),), "percentunit",
          "By objective.optimize; see status.recommendation."),
)  # fmt: skip


def dashboard(name: str, title: str, panels: tuple[Panel, ...], *, of_service: bool) -> dict[str, Any]:
    """Return the JSON model of a dashboard."""
    variables: list[dict[str, Any]] = [{"name": "datasource", "type": "datasource", "query": "prometheus"}]
    if of_service:
        for label, where in (("namespace", ""), ("service", '{namespace="$namespace"}')):
            query = f"label_values(tierserve_gateway_up{where}, {label})"
            variables.append({"name": label, "type": "query", "datasource": DATASOURCE, "query": query, "refresh": 2})
    return {
        "uid": f"tierserve-{name}",
        "title": f"TierServe / {title}",
        "tags": ["tierserve"],
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": variables},
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, 24 // WIDTH)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + k), "datasource": DATASOURCE, "expr": expr, "legendFormat": legend}
            for k, (expr, legend) in enumerate(panel.queries)
        ],
    }


def files() -> dict[str, str]:
    """Return name and text of each dashboard's file."""
    found = {
        "fleet": dashboard("fleet", "Fleet", FLEET, of_service=False),
        "service": dashboard("service", "Service", SERVICE, of_service=True),
        "queueing": dashboard("queueing", "Queueing", QUEUEING, of_service=True),
        "footprint": dashboard("footprint", "Cost, energy, carbon", FOOTPRINT, of_service=False),
    }
    return {f"{name}.json": json.dumps(one, indent=1) + "\n" for name, one in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--write", type=Path)
    how.add_argument("--check", type=Path)
    arguments = parser.parse_args()
    for name, text in files().items():
        if arguments.write:
            arguments.write.mkdir(parents=True, exist_ok=True)
            (arguments.write / name).write_text(text)
        elif (arguments.check / name).read_text() != text:
            sys.exit(f"{arguments.check / name} is stale\n    hint: run `make metrics-page` and commit the file")


if __name__ == "__main__":
    main()
