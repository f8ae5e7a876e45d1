"""Applications, load and a look at the decisions, for the tests of the policy under a real Ray Serve."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from tierserve.runtime.local.ports import free_port


@pytest.fixture(scope="session")
def apps() -> ModuleType:
    """The module policy_apps; replicas get its classes by value, for they cannot import it."""
    from ray import cloudpickle

    path = Path(__file__).with_name("policy_apps.py")
    spec = importlib.util.spec_from_file_location("policy_apps", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["policy_apps"] = module
    spec.loader.exec_module(module)
    cloudpickle.register_pickle_by_value(module)
    return module


class ClosedLoop:
    """Connections that ask again as soon as they have their answer."""

    def __init__(self, url: str) -> None:
        self.url, self.wanted, self.threads = url, 0, []
        self.samples: list[tuple[float, float, int]] = []  # (start, seconds, status)
        self.pids: set[int] = set()

    def connect(self, n: int) -> None:
        self.wanted = n
        for i in range(len(self.threads), n):
            thread = threading.Thread(target=self._ask, args=(i,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _ask(self, i: int) -> None:
        with httpx.Client(timeout=60.0) as client:
            while i < self.wanted:
                start = time.monotonic()
                answer = client.get(self.url)
                self.samples.append((start, time.monotonic() - start, answer.status_code))
                self.pids.add(int(answer.text))

    def stop(self) -> None:
        self.wanted = 0
        for thread in self.threads:
            thread.join(timeout=60.0)
        self.threads = []


@pytest.fixture
def closed_loop() -> Iterator[Callable[[str], ClosedLoop]]:
    made: list[ClosedLoop] = []

    def make(url: str) -> ClosedLoop:
        made.append(ClosedLoop(url))
        return made[-1]

    yield make
    for loop in made:
        loop.stop()


@pytest.fixture(scope="session")
def decisions_address() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def decision(decisions_address: str) -> Callable[[str], dict[str, Any]]:
    """`decision(pool)`: the pool's last decision, as anybody can read it from outside."""

    def read(pool: str) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"http://{decisions_address}/decisions").json().get(pool, {})
        return found

    return read
