"""Arguments of vLLM: those of the pool, and `engineArgs` as `vllm serve` reads them."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tierserve_serving.sources import adapter_folder, model_folder

if TYPE_CHECKING:
    from tierserve_serving.config import PoolConfig

FORBIDDEN = {
    "model": "set source",
    "served_model_name": "set the model's name",
    "max_model_len": "set contextTokens",
    "max_num_seqs": "set maxConcurrency",
    "tensor_parallel_size": "set accelerator.perReplica of the tier",
    "enable_lora": "set adapters",
    "lora_modules": "set adapters",
}
"""Arguments that follow from other fields of the resource, and the field to set."""
_OF_THE_SERVER = (
    "host", "port", "uds", "api_key", "root_path", "middleware", "headless", "grpc", "api_server_count", "config",
    "data_parallel_size", "disable_log_stats", "enable_request_id_headers",
)  # fmt: skip


class ArgumentError(ValueError):
    """An argument of the engine is refused; the message starts with the field."""


def parse(config: PoolConfig, *, with_files: bool = True) -> Namespace:
    """Return vLLM's arguments for a pool. Imports vLLM.

    Args:
        config: the pool.
        with_files: whether model and adapters are on this machine; else their sources stand for their folders.

    Raises:
        ArgumentError: with vLLM's own message.
    """
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):  # type: ignore[misc]
        def error(self, message: str) -> NoReturn:
            raise ArgumentError(f"engineArgs: vLLM: {message}")

    parser = make_arg_parser(Parser())
    files = _of_the_files(config) if with_files else [f"--model={config.source}"]
    arguments: Namespace = parser.parse_args([*files, *_of_the_pool(config), *_given(config.engine_args, parser)])
    try:
        validate_parsed_serve_args(arguments)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"engineArgs: vLLM: {error}") from error
    return arguments


def cache_memory(arguments: Namespace, weights: int) -> float | None:
    """Return the bytes that vLLM has for its key-value cache beside the weights; None if unknown.

    An upper bound: activations take some of it. On accelerators it has not been run.
    """
    from vllm.platforms import current_platform

    if arguments.kv_cache_memory_bytes:
        return float(arguments.kv_cache_memory_bytes)
    if current_platform.is_cuda_alike():  # asked of the driver: this process must not open the device before vLLM's
        total = float(current_platform.get_device_total_memory())
        return float(arguments.tensor_parallel_size * total * arguments.gpu_memory_utilization) - weights
    given = os.environ.get("VLLM_CPU_KVCACHE_SPACE")
    return float(given) * 2**30 if current_platform.is_cpu() and given else None


def _of_the_pool(config: PoolConfig) -> list[str]:
    return [
        f"--served-model-name={config.model}",
        f"--max-model-len={config.context_tokens}",
        f"--max-num-seqs={config.slots}",
        f"--tensor-parallel-size={config.tensor_parallel}",
        "--enable-prompt-tokens-details",  # cached tokens in `usage`
        "--disable-fastapi-docs",
    ]


def _of_the_files(config: PoolConfig) -> list[str]:
    words = [f"--model={model_folder(config.source or '')}"]
    if config.adapters:
        modules = [f"{name}={adapter_folder(source)}" for name, source in config.adapters.items()]
        words += ["--enable-lora", f"--max-loras={len(modules)}", "--lora-modules", *modules]
        ranks = [_rank(Path(module.partition("=")[2])) for module in modules]
        if "max_lora_rank" not in map(_underscored, config.engine_args):
            words.append(f"--max-lora-rank={_allowed_rank(max(ranks))}")
    return words


def check_adapters(arguments: Namespace, config: PoolConfig) -> None:
    """Raise `ArgumentError` if an adapter is of another base model, by the widths in its header."""
    try:
        document = json.loads((Path(arguments.model) / "config.json").read_text())
        width = (document.get("text_config") or document)["hidden_size"]
    except (OSError, ValueError, KeyError):
        return  # vLLM says what is wrong with it
    for name, source in config.adapters.items():
        for tensor, shape in _shapes(adapter_folder(source) / "adapter_model.safetensors").items():
            # These read the hidden state; others (o_proj, down_proj) read what is inside a layer.
            reads_hidden = any(f".{part}.lora_A" in tensor for part in ("q_proj", "k_proj", "v_proj", "up_proj"))
            if reads_hidden and shape[-1] != width:
                raise ArgumentError(
                    f"adapters.{name}: the adapter is of another base model: {tensor} has {shape}, and the hidden size "
                    f"of the model is {width} (AdapterMismatch); hint: use an adapter that was trained on this model"
                )


def _shapes(file: Path) -> dict[str, list[int]]:
    """Shapes of the tensors of a safetensors file: 8 bytes of length, then a JSON header. Empty if there is none."""
    try:
        with file.open("rb") as stream:
            document = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    except (OSError, ValueError, MemoryError, OverflowError):
        return {}
    return {name: tensor["shape"] for name, tensor in document.items() if name != "__metadata__"}


def _rank(adapter: Path) -> int:
    return int(json.loads((adapter / "adapter_config.json").read_text()).get("r", 16))


def _allowed_rank(rank: int) -> int:
    """Return the smallest value of --max-lora-rank that holds `rank`; above the largest vLLM says so itself."""
    return next((allowed for allowed in (8, 16, 32, 64, 128, 256, 320, 512) if allowed >= rank), rank)


def _underscored(name: str) -> str:
    return name.lstrip("-").replace("-", "_")


def _given(engine_args: Mapping[str, str], parser: Any) -> list[str]:
    words: list[str] = []
    for given, value in engine_args.items():
        name = _underscored(given)
        if name in FORBIDDEN:
            raise ArgumentError(f"engineArgs.{given}: is set by TierServe; hint: {FORBIDDEN[name]}")
        if name in _OF_THE_SERVER or name.startswith("ssl_"):
            raise ArgumentError(f"engineArgs.{given}: is set by TierServe, which serves HTTP; hint: remove it")
        option = "--" + name.replace("_", "-")
        switch = getattr(parser, "_option_string_actions", {}).get(option)
        if switch is not None and switch.nargs in ("+", "*"):
            words += [option, *value.split()]
        elif switch is None or switch.nargs != 0:
            words.append(f"{option}={value}")
        elif value.lower() in ("true", ""):
            words.append(option)
        elif value.lower() != "false":
            raise ArgumentError(f"engineArgs.{given}: must be true or false (got {value!r})")
        elif f"--no-{option[2:]}" in switch.option_strings:
            words.append(f"--no-{option[2:]}")
    return words
