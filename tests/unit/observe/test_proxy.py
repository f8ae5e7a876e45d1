"""HTTP_PROXY and kin never reach the calls between a service's own components."""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tierserve.observe.client import client
from tierserve.observe.gateway_agent import get_gateway
from tierserve.observe.serve_rest import ServeRest
from tierserve.runtime.local.processes import end_tree, start
from tierserve_serving.policy_runtime.demand import DemandPoller

FIGURES = {"arrivals_total": 3, "queued": 1, "in_flight": 2}


class Server:
    """An HTTP server on a free port that keeps what was asked of it."""

    def __init__(self, body: object, code: int = 200) -> None:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(code)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            do_CONNECT = do_GET  # noqa: N815 - as http.server names it

            def log_message(self, *_: object) -> None:
                pass

        self.asked = asked
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def component() -> Iterator[Server]:
    server = Server({"pools": {"edge": FIGURES}, "applications": {}, **FIGURES})
    yield server
    server.close()


@pytest.fixture(params=["http", "socks5"])
def proxy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A proxy that refuses everything, as the environment names it."""
    server = Server({}, code=403)
    address = server.url.replace("http", request.param, 1)
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, address)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    client.cache_clear()
    yield server
    client.cache_clear()
    server.close()


def test_observation_of_ray_serve_and_of_the_gateway_never_uses_a_proxy(component: Server, proxy: Server) -> None:
    assert ServeRest(component.url).is_up()
    assert ServeRest(component.url).applications() == {}
    assert get_gateway(component.url).figures == {"edge": FIGURES}
    assert proxy.asked == []


def test_the_demand_that_a_policy_reads_never_comes_through_a_proxy(component: Server, proxy: Server) -> None:
    sample = DemandPoller(component.url)._read()
    assert (sample.arrivals, sample.queued, sample.in_flight) == (3, 1, 2)
    assert proxy.asked == []


PRINTS_BYPASSES = (
    "import urllib.request as u; "
    "print([bool(u.proxy_bypass(h)) for h in ('127.0.0.1:1', '127.0.0.2:1', 'localhost', 'kept.example', 'a.example')])"
)


@pytest.mark.parametrize("before", [None, "kept.example", "kept.example, 127.0.0.0/8"])
def test_a_local_component_takes_no_proxy_on_loopback_and_the_proxy_elsewhere(
    before: str | None, proxy: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if before:
        monkeypatch.setenv("NO_PROXY", before)
    log = tmp_path / "log"
    process = start([sys.executable, "-c", PRINTS_BYPASSES], log=log, marker=f"test-{tmp_path.name}")
    while process.alive():
        time.sleep(0.02)
    end_tree(process)
    assert log.read_text().strip() == str([True, True, True, before is not None, False])
    assert urllib.request.getproxies()["http"]
