"""Inference engines, behind the protocol `Engine`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierserve_serving.engines.base import Engine, EngineError, Part, RequestError, Timing, Usage

if TYPE_CHECKING:
    from tierserve_serving.config import PoolConfig

__all__ = ["Engine", "EngineError", "Part", "RequestError", "Timing", "Usage", "make_engine"]


def make_engine(config: PoolConfig) -> Engine:
    """Return the engine of the pool, not loaded yet. Imported here, so that only the engine in use is imported."""
    if config.engine == "llamacpp":
        from tierserve_serving.engines.llamacpp import LlamaCppEngine

        return LlamaCppEngine.of(config)
    from tierserve_serving.engines.emulated import EmulatedEngine

    return EmulatedEngine.of(config)
