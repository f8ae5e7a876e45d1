from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.serving.sources.servers import Hub, serving

GGUF = b"GGUF" + bytes(range(256)) * 4000
FOLDER = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights" * 5000,
    "pytorch_model.bin": b"weights" * 5000,
    "README.md": b"# about",
    "original/params.json": b"{}",
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with GGUF repositories and a folder, and an empty cache."""
    files = {
        "org/tiny-GGUF": {
            "main": {"q4.gguf": GGUF, "q8.gguf": GGUF * 2, "README.md": b""},
            "v2": {"q4.gguf": b"GGUF2"},
        },
        "org/one-GGUF": {"main": {"one.gguf": GGUF}},
        "org/parts-GGUF": {"main": {f"big-0000{n}-of-00002.gguf": GGUF[n:] for n in (1, 2)}},
        "org/tiny": {"main": FOLDER},
    }
    with serving(Hub(files)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("TIERSERVE_MODEL_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TIERSERVE_MODEL_CACHE_BYTES"):
            monkeypatch.delenv(name, raising=False)
        yield server
