"""Write docs/images/console-*.png: the console in Chromium, with services whose load grew over the last 15 minutes.

    python -m bench.console.pictures [FOLDER]

The figures are the planner's for a load curve, with a little noise; the pictures show the page, not a measurement.
"""

from __future__ import annotations

import math
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from bench.console.pages import Server, chromium, open_page
from bench.console.services import MadeService, many
from tierserve.console.fleet import Fleet
from tierserve.console.history import LENGTH_S
from tierserve.console.local import LocalSource

ROOT = Path(__file__).resolve().parents[2]
STEP_S = 10.0
AHEAD_S = 600.0  # no supervisor writes the status again, so it must not age while pictures are taken
WIDE, PHONE = {"width": 1440, "height": 1250}, {"width": 390, "height": 844}


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as state:
        os.environ["TIERSERVE_STATE"] = state
        root = Path(state)
        shown = MadeService(root, "assistant")
        many(root, 3, now=time.time() + AHEAD_S)
        MadeService(root, "fifty-sites", 50).create(330.0, time.time() + AHEAD_S)
        source = LocalSource()
        fleet = Fleet(source)
        _fill(fleet, source, shown)
        server = Server(fleet)
        server.start()
        try:
            _take(server.url, folder)
        finally:
            server.close()


def _fill(fleet: Fleet, source: LocalSource, service: MadeService) -> None:
    """15 minutes of history: load from 4 to 44 requests per second, with replicas that follow within 20 s."""
    noise, end, before, behind = random.Random(1), time.time(), 0, 0
    steps = int(LENGTH_S / STEP_S)
    service.create(4.0)
    for step in range(steps + 1):
        rate = 4.0 + 40.0 / (1.0 + math.exp(-(step / steps - 0.5) * 9.0)) + noise.uniform(-0.3, 0.3)
        now = end - LENGTH_S + step * STEP_S
        service.write(rate, now, late=noise.uniform(0.88, 1.03), lag=behind)
        one = source.read(service.name)
        desired = one.status["pools"][-1]["desired"]
        behind, before = max(0, desired - before) if before else 0, desired
        fleet.history.sample(now, [one])
    service.write(rate, end + AHEAD_S, late=0.95)


def _take(url: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        for name, scheme, size in (("light", "light", WIDE), ("dark", "dark", WIDE), ("phone", "dark", PHONE)):
            page = open_page(browser, f"{url}#/local/assistant", color_scheme=scheme, viewport=size).page
            page.wait_for_selector("#chart-arrivals canvas")
            if name != "phone":
                page.fill("#wi-connections", "2000")
                page.fill("#wi-think", "20")
                page.click("#wi-submit")
                page.wait_for_selector("#wi-result tfoot", timeout=30_000)
                page.evaluate("document.activeElement.blur(), scrollTo(0, 0)")
            page.screenshot(path=folder / f"console-{name}.png", full_page=True)
            page.context.close()
        page = open_page(browser, f"{url}#/local/fifty-sites", viewport=WIDE).page
        page.wait_for_selector("#chart-arrivals canvas")
        page.click("#sites summary")
        page.wait_for_selector("#sites tbody tr:nth-child(50)")
        page.screenshot(path=folder / "console-sites.png")
        page.context.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images")
