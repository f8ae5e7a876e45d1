"""Inference engines, behind the protocol `Engine`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from tierserve_serving.engines.base import COMPLETIONS, Engine, EngineError, Part, RequestError, Timing, Usage

if TYPE_CHECKING:
    from tierserve_serving.config import PoolConfig

__all__ = [
    "Engine",
    "EngineError",
    "Part",
    "RequestError",
    "Timing",
    "Usage",
    "check_arguments",
    "make_engine",
    "warm_up",
]


def check_arguments(config: PoolConfig) -> None:
    """Raise `ValueError` if the engine refuses its arguments; loads no model and needs no accelerator."""
    if config.engine == "vllm":
        if find_spec("vllm") is None:
            raise ValueError("engine: vllm is not installed here; hint: use an image with vLLM, or another engine")
        from tierserve_serving.engines.vllm_args import parse

        parse(config, with_files=False)
    if config.engine == "llamacpp":
        from tierserve_serving.engines.llamacpp_args import params_of

        params_of(config)


async def warm_up(engine: Engine, config: PoolConfig) -> None:
    """Have one token made, for what engines allocate and compile at their first request only.

    Raises:
        EngineError: the engine cannot make it, so that the replica is not ready.
    """
    if config.engine == "emulated" or COMPLETIONS not in engine.endpoints:
        return
    document = {"model": config.model, "prompt": "Hello", "max_tokens": 1}
    async for _ in engine.respond(COMPLETIONS, document):
        pass


def make_engine(config: PoolConfig) -> Engine:
    """Return the engine of the pool, not loaded yet. Imported here, so that only the engine in use is imported."""
    if config.engine == "llamacpp":
        from tierserve_serving.engines.llamacpp import LlamaCppEngine

        return LlamaCppEngine.of(config)
    if config.engine == "vllm":
        from tierserve_serving.engines.vllm import VllmEngine

        return VllmEngine.of(config)
    from tierserve_serving.engines.emulated import EmulatedEngine

    return EmulatedEngine.of(config)
