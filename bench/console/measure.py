"""How fast the console is: first paint with 50 sites, the API with 1,000 services, what-if, and the server's memory.

    python -m bench.console.measure [LOADS]

Each page is loaded in a new context, with nothing in the cache of the browser.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil

from bench.console.pages import Server, chromium, open_page
from bench.console.services import MadeService, many
from tierserve.console.fleet import Fleet
from tierserve.console.local import LocalSource

SERVICES = 1000
AHEAD_S = 3600.0
"""No supervisor writes the statuses again: their time is in the future, so that they do not age."""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
BYTES = "performance.getEntriesByType('resource').reduce((sum, one) => sum + one.transferSize, 0)"


def main(loads: int) -> None:
    with tempfile.TemporaryDirectory() as state:
        os.environ["TIERSERVE_STATE"] = state
        now = time.time() + AHEAD_S
        MadeService(Path(state), "fifty-sites", 50).create(40.0, now)
        many(Path(state), SERVICES, now=now)
        fleet = Fleet(LocalSource())
        server = Server(fleet)
        server.start()
        try:
            _pages(f"{server.url}#/local/fifty-sites", loads)
            _api(server.url, loads)
        finally:
            server.close()
        print(f"resident memory of the process: {psutil.Process().memory_info().rss / 2**20:.0f} MiB")


def _pages(url: str, loads: int) -> None:
    paints, figures, charts, size = [], [], [], 0.0
    with chromium() as browser:
        for _ in range(loads):
            began = time.perf_counter()
            page = open_page(browser, url).page
            page.wait_for_selector(".tier dd")
            figures.append(time.perf_counter() - began)
            page.wait_for_selector("#chart-arrivals canvas")
            charts.append(time.perf_counter() - began)
            paints.append(page.evaluate(PAINT) / 1e3)
            size = page.evaluate(BYTES)
            page.context.close()
    _show("first contentful paint, 50 sites", paints)
    _show("figures of the service, from the navigation", figures)
    _show("charts, from the navigation", charts)
    print(f"bytes transferred for the page: {size / 1024:.0f} KiB")


def _api(url: str, loads: int) -> None:
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        question = {"namespace": "local", "name": "fifty-sites", "connections": 5000, "thinkSeconds": 20}
        _show("first what-if, starts the planner", [_timed(lambda: client.post("api/what-if", json=question))])
        _show("what-if, 50 sites", [_timed(lambda: client.post("api/what-if", json=question)) for _ in range(loads)])
        _show(
            f"page of 50 of {SERVICES:,} services", [_timed(lambda: client.get("api/services")) for _ in range(loads)]
        )
        path = "api/services/local/fifty-sites"
        _show("one service with 50 sites", [_timed(lambda: client.get(path)) for _ in range(loads)])


def _timed(request: Callable[[], httpx.Response]) -> float:
    began = time.perf_counter()
    request().raise_for_status()
    return time.perf_counter() - began


def _show(name: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    print(f"{name}: median {statistics.median(ordered) * 1e3:.0f} ms, largest {ordered[-1] * 1e3:.0f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
