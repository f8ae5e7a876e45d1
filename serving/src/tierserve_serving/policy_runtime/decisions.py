"""Publishes the decisions of all policies of a process, and their settings.

HTTP `GET /decisions` and `GET /settings`, Ray metrics, and one log line per change.
"""

from __future__ import annotations

import json
import logging
import math
import socket
import threading
import time
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tierserve.autoscale.decide import Decision, Settings
from tierserve.autoscale.types import Calibrated
from tierserve_serving.replica.download import DownloadReader

logger = logging.getLogger("ray.serve")
_RETRY_S = 10.0
_FORGET_S = 3600.0
_CLOSED_S = 10.0
_publishers: dict[str, DecisionPublisher] = {}
_gauges: dict[str, Any] = {}
_lock = threading.Lock()
GAUGES = {
    "arrival_rate": "Arrivals per second",
    "offered_load_erlangs": "Offered load in erlangs",
    "utilisation_ratio": "Carried load over servers, at most 1",
    "offered_load_ratio": "Offered load over servers; above 1 it exceeds the capacity",
    "wait_probability": "Probability that a request waits",
    "predicted_response_seconds": "Predicted response time at the percentile of the objective",
    "service_seconds": "Mean service time",
    "replicas": "Desired replicas",
    "stale": "1 while the target is held without metrics",
    "calibrated_alpha_seconds": "Measured fixed time of a step",
    "calibrated_beta_seconds": "Measured seconds per computed token",
    "calibrated_gamma_seconds": "Measured seconds per token of context",
    "calibration_samples": "Samples of the measured profile",
    "calibration_error_ratio": "Relative prediction error of the measured profile",
    "calibration_drift": "1 after a recent change of the machine's speed",
    "profile_error_ratio": "Service time of a full batch by the configured profile over the measured one, less 1",
}


class DecisionPublisher:
    """HTTP server of the last decision of each pool. A port in use is retried every ten seconds."""

    def __init__(self, address: str) -> None:
        host, colon, port = address.rpartition(":")
        if not colon or not port.isdigit():
            raise ValueError(f"decisions_address must be HOST:PORT, or :PORT for all addresses, got {address!r}")
        self.host, self.port = host.strip("[]"), int(port)
        self._decisions: dict[str, dict[str, Any]] = {}
        self._made: dict[str, float] = {}
        self._closed: dict[str, float] = {}
        self._settings: dict[str, Settings] = {}
        self._downloads = DownloadReader()
        self._server: ThreadingHTTPServer | None = None
        self._tried = -math.inf

    def put(self, pool: str, decision: dict[str, Any]) -> None:
        """Publish a decision in place of the pool's last one."""
        self._made = self._made | {pool: time.monotonic()}
        self._show(pool, decision)
        if self._server is None and time.monotonic() - self._tried > _RETRY_S:
            self._tried = time.monotonic()
            self._listen()

    def _show(self, pool: str, decision: dict[str, Any]) -> None:
        now = time.monotonic()
        self._made = {name: at for name, at in self._made.items() if now - at < _FORGET_S}
        kept = {name: shown for name, shown in self._decisions.items() if name in self._made}
        self._decisions = kept | {pool: self._as_closed(pool, decision)}

    def is_downloading(self, pool: str) -> bool:
        """Whether a replica of the pool downloads its model into a cache that later replicas share."""
        download = self._downloads.latest(pool)
        return download is not None and bool(download.get("shared"))

    def put_settings(self, pool: str, settings: Settings) -> None:
        """Publish the settings of a pool."""
        self._settings = self._settings | {pool: settings}

    def close(self, pool: str) -> bool:
        """Publish 0 running replicas until a decision has none, at most 10 s; False unless exactly one was running."""
        last = self._decisions.get(pool)
        if last is None or last.get("running") != 1:
            return False
        self._closed[pool] = time.monotonic() + _CLOSED_S
        self._show(pool, last)
        return True

    def _as_closed(self, pool: str, decision: dict[str, Any]) -> dict[str, Any]:
        if not decision.get("running") or time.monotonic() > self._closed.get(pool, -math.inf):
            self._closed.pop(pool, None)
            return decision
        return decision | {"running": 0}

    def body(self) -> bytes:
        """Return the decisions as JSON, each with its age: readers on other machines have other clocks."""
        now, made = time.monotonic(), self._made
        shown = {
            pool: one | {"age_s": now - made[pool], "download": self._downloads.latest(pool)}
            for pool, one in self._decisions.items()
            if pool in made
        }
        return json.dumps(shown).encode()

    def settings(self) -> bytes:
        """Return the settings in force as JSON, by pool."""
        return json.dumps({pool: asdict(settings) for pool, settings in self._settings.items()}).encode()

    def _listen(self) -> None:
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_GET(self) -> None:
                bodies = {
                    "/decisions": publisher.body(),
                    "/settings": publisher.settings(),
                    "/healthz": b'{"ok": true}',
                }
                found = bodies.get(self.path.split("?")[0])
                body = found or b'{"error": "try /decisions"}'
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                """No access log."""

        try:
            self._server = _server_class(self.host)((self.host, self.port), Handler)
        except OSError as error:
            logger.warning("tierserve: decisions cannot be published on %s:%d: %s", self.host, self.port, error)
            return
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="tierserve-decisions", daemon=True).start()


def _server_class(host: str) -> type[ThreadingHTTPServer]:
    """A server of the family of `host`; an empty one stands for all addresses, IPv6 and IPv4 where there are both."""

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host or _is_dual(host) else socket.AF_INET

        def server_bind(self) -> None:
            if _is_dual(host):
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            super().server_bind()

    return Server


def _is_dual(host: str) -> bool:
    return not host and socket.has_dualstack_ipv6()


def publisher(address: str) -> DecisionPublisher:
    """Return the publisher of an address, one per process."""
    with _lock:
        if address not in _publishers:
            _publishers[address] = DecisionPublisher(address)
        return _publishers[address]


def as_json(pool: str, decision: Decision) -> dict[str, Any]:
    """Return a decision as plain JSON values: numbers that are not finite become null."""
    values = decision.to_dict() | {"pool": pool}
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def set_gauges(pool: str, decision: Decision) -> None:
    """Set the Ray metrics `tierserve_policy_*` of a pool."""
    values = {
        "arrival_rate": decision.arrival_rate,
        "offered_load_erlangs": decision.offered_load,
        "utilisation_ratio": decision.rho,
        "offered_load_ratio": decision.offered_load_ratio,
        "wait_probability": decision.p_wait,
        "predicted_response_seconds": decision.predicted_p95_s,
        "service_seconds": decision.service_s,
        "replicas": decision.replicas,
        "stale": float(decision.stale),
        **_calibration(decision.calibration),
    }
    for name, value in values.items():
        if value is not None:
            _gauge(name).set(value, tags={"pool": pool})


def _calibration(seen: Calibrated | None) -> dict[str, float]:
    if seen is None:
        return {}
    return {
        "calibrated_alpha_seconds": seen.alpha,
        "calibrated_beta_seconds": seen.beta,
        "calibrated_gamma_seconds": seen.gamma,
        "calibration_samples": float(seen.samples),
        "calibration_error_ratio": seen.error,
        "calibration_drift": float(seen.drift),
        "profile_error_ratio": seen.profile_error,
    }


def _gauge(name: str) -> Any:
    from ray.util.metrics import Gauge

    if name not in _gauges:
        _gauges[name] = Gauge(f"tierserve_policy_{name}", description=GAUGES[name], tag_keys=("pool",))
    return _gauges[name]
