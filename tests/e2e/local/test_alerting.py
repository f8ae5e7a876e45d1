"""A page: responses of a real service are late, a real Prometheus sees it, a real Alertmanager delivers it."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import yaml

from tierserve.api import parse
from tierserve.render.kubernetes.alerts import rules
from tierserve.render.kubernetes.metadata import agents_name
from tierserve.render.kubernetes.settings import KubeSettings
from tierserve.runtime.local.ports import free_ports
from tierserve.runtime.local.service import LocalService

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.haproxy, pytest.mark.timeout(400)]
ROOT = Path(__file__).parents[3]
NAMESPACE = "default"
FILE = """
apiVersion: serving.tierserve.io/v1alpha1
kind: GenAIDeployment
metadata: {name: paged}
spec:
  objective:
    responseTime: {percentile: 95, target: 600ms}
  models:
    - name: large
      engine: emulated
      memory: {weights: 16Gi, perRequest: 250Mi}
      maxConcurrency: 2
      profile: {alpha: 20ms, beta: 1us, gamma: 1us}
      output: {tokens: 20}
  tiers:
    - name: cloud
      kind: cloud
      accelerator: {preset: A100-80GB}
      network: {rtt: 1us}
      replicas: {min: 1, max: 1}
      models: [large]
  gateway: {queueOrder: arrival}  # newest first would have most responses of so small a pool in time
"""
CONNECTIONS = 12  # six for each slot: all but a few responses are late
WITHOUT_SAMPLES = ("gateway_aborted_total", "gateway_retries_total")
"""Counters that have no series before the first such event."""
SHORTER = (("1h", "20s"), ("5m", "10s"), ("6h", "40s"), ("30m", "20s"))
"""Windows of the alerts, in seconds where users have minutes and hours; `for` likewise."""


class Pages(ThreadingHTTPServer):
    """A receiver of Alertmanager's webhooks."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *words: object) -> None:
                del words

        super().__init__(("127.0.0.1", 0), Handler)

    def alerts(self, name: str, status: str) -> list[dict[str, Any]]:
        found = [alert for page in list(self.received) for alert in page["alerts"]]
        return [one for one in found if one["labels"]["alertname"] == name and one["status"] == status]


@pytest.fixture
def pages() -> Iterator[Pages]:
    with Pages() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def dashboard_queries(name: str) -> list[str]:
    """The queries of a dashboard of the chart, for this service."""
    text = (ROOT / "charts" / "tierserve" / "files" / "dashboards" / f"{name}.json").read_text()
    values = {"$namespace": NAMESPACE, "$service": agents_name("paged"), "$__rate_interval": "20s"}
    queries = [target["expr"] for panel in json.loads(text)["panels"] for target in panel["targets"]]
    for variable, value in values.items():
        queries = [query.replace(variable, value) for query in queries]
    return queries


def shorter(rule: dict[str, Any]) -> dict[str, Any]:
    expr = rule["expr"]
    for long, short in SHORTER:
        expr = re.sub(rf"(\[|ratio_rate){long}\b", rf"\g<1>{short}", expr)
    found = {**rule, "expr": expr, **({"for": "5s"} if "for" in rule else {})}
    if "record" in rule:
        for long, short in SHORTER:
            found["record"] = re.sub(rf"ratio_rate{long}$", f"ratio_rate{short}", found["record"])
    return found


@contextlib.contextmanager
def running(*command: str | Path, log: Path) -> Iterator[None]:
    with log.open("w") as out:
        process = subprocess.Popen([str(one) for one in command], stdout=out, stderr=out)
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)


@contextlib.contextmanager
def monitored(folder: Path, service: LocalService, pages: Pages, binaries: ModuleType) -> Iterator[str]:
    """Prometheus with the rules of the service, and Alertmanager; yields Prometheus' address."""
    ours, theirs, gossip = free_ports(3)
    gaid = parse(yaml.safe_load(FILE))
    found = [shorter(rule) for rule in rules(gaid, KubeSettings())]
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "interval": "1s", "rules": found}]}))
    agent = service.state().agent_url.removeprefix("http://")
    labels = {"namespace": NAMESPACE, "service": agents_name(gaid.name)}
    (folder / "prometheus.yaml").write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": ["rules.yaml"],
                "scrape_configs": [{"job_name": "agents", "static_configs": [{"targets": [agent], "labels": labels}]}],
                "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{theirs}"]}]}]},
            }
        )
    )
    hook = f"http://127.0.0.1:{pages.server_address[1]}/"
    (folder / "alertmanager.yaml").write_text(
        yaml.safe_dump(
            {
                "route": {
                    "receiver": "night", "group_by": ["alertname", "severity"],
                    "group_wait": "1s", "group_interval": "1s", "repeat_interval": "1h",
                },
                "receivers": [{"name": "night", "webhook_configs": [{"url": hook, "send_resolved": True}]}],
            }
        )
    )  # fmt: skip
    with (
        running(
            binaries.alertmanager(), f"--config.file={folder / 'alertmanager.yaml'}",
            f"--storage.path={folder / 'silences'}", f"--web.listen-address=127.0.0.1:{theirs}",
            f"--cluster.listen-address=127.0.0.1:{gossip}", log=folder / "alertmanager.log",
        ),
        running(
            binaries.prometheus(), f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{ours}",
            log=folder / "prometheus.log",
        ),
    ):  # fmt: skip
        yield f"http://127.0.0.1:{ours}"


@contextlib.contextmanager
def load(url: str, connections: int) -> Iterator[None]:
    stop = threading.Event()
    body = {"model": "paged", "max_tokens": 20, "messages": [{"role": "user", "content": "Say hello."}]}

    def ask() -> None:
        while not stop.is_set():
            with contextlib.suppress(httpx.HTTPError):
                httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(connections)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def test_late_responses_page_whoever_is_on_call_and_the_page_is_resolved_when_they_end(
    state_folder: Path, tmp_path: Path, pages: Pages, binaries: ModuleType, wait_until: Callable[..., None]
) -> None:
    name = "TierServeErrorBudgetBurn"
    file = tmp_path / "paged.yaml"
    file.write_text(FILE)
    with LocalService.up(file) as service, monitored(tmp_path, service, pages, binaries) as prometheus:

        def series(query: str) -> list[Any]:
            reply = httpx.get(f"{prometheus}/api/v1/query", params={"query": query}).json()
            return list(reply["data"]["result"])

        def scraped() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return bool(series("tierserve_gateway_up"))
            return False

        wait_until(scraped, "metrics of the gateway in Prometheus")
        with load(service.endpoint, 1):  # a pool that is overloaded has no finite prediction, so it is seen before
            wait_until(lambda: series("tierserve_policy_predicted_response_seconds"), "a predicted response time")
        with load(service.endpoint, CONNECTIONS):
            wait_until(lambda: pages.alerts(name, "firing"), "a page")
        page = pages.alerts(name, "firing")[0]
        assert page["labels"]["deployment"] == "paged"
        assert page["annotations"]["runbook_url"].endswith(f"/{name}.md")
        assert series("tierserve_policy_at_maximum == 1"), "why: the pool has its maximum of replicas"
        for query in dashboard_queries("service") + dashboard_queries("queueing"):
            seen = series(f"last_over_time(({query})[10m:1s])")
            assert seen or any(name in query for name in WITHOUT_SAMPLES), query
        print(f"page: {page['annotations']['summary']}")
        wait_until(lambda: pages.alerts(name, "resolved"), "the end of the alert")
