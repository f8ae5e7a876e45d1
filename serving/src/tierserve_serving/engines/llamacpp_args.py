"""Parameters of llama.cpp: of the pool and of `engineArgs`, by llama.cpp's names, and the memory they need."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tierserve_serving.engines import gguf, model_sizes
from tierserve_serving.sources import model_path

if TYPE_CHECKING:
    from tierserve_serving.config import PoolConfig

OF_OTHER_FIELDS = {
    "model": "set source",
    "model_alias": "set the model's name",
    "n_ctx": "set contextTokens",
    "n_parallel": "set maxConcurrency",
    "lora_adapters": "set adapters",
}
"""Parameters that follow from other fields of the resource, and the field to set."""
_OF_THE_SERVER = frozenset({
    "port", "hostnames", "api_keys", "api_prefix", "ui", "public_path", "embedding", "offline", "models_dir",
    "hf_token",
})  # fmt: skip
_GIB = 2**30


class ArgumentError(ValueError):
    """An argument of the engine is refused; the message starts with the field."""


def apply(engine_args: Mapping[str, str], params: Any) -> None:
    """Set `engine_args` in llama.cpp's parameters. Raises `ArgumentError`."""
    for given, text in engine_args.items():
        name = given.lstrip("-").replace("-", "_")
        if name in OF_OTHER_FIELDS:
            raise ArgumentError(f"engineArgs.{given}: is set by TierServe; hint: {OF_OTHER_FIELDS[name]}")
        if name in _OF_THE_SERVER:
            raise ArgumentError(f"engineArgs.{given}: is set by TierServe, which serves HTTP; hint: remove it")
        if name.startswith("_") or not hasattr(params, name):
            raise ArgumentError(f"engineArgs.{given}: is not a parameter of llama.cpp; hint: remove it")
        setattr(params, name, _value(given, text, getattr(params, name)))


def _value(given: str, text: str, default: object) -> object:
    """Return the value of a parameter from its text, of the type of its default."""
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, Enum):
            return next(member for member in type(default) if member.name.endswith("_" + text.upper()))
        if isinstance(default, int | float | str):
            return type(default)(text)
    except (KeyError, ValueError):
        raise ArgumentError(f"engineArgs.{given}: must be {_wanted(default)} (got {text!r})") from None
    except StopIteration:
        names = ", ".join(member.name for member in type(default))  # type: ignore[attr-defined]
        raise ArgumentError(f"engineArgs.{given}: must be one of {names} (got {text!r})") from None
    raise ArgumentError(f"engineArgs.{given}: cannot be set; hint: remove it")


def _wanted(default: object) -> str:
    return "true or false" if isinstance(default, bool) else f"of type {type(default).__name__}"


def params_of(config: PoolConfig) -> Any:
    """Return llama.cpp's parameters for a pool, without its files. Raises `ArgumentError`."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model_alias = {config.model}  # the name in answers, instead of the path
    params.n_parallel = config.slots
    params.n_ctx = config.context_tokens * config.slots
    params.verbosity = -1
    params.warmup = False
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    apply(config.engine_args, params)
    params.embedding = True
    params.ui = False
    return params


def add_files(params: Any, config: PoolConfig) -> None:
    """Set model and adapters. Raises `SourceError`."""
    import xllamacpp

    params.model.path = str(model_path(config.source or ""))
    # Scale 0: only requests that name an adapter use it.
    params.lora_init_without_apply = True
    params.lora_adapters = [
        xllamacpp.CommonAdapterLoraInfo(str(model_path(source)), 0.0) for source in config.adapters.values()
    ]


def check_files(path: Path, adapters: Mapping[str, Path]) -> None:
    """Raise `ValueError` if the model is corrupt or truncated, or an adapter is of another model.

    llama.cpp says of all of these only that it cannot start.
    """
    model = _header(path, "source", "the file of the model")
    for name, file in adapters.items():
        field = f"adapters.{name}"
        adapter = _header(file, field, "the file of the adapter")
        if adapter.metadata.get("general.type") != "adapter":
            raise ArgumentError(
                f"{field}: {file.name} is not a LoRA adapter (AdapterMismatch); hint: convert one to GGUF"
            )
        kinds = [one.metadata.get("general.architecture") for one in (model, adapter)]
        if kinds[0] != kinds[1]:
            raise _other_base(field, f"it is of architecture {kinds[1]}, the model of {kinds[0]}")
        for tensor, shape in adapter.shapes.items():
            base, _, part = tensor.rpartition(".")
            whole = model.shapes.get(base)  # None: in another part of the model
            if whole and len(whole) == len(shape) == 2 and not _applies(part, shape, whole):
                raise _other_base(field, f"{tensor} has {shape}, and {base} of the model {whole}")


def _applies(part: str, shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether a tensor of an adapter multiplies with that of the model: A from its input, B to its output."""
    return shape[0] == whole[0] if part == "lora_a" else shape[1] == whole[1]


def _other_base(field: str, why: str) -> ArgumentError:
    return ArgumentError(
        f"{field}: the adapter is of another base model: {why} (AdapterMismatch); hint: use one that was trained on "
        "this model"
    )


def _header(path: Path, field: str, what: str) -> gguf.Header:
    hint = "hint: download or copy it again"
    try:
        header = gguf.header(path)
    except (OSError, ValueError, MemoryError, OverflowError, ZeroDivisionError) as error:
        raise ArgumentError(f"{field}: {what} cannot be read: {error} (Corrupt); {hint}") from error
    if (size := path.stat().st_size) <= header.least_bytes:
        raise ArgumentError(
            f"{field}: {path.name} has {size} bytes, by its header more than {header.least_bytes} (Truncated); {hint}"
        )
    return header


def check_context(path: Path, config: PoolConfig) -> None:
    """Raise `ValueError` if the context is longer than that of the model; another file is left to llama.cpp."""
    try:
        sizes = model_sizes.read(path, config.engine_args)
    except (OSError, ValueError):
        return
    model_sizes.check_context(sizes, config.context_tokens, config.engine_args)


def check_memory(path: Path, config: PoolConfig, available: int | None = None) -> None:
    """Raise `ValueError` if weights, key-value cache and buffers of a GGUF file do not fit the memory of this machine.

    llama.cpp would be killed for it in the middle of its start. A file of another form is left to llama.cpp to refuse.
    """
    weights, cache, buffers = memory_needed(path, config)
    free = available_memory() if available is None else available
    if weights + cache + buffers > free:
        raise ValueError(
            f"source: {path.name} needs {(weights + cache + buffers) / _GIB:.1f} GiB of memory (weights "
            f"{weights / _GIB:.1f}, key-value cache of {config.slots} x {config.context_tokens} tokens "
            f"{cache / _GIB:.1f}, buffers {buffers / _GIB:.1f}); {free / _GIB:.1f} GiB are free "
            "(ModelTooLarge); hint: raise the memory of the pod, or lower contextTokens or maxConcurrency"
        )


def memory_needed(path: Path, config: PoolConfig) -> tuple[int, int, int]:
    """Return the bytes of weights, key-value cache and buffers. Zeros if the file cannot be read."""
    from xllamacpp.memory import graph_size

    kinds = {"Q8_0": "q8_0", "Q4_0": "q4_0"}
    kind = kinds.get(config.engine_args.get("cache_type_k", "").upper(), "f16")
    try:
        found = {key: {"value": value} for key, value in gguf.metadata(path).items()}
        cache, buffers, _ = graph_size(found, config.context_tokens * config.slots, 512, config.slots, kind)
    except (ValueError, KeyError, TypeError, OSError):
        return 0, 0, 0
    return path.stat().st_size, int(sum(cache)), int(buffers)


def available_memory() -> int:
    """Return the bytes that this process may still use: of the machine, and of its cgroup."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        cached = dict(line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines())
        free = min(free, int(limit) - used + int(cached.get("inactive_file", 0)))
    except (OSError, ValueError):
        pass  # no cgroup of version 2, or "max": no limit
    return free
