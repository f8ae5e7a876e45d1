"""Recording rules and alerts of one service, for Prometheus (pure).

Burn rates of the error budget over a long and a short window, after Beyer and others, "The Site Reliability Workbook"
(2018), ch. 5: 14.4 times the budget over an hour pages, 6 times over six hours makes a ticket; the short window ends
the alert when it is over. Labels and annotations are as in the kubernetes-mixin. The rules of the operator itself are
in the chart (files/alerts.yaml).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tierserve.api import GenAIDeployment
from tierserve.render.kubernetes.metadata import agents_name
from tierserve.render.kubernetes.settings import KubeSettings

BURN = ((14.4, "1h", "5m", "2m", "critical"), (6.0, "6h", "30m", "15m", "warning"))
"""Multiple of the budget, long and short window, how long it must last, and the severity."""
PREDICTION_OFF = 1.5
"""Observed over predicted percentile from which the prediction is called wrong; within a bucket of the histogram
quantiles are off by up to a third."""
DECISION_AGE_S, DECREASES_PER_HOUR, ERROR_SHARE = 120, 6, 0.05
"""Limits of the alerts for held scaling, for flapping, and for responses that are errors."""
EXPIRY = ((21, "1h", "warning"), (3, "10m", "critical"))
"""Days before the gateway's certificate expires, as cert-manager's mixin has them, how long, and the severity."""
BUCKETS = ("request_duration_seconds", "first_byte_seconds", "queue_seconds")
"""Histograms whose buckets are recorded as rates per pool: dashboards ask for several quantiles of each."""
LATE = "tierserve:late_responses:ratio_rate"


@dataclass(frozen=True)
class Alert:
    """One alert; `summary` and `description` are templates of Prometheus."""

    name: str
    expr: str
    severity: str
    after: str
    summary: str
    windows: str = ""


def rules(gaid: GenAIDeployment, settings: KubeSettings) -> list[dict[str, Any]]:
    """Return recording rules of response times and of the share of late responses, and the alerts."""
    return [*_records(gaid), *(_rule(gaid, settings, alert) for alert in _alerts(gaid))]


def _of(gaid: GenAIDeployment, more: str = "") -> str:
    namespace = gaid.metadata.namespace or "default"
    return f'{{namespace="{namespace}",service="{agents_name(gaid.name)}"{more}}}'


def _percentile(gaid: GenAIDeployment) -> str:
    return f"p{gaid.spec.objective.response_time.percentile:g}".replace(".", "_")


def _records(gaid: GenAIDeployment) -> list[dict[str, Any]]:
    of = _of(gaid)
    quantile = gaid.spec.objective.response_time.percentile / 100
    windows = sorted({window for _, long, short, _, _ in BURN for window in (long, short)})
    by = "sum by (namespace, service, pool, le)"
    return [
        *(
            {
                "record": f"tierserve:{name}_bucket:rate5m",
                "expr": f"{by} (rate(tierserve_gateway_{name}_bucket{of}[5m]))",
            }
            for name in BUCKETS
        ),
        {
            "record": f"tierserve:request_duration_seconds:{_percentile(gaid)}",
            "expr": f"histogram_quantile({quantile:g}, tierserve:request_duration_seconds_bucket:rate5m{of})",
        },
        *(
            {
                "record": f"{LATE}{window}",
                "expr": f"sum by (namespace, service) (rate(tierserve_gateway_late_responses_total{of}[{window}]))"
                f" / sum by (namespace, service) (rate(tierserve_gateway_responses_total{of}[{window}]))",
            }
            for window in windows
        ),
    ]


def _burns(gaid: GenAIDeployment) -> list[Alert]:
    budget = 1.0 - gaid.spec.objective.response_time.percentile / 100
    found = []
    for times, long, short, after, severity in BURN:
        # A budget of 10% cannot burn 14.4 times as fast: half of what is left above it is as bad as it gets.
        limit = f"{min(times * budget, 0.5 * (1.0 + budget)):.4g}"
        found.append(
            Alert(
                "TierServeErrorBudgetBurn",
                f"{LATE}{long}{_of(gaid)} > {limit} and {LATE}{short}{_of(gaid)} > {limit}",
                severity,
                after,
                f"{gaid.name}: {{{{ $value | humanizePercentage }}}} of the responses of the last {long} are late, "
                f"the objective allows {100.0 * budget:.4g}%",
                windows=f"{long}, {short}",
            )
        )
    return found


def _expiries(gaid: GenAIDeployment) -> list[Alert]:
    not_after = f"min by (namespace, service) (tierserve_gateway_certificate_not_after_timestamp_seconds{_of(gaid)})"
    summary = f"{gaid.name}: the gateway's certificate expires in {{{{ $value | humanizeDuration }}}}"
    return [
        Alert("TierServeCertificateExpiry", f"{not_after} - time() < {days} * 86400", severity, after, summary)
        for days, after, severity in EXPIRY
    ]


def _alerts(gaid: GenAIDeployment) -> list[Alert]:
    of, name = _of(gaid), gaid.name
    pool = "pool {{ $labels.pool }}"
    observed = f"tierserve:request_duration_seconds:{_percentile(gaid)}{of}"
    requests = "sum by (namespace, service) (rate(tierserve_gateway_requests_total{}[5m]))"
    errors = requests.format(_of(gaid, ',code=~"5.."'))

    def of_pools(metric: str) -> str:
        return f"max by (namespace, service, pool) (tierserve_{metric}{of})"

    return [
        *_burns(gaid),
        *_expiries(gaid),
        Alert(
            "TierServePoolDown", f"{of_pools('gateway_up')} == 0", "critical", "2m",
            f"{name}: {pool} is down at every gateway",
        ),
        Alert(
            "TierServeGatewayErrors", f"{errors} / {requests.format(of)} > {ERROR_SHARE:g}", "critical", "5m",
            f"{name}: {{{{ $value | humanizePercentage }}}} of the requests are answered with a 5xx",
        ),
        Alert(
            "TierServeNoMetrics", f"absent(tierserve_gateway_up{of})", "warning", "10m",
            f"{name}: no gateway agent is scraped, so no other alert of the service can fire",
        ),
        Alert(
            "TierServePoolSaturated", f"{of_pools('policy_at_maximum')} == 1", "warning", "10m",
            f"{name}: {pool} has its maximum of replicas and requires more",
        ),
        Alert(
            "TierServeScalingHeld",
            f"{of_pools('gateway_decision_age_seconds')} > {DECISION_AGE_S} or {of_pools('policy_stale')} == 1",
            "warning", "5m", f"{name}: {pool} is not scaled: its replicas stay as they are",
        ),
        Alert(
            "TierServeFlapping",
            f"max by (namespace, service, pool) (resets(tierserve_policy_replicas_desired{of}[1h]))"
            f" > {DECREASES_PER_HOUR}",
            "warning", "30m", f"{name}: {pool} was scaled down {{{{ $value }}}} times within an hour",
        ),
        Alert(
            "TierServePredictionOff",
            f"{observed} > {PREDICTION_OFF:g} * {of_pools('policy_predicted_response_seconds')}", "warning", "30m",
            f"{name}: {pool} takes {{{{ $value | humanizeDuration }}}}, more than {PREDICTION_OFF:g} times what was "
            "predicted",
        ),
    ]  # fmt: skip


def _rule(gaid: GenAIDeployment, settings: KubeSettings, alert: Alert) -> dict[str, Any]:
    namespace = gaid.metadata.namespace or "default"
    windows = {"windows": alert.windows} if alert.windows else {}
    return {
        "alert": alert.name,
        "expr": alert.expr,
        "for": alert.after,
        "labels": {**settings.alert_labels, "severity": alert.severity, "deployment": gaid.name, **windows},
        "annotations": {
            "summary": alert.summary,
            "description": f"See: kubectl tierserve status {gaid.name} --namespace {namespace}",
            "runbook_url": f"{settings.runbook_url}/{alert.name}.md",
        },
    }
