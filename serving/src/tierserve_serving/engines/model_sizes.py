"""What a model needs, by its own files: bytes of weights and of key-value cache per token, and the longest context.

From `config.json` of a folder in Hugging Face's format, or the header of a GGUF file. What the files do not state, or
what this module does not handle, is None and named in `unknown`: it is not guessed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tierserve_serving.engines import gguf

if TYPE_CHECKING:
    from tierserve_serving.config import PoolConfig

logger = logging.getLogger("ray.serve")
_GIB = 2**30
_BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "half": 2.0, "float": 4.0, "fp8": 1.0, "int8": 1.0}
# Bytes of a value in llama.cpp's cache: blocks of 32 values with a scale of 16 bits, some with a minimum too (ggml.h).
_GGUF_BYTES = {
    "f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32, "q4_1": 20 / 32,
    "q4_0": 18 / 32, "iq4_nl": 18 / 32,
}  # fmt: skip
_GATED = frozenset({"llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"})
"""Model types whose layers are attention, a gated MLP of three matrices (one per expert), and norms."""


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """Sizes of one model; None is unknown.

    Attributes:
        weights: bytes of the weights.
        cache_per_token: bytes of key-value cache of one token of context.
        context: longest context that the model was made for, in tokens.
        unknown: why figures are None, one phrase each.
    """

    weights: int | None = None
    cache_per_token: int | None = None
    context: int | None = None
    unknown: tuple[str, ...] = ()


def read(path: Path, engine_args: Mapping[str, str] | None = None) -> ModelSizes:
    """Return the sizes of a GGUF file or of a folder with `config.json`.

    Args:
        path: of the file (the first of several parts) or the folder.
        engine_args: those of the engine; some set the data type of its cache.

    Raises:
        OSError: a file cannot be read.
        ValueError: it is not a model of this form.
    """
    arguments = {name.lstrip("-").replace("-", "_"): value for name, value in (engine_args or {}).items()}
    if not path.is_dir():
        parts = [path]
        if (start := path.name.find("-00001-of-")) >= 0:
            parts = sorted(path.parent.glob(f"{path.name[:start]}-*-of-*.gguf"))
        kinds = (arguments.get("cache_type_k", "f16"), arguments.get("cache_type_v", "f16"))
        return of_gguf(gguf.metadata(path), sum(part.stat().st_size for part in parts), kinds)
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ValueError(f"{path / 'config.json'} is not an object")
    kind = next((arguments[key] for key in ("kv_cache_dtype", "dtype") if arguments.get(key, "auto") != "auto"), None)
    sizes = of_config(config, kind)
    # Files are exact, also for quantised weights; safetensors first, as engines load them.
    files = list(path.glob("*.safetensors")) or list(path.glob("*.bin"))
    if not files:
        return sizes
    unknown = tuple(reason for reason in sizes.unknown if not reason.startswith("weights"))
    return replace(sizes, weights=sum(file.stat().st_size for file in files), unknown=unknown)


def extends_context(engine_args: Mapping[str, str]) -> bool:
    """Whether arguments of an engine change the context that the model was made for (RoPE scaling)."""
    return any(part in name for name in engine_args for part in ("rope", "yarn", "hf-overrides", "hf_overrides"))


def check_context(sizes: ModelSizes, context_tokens: int, engine_args: Mapping[str, str]) -> None:
    """Raise `ValueError` if the context is longer than what the model was made for.

    llama.cpp would cut it with a line in its log, and vLLM refuse it after its processes have started.
    """
    if sizes.context and context_tokens > sizes.context and not extends_context(engine_args):
        raise ValueError(
            f"contextTokens: must be at most {sizes.context}, the longest context of the model (got {context_tokens}) "
            f"(ContextTooLong); hint: set it to {sizes.context} or less"
        )


def check_cache(sizes: ModelSizes, config: PoolConfig, cache_bytes: float | None) -> None:
    """Check slots times context against the memory of the key-value cache.

    An engine that shares its cache between requests (vLLM) takes fewer requests at once where contexts are long: that
    is a warning. Not even one request of the longest context is an error.

    Args:
        sizes: of the model.
        config: the pool.
        cache_bytes: memory that the engine has for its cache, None if unknown.

    Raises:
        ValueError: one request of `context_tokens` does not fit.
    """
    if cache_bytes is None or not sizes.cache_per_token:
        return
    tokens = max(int(cache_bytes), 0) // sizes.cache_per_token
    if tokens < config.context_tokens:
        needed = config.context_tokens * sizes.cache_per_token
        raise ValueError(
            f"contextTokens: {config.context_tokens} tokens need {needed / _GIB:.2f} GiB of key-value cache, and "
            f"{max(cache_bytes, 0.0) / _GIB:.2f} GiB are left beside the weights "
            f"(KVCacheTooSmall); hint: set it to {tokens} or less, more accelerators per replica, or a smaller model"
        )
    if tokens < config.slots * config.context_tokens:
        logger.warning(
            "%s: the key-value cache holds %d tokens, fewer than %d slots x %d tokens; with long contexts requests "
            "wait in the engine. hint: lower maxConcurrency or contextTokens",
            config.pool, tokens, config.slots, config.context_tokens,
        )  # fmt: skip


def of_config(config: Mapping[str, Any], cache_dtype: str | None = None) -> ModelSizes:
    """Return the sizes of a model by its `config.json`.

    Args:
        config: the document; of a model that also reads images its part `text_config` counts.
        cache_dtype: data type of the cache; None for that of the weights, as engines choose it.
    """
    text: dict[str, Any] = {**config, **(config.get("text_config") or {})}
    unknown: list[str] = []
    cache = weights = None
    if problem := _attention_not_handled(text):
        unknown.append(f"key-value cache: {problem}")
    else:
        kind = cache_dtype or text.get("dtype") or text.get("torch_dtype") or "bfloat16"
        each = next((size for name, size in _BYTES.items() if str(kind).startswith(name)), None)
        if each is None:
            unknown.append(f"key-value cache: data type {kind} is not handled")
        else:
            cache = round(_cached_values(text) * each)
    if problem := _weights_not_handled(config, text):
        unknown.append(f"weights: {problem}")
    else:
        weights = round(_parameters(text) * _bytes_of_weight(text))
    context = text.get("max_position_embeddings")
    return ModelSizes(weights, cache, int(context) if context else None, tuple(unknown))


def _attention_not_handled(text: Mapping[str, Any]) -> str | None:
    if any(name.startswith(("mamba_", "ssm_", "linear_")) for name in text) or "linear_attention" in (
        text.get("layer_types") or ()
    ):
        return "layers without attention are not handled"
    missing = [name for name in ("num_hidden_layers", "num_attention_heads", "hidden_size") if not text.get(name)]
    return f"config.json has no {', '.join(missing)}" if missing else None


def _cached_values(text: Mapping[str, Any]) -> float:
    """Values that one token has in the cache of all layers. A sliding window counts as full: it bounds a request."""
    layers, heads = text["num_hidden_layers"], text["num_attention_heads"]
    if text.get("kv_lora_rank"):  # MLA of DeepSeek: a latent vector and one rotary key, shared by all heads
        return float(layers * (text["kv_lora_rank"] + text["qk_rope_head_dim"]))
    key_value_heads = 1 if text.get("multi_query") else text.get("num_key_value_heads") or heads
    return float(2 * layers * key_value_heads * _head_size(text))


def _head_size(text: Mapping[str, Any]) -> int:
    # Where it is given it may differ from the quotient: 128, not 160, in Mistral-Nemo.
    return int(text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"])


def _weights_not_handled(config: Mapping[str, Any], text: Mapping[str, Any]) -> str | None:
    if text.get("model_type") not in _GATED or text.get("kv_lora_rank"):
        return f"model type {text.get('model_type')} is not handled without its files"
    if config.get("vision_config") or config.get("audio_config"):
        return "parts for images or sound are not handled without the files"
    needed = ("num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size", "vocab_size")
    missing = [name for name in needed if not text.get(name)]
    return f"config.json has no {', '.join(missing)}" if missing else None


def _parameters(text: Mapping[str, Any]) -> int:
    """Parameters of a model of `_GATED`, without norms and biases (below a thousandth of them)."""
    hidden, heads, size = text["hidden_size"], text["num_attention_heads"], _head_size(text)
    attention = 2 * hidden * size * (heads + (text.get("num_key_value_heads") or heads))
    mlp = 3 * hidden * text["intermediate_size"] * (text.get("num_local_experts") or 1)
    tied = text.get("tie_word_embeddings", str(text.get("model_type")).startswith("gemma"))
    return int(text["num_hidden_layers"] * (attention + mlp) + (1 if tied else 2) * text["vocab_size"] * hidden)


def _bytes_of_weight(text: Mapping[str, Any]) -> float:
    quantised = text.get("quantization_config") or {}
    if quantised.get("bits"):  # GPTQ, AWQ; scales of groups and embeddings of 16 bits are left out
        return float(quantised["bits"]) / 8.0
    if str(quantised.get("quant_method")) in ("fp8", "fbgemm_fp8"):
        return 1.0
    return _BYTES.get(str(text.get("dtype") or text.get("torch_dtype") or "bfloat16"), 2.0)


def of_gguf(header: Mapping[str, Any], file_bytes: int, cache_types: tuple[str, str] = ("f16", "f16")) -> ModelSizes:
    """Return the sizes of a model of llama.cpp by its header and the bytes of its files.

    Args:
        header: `gguf.metadata`.
        file_bytes: of all parts.
        cache_types: llama.cpp's names of the data types of keys and of values.
    """
    name = header.get("general.architecture")
    context = header.get(f"{name}.context_length")
    if any(kind.lower() not in _GGUF_BYTES for kind in cache_types):
        reason = f"key-value cache: data types {', '.join(cache_types)} are not handled"
        return ModelSizes(file_bytes, None, context, (reason,))
    key_bytes, value_bytes = (_GGUF_BYTES[kind.lower()] for kind in cache_types)
    try:
        if f"{name}.ssm.state_size" in header:
            raise KeyError("attention in all layers")
        layers, heads = header[f"{name}.block_count"], header[f"{name}.attention.head_count"]
        most = max(heads) if isinstance(heads, list) else heads
        each = header[f"{name}.embedding_length"] // most if most else 0
        key, value = (header.get(f"{name}.attention.{kind}_length", each) for kind in ("key", "value"))
        key_value_heads = header.get(f"{name}.attention.head_count_kv", heads)
        total = sum(key_value_heads) if isinstance(key_value_heads, list) else layers * key_value_heads
    except KeyError as error:
        return ModelSizes(file_bytes, None, context, (f"key-value cache: the header has no {error.args[0]}",))
    return ModelSizes(file_bytes, round(total * (key * key_bytes + value * value_bytes)), context)
