"""The page in a real browser, driven over Chromium's DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import shutil
import struct
import subprocess
from pathlib import Path

import aiohttp
import pytest

from tierserve.report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0")  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH (Debian: apt-get install chromium)"),
]


def made_record():
    source = Path(__file__).parent.parent / "unit" / "report" / "conftest.py"
    spec = importlib.util.spec_from_file_location("made_records", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.made_record()


@pytest.fixture
def browser(tmp_path):
    process = subprocess.Popen([CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "about:blank"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    yield tmp_path / "profile" / "DevToolsActivePort"
    process.terminate()
    process.wait(10)


class Tab:
    """One page of the browser: commands out, events kept."""

    def __init__(self, socket):
        self.socket, self.events, self.number = socket, [], 0

    async def call(self, method, **params):
        self.number += 1
        await self.socket.send_json({"id": self.number, "method": method, "params": params})
        while True:
            message = await self.socket.receive_json(timeout=20)
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    async def value(self, expression):
        return (await self.call("Runtime.evaluate", expression=expression, returnByValue=True))["result"]["value"]

    async def wait_for(self, expression):
        async with asyncio.timeout(20):
            while not await self.value(expression):
                await asyncio.sleep(0.05)


async def open_tab(session, port_file):
    async with asyncio.timeout(30):
        while not port_file.exists() or not port_file.read_text().strip():
            await asyncio.sleep(0.05)
    base = f"http://127.0.0.1:{port_file.read_text().split()[0]}"
    async with session.get(f"{base}/json/list") as response:
        page = next(target for target in await response.json() if target["type"] == "page")
    return Tab(await session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0))


async def test_the_page_renders_without_errors_and_asks_no_host(browser, tmp_path):
    page, _ = write_report(made_record(), tmp_path / "out")
    async with aiohttp.ClientSession() as session:
        tab = await open_tab(session, browser)
        for domain in ("Runtime", "Log", "Network", "Page"):
            await tab.call(f"{domain}.enable")
        await tab.call("Page.navigate", url=page.as_uri())
        await tab.wait_for("document.readyState === 'complete' && document.querySelectorAll('svg').length === 6")

        said = [
            e
            for e in tab.events
            if e["method"] in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        ]
        asked = {e["params"]["request"]["url"] for e in tab.events if e["method"] == "Network.requestWillBeSent"}
        assert said == []
        assert {url.split(":")[0] for url in asked} <= {"file", "data"}, asked

        widths = await tab.value("[...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().width)")
        assert min(widths) > 300
        assert await tab.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert await tab.value("document.querySelectorAll('tbody tr').length") == 9
        assert "target 1500 ms" in await tab.value("document.querySelector('svg').textContent")

        await tab.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
        assert await tab.value("document.documentElement.scrollWidth <= 390"), "fits a telephone too"
        shot = base64.b64decode((await tab.call("Page.captureScreenshot"))["data"])
        assert struct.unpack(">II", shot[16:24]) == (390, 844)
