"""The console in a real Chromium: the server in a thread, and pages that report what went wrong in them."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from playwright.sync_api import Browser, Page, sync_playwright

from tierserve.console.app import make_app
from tierserve.console.fleet import Fleet

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-sync", "--disable-background-networking",
         "--disable-component-update", "--no-first-run"]  # fmt: skip


@dataclass(slots=True)
class Server:
    """A console that can be stopped and started again at the same port."""

    fleet: Fleet
    port: int = 0
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _runner: web.AppRunner | None = None
    _thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Listen, at the port of before if there was one."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
            self._thread.start()
        self._call(self._listen())

    async def _listen(self) -> None:
        self._runner = web.AppRunner(make_app(self.fleet), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    def stop(self) -> None:
        """Close the port and all connections."""
        if self._runner is not None:
            self._call(self._runner.cleanup())

    def close(self) -> None:
        """Stop, and end the thread."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread is not None:
            self._thread.join(10)

    def _call(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


@dataclass(slots=True)
class Watched:
    """A page with what it logged and requested."""

    page: Page
    logged: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        noisy = ("error", "warning")
        self.page.on("console", lambda one: self.logged.append(one.text) if one.type in noisy else None)
        self.page.on("pageerror", lambda error: self.logged.append(str(error)))
        self.page.on("request", lambda one: self.requested.append(one.url))


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser, the one of the distribution."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def open_page(browser: Browser, url: str, **context: Any) -> Watched:
    """A page in a context of its own, at the console."""
    watched = Watched(browser.new_context(**context).new_page())
    watched.page.goto(url)
    return watched
