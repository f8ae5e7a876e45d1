"""Fixtures: services in a state folder, and the console over them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from bench.console.services import MadeService, many

from tierserve.console.app import make_app
from tierserve.console.fleet import Fleet
from tierserve.console.local import LocalSource
from tierserve.console.planner import Planner


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with 60 services, made once."""
    root = tmp_path_factory.mktemp("made")
    many(root, 60)
    return root


@pytest.fixture
def state(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder, in effect."""
    monkeypatch.setenv("TIERSERVE_STATE", str(made))
    return made


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeService:
    """One service in a state folder of its own."""
    monkeypatch.setenv("TIERSERVE_STATE", str(tmp_path))
    one = MadeService(tmp_path, "assistant")
    one.create(10.0)
    return one


@pytest.fixture
async def client(state: Path) -> AsyncIterator[TestClient]:
    """A client of the console over 60 services."""
    planner = Planner(limit_s=240.0)  # no test is judged by its time, and a busy machine starts the planner slowly
    app = make_app(Fleet(LocalSource()), allowed_hosts=["console.example.com"], planner=planner)
    async with TestClient(TestServer(app)) as one:
        yield one
