"""A real model and an adapter of it, for tests with real vLLM: `make test-vllm`."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
_RANK = 8


def _module(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.replace("/", "_"), ROOT / f"{path}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for their module
    spec.loader.exec_module(module)
    return module


FOLDER: Path = _module("scripts/hf_model").FOLDER
_ray, _policy = _module("tests/component/conftest"), _module("tests/component/policy/conftest")
ray_serve, wait = _ray.ray_serve, _ray.wait
decision, decisions_address = _policy.decision, _policy.decisions_address


@pytest.fixture(scope="session")
def model() -> Path:
    """The folder of SmolLM2-135M-Instruct, which scripts/hf_model.py has made."""
    assert (FOLDER / "config.json").exists(), "run make test-vllm"
    return FOLDER


@pytest.fixture(scope="session")
def adapter(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter (LoRA) of random weights, large enough to change every answer."""
    import torch
    from safetensors.torch import save_file

    config = json.loads((model / "config.json").read_text())
    width, chance = config["hidden_size"], torch.Generator().manual_seed(0)
    sizes = {"q_proj": width, "v_proj": width // config["num_attention_heads"] * config["num_key_value_heads"]}
    weights = {}
    for layer in range(config["num_hidden_layers"]):
        for name, size in sizes.items():
            at = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{at}.lora_A.weight"] = torch.randn(_RANK, width, generator=chance) * width**-0.5
            weights[f"{at}.lora_B.weight"] = torch.randn(size, _RANK, generator=chance) * 0.5
    folder = tmp_path_factory.mktemp("adapter")
    save_file(weights, str(folder / "adapter_model.safetensors"))
    described = {"peft_type": "LORA", "r": _RANK, "lora_alpha": 16, "target_modules": list(sizes), "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(described))
    return folder
